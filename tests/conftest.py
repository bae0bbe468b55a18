"""Settings for the whole suite."""

import os
import shutil

# Test models are tiny: a second thread only waits. Set before anything imports torch; children inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Without a GPU Triton's kernels run in its interpreter, which must be chosen before anything imports triton.
if shutil.which("nvidia-smi") is None:
    os.environ.setdefault("TRITON_INTERPRET", "1")

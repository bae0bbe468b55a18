"""Checkpoints in the layout that other engines read.

In: a checkpoint of either layout. Out: a folder in Hugging Face layout: the same one, or for a small model (the demo)
a copy that lives as long as the process, with its experts decoded where an engine cannot read them packed.
"""

import atexit
import shutil
import tempfile
from pathlib import Path

import numpy as np

from gpt_oss.checkpoint import Checkpoint
from gpt_oss.checkpoint_writer import write_checkpoint
from gpt_oss.errors import CheckpointError
from gpt_oss.mxfp4 import decode

LARGEST_COPY = 2 << 30


class _Tensors:
    """A checkpoint's tensors by name; experts also decoded, by the name without ending."""

    def __init__(self, checkpoint: Checkpoint):
        self._checkpoint = checkpoint

    def __getitem__(self, name: str) -> np.ndarray:
        if name in self._checkpoint:
            return self._checkpoint.read(name)
        return decode(self._checkpoint.read(f"{name}.blocks"), self._checkpoint.read(f"{name}.scales"))


def hugging_face_folder(path: str | Path, *, dense: bool = False) -> Path:
    """The checkpoint at `path` for engines that read Hugging Face layout; dense: with no MXFP4 in it.

    Raises CheckpointError for a large model that has not this form already.
    """
    path = Path(path)
    with Checkpoint(path) as checkpoint:
        packed = checkpoint.quantized and not dense
        if (
            checkpoint.quantized == packed
            and any(file.name.startswith("model") and "original" not in file.parts for file in checkpoint.files)
            and ("num_local_experts" in (path / "config.json").read_text(encoding="utf-8"))
        ):
            return path
        if checkpoint.nbytes > LARGEST_COPY:
            wanted = "Hugging Face layout with dense experts" if dense else "Hugging Face layout"
            raise CheckpointError(
                f"{path}: here this engine reads the {wanted}; name such a folder, with model.safetensors.index.json"
            )
        folder = Path(tempfile.mkdtemp(prefix="gpt-oss-hf-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return write_checkpoint(
            folder / "model",
            checkpoint.config,
            _Tensors(checkpoint),
            layout="huggingface",
            quantized=packed,
        )

"""Checkpoints in the layout that other engines read.

In: a checkpoint of either layout. Out: a folder in Hugging Face layout: the same one, or for a small model (the demo)
a copy that lives as long as the process.
"""

import atexit
import shutil
import tempfile
from pathlib import Path

import numpy as np

from gpt_oss.checkpoint import Checkpoint
from gpt_oss.checkpoint_writer import write_checkpoint
from gpt_oss.errors import CheckpointError

LARGEST_COPY = 2 << 30


class _Tensors:
    def __init__(self, checkpoint: Checkpoint):
        self._checkpoint = checkpoint

    def __getitem__(self, name: str) -> np.ndarray:
        return self._checkpoint.read(name)


def hugging_face_folder(path: str | Path) -> Path:
    """The checkpoint at `path` for engines that read Hugging Face layout. Raises CheckpointError."""
    path = Path(path)
    with Checkpoint(path) as checkpoint:
        if any(file.name.startswith("model") and "original" not in file.parts for file in checkpoint.files) and (
            "num_local_experts" in (path / "config.json").read_text(encoding="utf-8")
        ):
            return path
        if checkpoint.nbytes > LARGEST_COPY:
            raise CheckpointError(
                f"{path}: this engine reads the Hugging Face layout; name the folder with model.safetensors.index.json"
            )
        folder = Path(tempfile.mkdtemp(prefix="gpt-oss-hf-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return write_checkpoint(
            folder / "model",
            checkpoint.config,
            _Tensors(checkpoint),
            layout="huggingface",
            quantized=checkpoint.quantized,
        )

"""The Metal contexts behind the engine's seam: one `Context` for each slot, all of one `Model`.

A checkpoint folder is converted once into a model file that stays in the cache folder; a model file is used as it is.
Slots decode one after the other: the kernels compute one sequence at a time.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt_oss.cache import ENTRY_PREFIX, VARIABLE, cache_directory
from gpt_oss.checkpoint import Checkpoint
from gpt_oss.errors import CacheError
from gpt_oss.metal import Context, Model, device
from gpt_oss.metal.converter import Vocabulary, write_model_file
from gpt_oss.token_generator import EngineTokenGenerator

logger = logging.getLogger(__name__)

RELEASED_MODEL_FILE = Path("metal") / "model.bin"  # in a clone of a released repository


class MetalBackend:
    """See `gpt_oss.engine.Backend`. Logits are fp32 on the CPU; the vocabulary ends with the model file's tokens."""

    def __init__(self, model: Model, slots: int = 1, context_length: int | None = None):
        self.context_length = min(context_length or model.max_context_length, model.max_context_length)
        self.slots, self.vocab_size = slots, model.vocabulary_size
        self.contexts = [Context(model, self.context_length) for _ in range(slots)]

    def prefill(self, slot: int, tokens: Sequence[int]) -> Tensor:
        """Append tokens to one slot; logits after the last, [vocab]."""
        context = self.contexts[slot]
        context.append(tokens)
        return torch.frombuffer(context.logits, dtype=torch.float32)

    def decode(self, slots: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """Append one token to each named slot; logits [len(slots), vocab]."""
        return torch.stack([self.prefill(slot, [token]) for slot, token in zip(slots, tokens, strict=True)])

    def truncate(self, slot: int, length: int) -> int:
        """Forget all but the first `length` tokens; how many stay: all or, beyond a window's ring, none."""
        context = self.contexts[slot]
        context.truncate(min(length, context.num_tokens))
        kept = context.num_cached_tokens
        context.truncate(kept)
        return kept


class TokenGenerator(EngineTokenGenerator):
    """The Metal backend with the engine around it.

    checkpoint: a folder of either layout, or a Metal model file. context_length: tokens per slot (default: the
    model's). slots: requests that run at the same time. Raises BackendUnavailable if the extension is not built.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        context_length: int | None = None,
        slots: int = 1,
        **engine_options: Any,
    ):
        logger.info("Metal device: %s", device())
        self.backend = MetalBackend(Model(model_file(checkpoint)), slots, context_length)
        super().__init__(self.backend, **engine_options)


def model_file(checkpoint: str | Path) -> Path:
    """The model file of a checkpoint: itself, the one released beside it, or one converted into the cache folder.

    Raises CheckpointError if the checkpoint cannot be used, and CacheError if the cache folder cannot be written.
    """
    path = Path(checkpoint)
    if path.is_file() and path.suffix != ".safetensors":
        return path
    if (path / RELEASED_MODEL_FILE).is_file():
        return path / RELEASED_MODEL_FILE
    with Checkpoint(path) as opened:
        output = _cached_file(opened)
        if not output.is_file():
            logger.warning("converting %s for Metal; the result stays in %s", path, output.parent)
            try:
                output.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise CacheError(f"{output.parent}: cannot be made ({error.strerror}); set {VARIABLE}") from error
            write_model_file(opened, output, Vocabulary.o200k())
    return output


def _cached_file(checkpoint: Checkpoint) -> Path:
    """Named after the checkpoint's files as they are now, so that a changed checkpoint is converted again."""
    state = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in checkpoint.files]
    digest = hashlib.sha256(repr((state, checkpoint.config)).encode()).hexdigest()[:16]
    return cache_directory() / f"{ENTRY_PREFIX}metal-{digest}.bin"

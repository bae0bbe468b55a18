"""Hugging Face transformers' GptOss model behind the engine's seam: an independent implementation of the same model.

In: a checkpoint in either layout (see `hugging_face`). Out: a `TokenGenerator` with our scheduling and sampling, so
that seeds, masks and cancelling work as with every backend. For comparison rather than speed: slots are computed one
after the other.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.utils.quantization_config import Mxfp4Config

from gpt_oss.checkpoint import Checkpoint
from gpt_oss.engines.hugging_face import hugging_face_folder
from gpt_oss.errors import CheckpointError
from gpt_oss.token_generator import EngineTokenGenerator
from gpt_oss.torch.backend import choose_device

DEFAULT_CONTEXT = 8192


class TransformersBackend:
    """See `gpt_oss.engine.Backend`. Caches keep the keys of sliding layers too, so that they can be cut."""

    def __init__(self, model: torch.nn.Module, context_length: int, slots: int, vocab_size: int):
        self.context_length, self.slots, self.vocab_size = context_length, slots, vocab_size
        self._model = model
        self._caches = [DynamicCache() for _ in range(slots)]

    def prefill(self, slot: int, tokens: Sequence[int]) -> Tensor:
        """Append tokens to a slot; fp32 logits [vocab] after the last."""
        ids = torch.tensor([list(tokens)], device=next(self._model.parameters()).device)
        with torch.inference_mode():
            output = self._model(ids, past_key_values=self._caches[slot], use_cache=True, logits_to_keep=1)
        return output.logits[0, -1].float()

    def decode(self, slots: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """Append one token to each slot; fp32 logits [len(slots), vocab]."""
        return torch.stack([self.prefill(slot, [token]) for slot, token in zip(slots, tokens, strict=True)])

    def truncate(self, slot: int, length: int) -> int:
        """Forget all but the first `length` tokens of a slot."""
        if length == 0:
            self._caches[slot] = DynamicCache()
            return 0
        excess = self._caches[slot].get_seq_length() - length
        if excess > 0:
            self._caches[slot].crop(-excess)
        return length


class TokenGenerator(EngineTokenGenerator):
    """checkpoint: a folder. dtype: bfloat16 unless said otherwise; packed experts are unpacked to it, on any device."""

    def __init__(
        self,
        checkpoint: str | Path,
        device: torch.device | str | None = None,
        *,
        context_length: int | None = None,
        slots: int = 1,
        dtype: torch.dtype = torch.bfloat16,
    ):
        folder = hugging_face_folder(checkpoint)
        with Checkpoint(folder) as opened:
            packed = {"quantization_config": Mxfp4Config(dequantize=True)} if opened.quantized else {}
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True, **packed)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{checkpoint}: transformers cannot load it ({error})") from error
        model = model.to(choose_device(device)).eval().requires_grad_(False)
        limit = model.config.max_position_embeddings
        length = min(context_length or DEFAULT_CONTEXT, limit)
        super().__init__(TransformersBackend(model, length, slots, model.config.vocab_size))

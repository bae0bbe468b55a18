"""Keys and values of all slots on the card, and which prefix of a slot may be reused.

Full layers keep every position. Windowed layers keep a ring of `window + MARGIN` positions (position n at place
n % capacity): a query sees the last `window` keys, and the margin lets a prefill chunk be stored before it is read
and a sequence be cut back by up to MARGIN tokens without losing keys that the shorter sequence still sees. A deeper
cut keeps nothing, so that its prefix is computed again: what the seam calls exact truncation.
"""

from dataclasses import dataclass

import torch

from gpt_oss.config import ModelConfig
from gpt_oss.errors import OutOfMemory, RequestError

MARGIN = 2048


@dataclass(frozen=True)
class LayerCache:
    """[slots, kv heads, capacity, head] each."""

    keys: torch.Tensor
    values: torch.Tensor

    @property
    def capacity(self) -> int:
        """Positions that have a place."""
        return self.keys.shape[2]


class KVCache:
    """The caches of all layers and the lengths of all slots, on the device and on the host."""

    def __init__(
        self, config: ModelConfig, slots: int, context_length: int, device: torch.device, dtype: torch.dtype,
        margin: int = MARGIN,
    ):  # fmt: skip
        self.slots, self.context_length = slots, context_length
        self._window = config.sliding_window
        self._ring = min(context_length, config.sliding_window + margin)
        self.layers = []
        for number in range(config.num_hidden_layers):
            capacity = context_length if config.window(number) is None else self._ring
            shape = (slots, config.num_key_value_heads, capacity, config.head_dim)
            # Zeros, not garbage: a masked key is multiplied by a probability of 0, and 0 · NaN is NaN.
            keys, values = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
            self.layers.append(LayerCache(keys, values))
        self.device_lengths = torch.zeros(slots, dtype=torch.int32, device=device)
        self.lengths = [0] * slots
        self._stored = [0] * slots  # highest length since the slot was last empty: the ring holds what precedes it

    @property
    def chunk(self) -> int:
        """Most tokens of one prefill step, such that the ring still holds all keys that the step sees."""
        return max(self._ring - self._window + 1, 1) if self._ring < self.context_length else self.context_length

    def grow(self, slot: int, count: int) -> None:
        """`count` tokens were appended."""
        self.lengths[slot] += count
        self.wrote(slot, self.lengths[slot])

    def wrote(self, slot: int, length: int) -> None:
        """Positions below `length` were written, whether they count or not: the ring holds no more than the last."""
        self._stored[slot] = max(self._stored[slot], length)

    def truncate(self, slot: int, length: int) -> int:
        """Forget all but the first `length` tokens; how many really stay (0 if the ring has lost their keys)."""
        length = max(0, min(length, self.lengths[slot]))
        oldest_needed = max(0, length - self._window + 1)
        oldest_held = self._stored[slot] - self._ring
        if oldest_needed < oldest_held:
            length = 0
        self.lengths[slot] = length
        if length == 0:
            self._stored[slot] = 0
        self.device_lengths[slot] = length
        return length


def bytes_per_token(config: ModelConfig, dtype: torch.dtype) -> int:
    """Bytes that one more position of one slot costs in the full layers."""
    full = sum(config.window(number) is None for number in range(config.num_hidden_layers))
    return full * 2 * config.num_key_value_heads * config.head_dim * dtype.itemsize


def ring_bytes(config: ModelConfig, context_length: int, dtype: torch.dtype, margin: int = MARGIN) -> int:
    """Bytes of one slot's windowed layers."""
    windowed = sum(config.window(number) is not None for number in range(config.num_hidden_layers))
    places = min(context_length, config.sliding_window + margin)
    return windowed * 2 * config.num_key_value_heads * config.head_dim * dtype.itemsize * places


def choose_context(
    config: ModelConfig,
    wanted: int | None,
    slots: int,
    free_bytes: int | None,
    dtype: torch.dtype,
    margin: int = MARGIN,
) -> int:
    """Tokens per slot: what was asked for, or the model's context cut down to what fits `free_bytes`.

    Raises `RequestError` if the model has no such context and `OutOfMemory` if a wanted length does not fit;
    `free_bytes` None means that memory is no question.
    """
    length = wanted or config.context_length
    if length > config.context_length:
        raise RequestError(
            f"the model has a context of {config.context_length} tokens, got {length}; choose a shorter one"
        )
    if free_bytes is None:
        return length
    ring = ring_bytes(config, length, dtype, margin)
    fitting = (free_bytes // slots - ring) // bytes_per_token(config, dtype)
    if fitting >= length:
        return length
    if wanted is None and fitting >= 1024:
        return fitting // 256 * 256
    needed = slots * (ring + length * bytes_per_token(config, dtype))
    raise OutOfMemory(
        f"{slots} sequence(s) of {length} tokens need {needed:,} bytes of cache and {free_bytes:,} are free; "
        f"choose a context of at most {max(0, fitting)} tokens or fewer slots"
    )

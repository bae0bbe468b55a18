"""The order in which MXFP4 expert weights lie on the card: same bits and same size as the checkpoint, other order.

In: the checkpoint's blocks [experts, rows, k/32, 16] and scales [experts, rows, k/32], both uint8.
Out: `PackedExperts`. Nothing is rounded, requantised or expanded; rows are padded with zeros to a multiple of 16
and k to a multiple of 64 (for the released models neither adds a byte).

A *tile* is 16 row slots × 64 k and 512 bytes, what one warp reads with one 16-byte load per lane:

    words  int32 [experts, tiles, steps, lane = 4·g + t, 2·b + r]     g 0…7, t 0…3, b 0…1, r 0…1
    scales uint8 [experts, tiles, steps, g, 2·b + r]
    the word holds row slot 8·r + g, k = 64·step + 32·b + 8·t … + 7

which is the operand order of `mma.m16n8k16` up to a permutation of k that the other operand shares, so no value
ever moves between lanes. Row slots of mlp2 are its rows; those of mlp1 put the 8 gate rows of 8 consecutive
intermediate indices first and their 8 linear rows second, so that both halves of a SwiGLU meet in one lane.

Within a word the value pair p (values 2p and 2p + 1) becomes the register `pair(p)` of two bf16, values in bits
15 (sign) and 8…6 (E2M1) of each half, by few instructions (exhaustive search found no cheaper interleaving: 9 for
8 values):

    pair(0) = (w & 0x81808180) | (w >> 8 & 0x00400040)      pair(1) = w << 2 & MASK
    pair(2) = w << 6 & MASK                                 pair(3) = rotate_left(w, 12) & MASK

A half so decoded is the exact value times 2^-126 (for every code: E2M1's subnormal 0.5 is bf16's).
"""

from dataclasses import dataclass
from functools import cache

import torch

TILE_ROWS = 16
STEP_K = 64
MASK = 0x81C081C0
FIELD_BITS = (15, 8, 7, 6)  # where sign, e1, e0 and m of a value stand in a bf16
# For each value pair, the left rotation of the word that brings each of FIELD_BITS into place.
PAIR_ROTATIONS = ((0, 0, 0, -8), (2, 2, 2, 2), (6, 6, 6, 6), (12, 12, 12, 12))


@dataclass(frozen=True)
class PackedExperts:
    """One expert projection in tile order; `rows` and `k` are the sizes before padding."""

    words: torch.Tensor  # int32 [experts, tiles, steps, 32, 4]
    scales: torch.Tensor  # uint8 [experts, tiles, steps, 8, 4]
    rows: int
    k: int

    @property
    def tiles(self) -> int:
        """Groups of 16 row slots."""
        return self.words.shape[1]

    @property
    def steps(self) -> int:
        """Groups of 64 inputs."""
        return self.words.shape[2]

    @property
    def padded_k(self) -> int:
        """Width that an input buffer must have."""
        return self.steps * STEP_K


def pad_to(value: int, multiple: int) -> int:
    """Smallest multiple of `multiple` that is not below `value`."""
    return -(-value // multiple) * multiple


def empty_packed(experts: int, rows: int, k: int, device: torch.device | str) -> PackedExperts:
    """Unwritten storage for `experts` matrices of `rows` × `k`."""
    tiles, steps = pad_to(rows, TILE_ROWS) // TILE_ROWS, pad_to(k, STEP_K) // STEP_K
    words = torch.empty(experts, tiles, steps, 32, 4, dtype=torch.int32, device=device)
    scales = torch.empty(experts, tiles, steps, 8, 4, dtype=torch.uint8, device=device)
    return PackedExperts(words, scales, rows, k)


def pack(blocks: torch.Tensor, scales: torch.Tensor, *, interleaved_rows: bool) -> PackedExperts:
    """Bring whole tensors into tile order; `interleaved_rows` for mlp1 (even rows gate, odd rows linear)."""
    experts, rows, groups, _ = blocks.shape
    packed = empty_packed(experts, rows, groups * 32, blocks.device)
    for expert in range(experts):
        pack_expert(packed, expert, blocks[expert], scales[expert], interleaved_rows=interleaved_rows)
    return packed


def pack_expert(
    into: PackedExperts, expert: int, blocks: torch.Tensor, scales: torch.Tensor, *, interleaved_rows: bool
) -> None:
    """Write one expert, blocks [rows, k/32, 16] and scales [rows, k/32], on the device of `into`."""
    tiles, steps = into.tiles, into.steps
    padding_rows = tiles * TILE_ROWS - blocks.shape[0]
    padding_groups = steps * 2 - blocks.shape[1]
    if padding_rows or padding_groups:
        blocks = torch.nn.functional.pad(blocks, (0, 0, 0, padding_groups, 0, padding_rows))
        scales = torch.nn.functional.pad(scales, (0, padding_groups, 0, padding_rows))
    words = _words(blocks)  # [slots, groups, t]
    if interleaved_rows:  # tile, g, r
        words = words.view(tiles, 8, 2, steps, 2, 4).permute(0, 3, 1, 5, 4, 2)
        scales = scales.view(tiles, 8, 2, steps, 2).permute(0, 3, 1, 4, 2)
    else:  # tile, r, g
        words = words.view(tiles, 2, 8, steps, 2, 4).permute(0, 3, 2, 5, 4, 1)
        scales = scales.view(tiles, 2, 8, steps, 2).permute(0, 3, 2, 4, 1)
    into.words[expert].view(tiles, steps, 8, 4, 2, 2).copy_(words)
    into.scales[expert].view(tiles, steps, 8, 2, 2).copy_(scales)


def _words(blocks: torch.Tensor) -> torch.Tensor:
    """Bytes [rows, groups, 16] to interleaved words [rows, groups, 4]; byte i of a word's four is its value pair i."""
    table = _pair_table(blocks.device)
    quads = blocks.view(*blocks.shape[:-1], 4, 4)
    words = table[0][quads[..., 0].int()]
    for pair in (1, 2, 3):
        words |= table[pair][quads[..., pair].int()]
    return words


@cache
def _pair_table(device: torch.device) -> torch.Tensor:
    """int32 [4, 256]: where the 8 bits of a byte go when the byte is value pair p."""
    byte = torch.arange(256, dtype=torch.int64)
    table = torch.zeros(4, 256, dtype=torch.int64)
    for pair, rotations in enumerate(PAIR_ROTATIONS):
        for half in (0, 1):
            for field, (target, rotation) in enumerate(zip(FIELD_BITS, rotations, strict=True)):
                bit = (byte >> (4 * half + 3 - field)) & 1
                table[pair] |= bit << ((target + 16 * half - rotation) % 32)
    signed = torch.where(table >= 2**31, table - 2**32, table)
    return signed.to(torch.int32).to(device)

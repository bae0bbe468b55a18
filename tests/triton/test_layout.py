"""The order of MXFP4 weights on the card, and the assembly that multiplies them, both against gpt_oss.mxfp4."""

import numpy as np
import pytest
import torch

from gpt_oss import mxfp4
from gpt_oss.triton import layout, tensor_core
from tests.triton import ptx


def random_experts(generator, experts, rows, groups, low=0, high=255):
    blocks = torch.randint(0, 256, (experts, rows, groups, 16), generator=generator, dtype=torch.uint8)
    scales = torch.randint(low, high, (experts, rows, groups), generator=generator, dtype=torch.uint8)
    return blocks, scales


def slot_of_row(row, interleaved):
    """(tile, slot in the tile) of a weight row, from the text of layout.py."""
    if not interleaved:
        return divmod(row, 16)
    index, linear = divmod(row, 2)
    return index // 8, index % 8 + 8 * linear


def codes_of_word(word):
    """The eight 4-bit codes of a word, bit by bit from the formulas of layout.py."""
    codes = []
    for rotations in layout.PAIR_ROTATIONS:
        for half in (0, 1):
            bits = [
                word >> ((target + 16 * half - r) % 32) & 1 for target, r in zip((15, 8, 7, 6), rotations, strict=True)
            ]
            codes.append(bits[0] << 3 | bits[1] << 2 | bits[2] << 1 | bits[3])
    return codes


@pytest.mark.parametrize(("rows", "groups", "interleaved"), [(16, 2, False), (38, 3, False), (44, 5, True)])
def test_every_weight_and_scale_has_its_place(generator, rows, groups, interleaved):
    blocks, scales = random_experts(generator, 2, rows, groups)
    packed = layout.pack(blocks, scales, interleaved_rows=interleaved)
    assert (packed.rows, packed.k) == (rows, groups * 32)
    words, packed_scales = packed.words.numpy().view(np.uint32), packed.scales.numpy()
    nibbles = np.stack([blocks.numpy() & 15, blocks.numpy() >> 4], -1).reshape(2, rows, groups * 32)
    for row in range(rows):
        tile, slot = slot_of_row(row, interleaved)
        r, g = divmod(slot, 8)
        for group in range(groups):
            step, b = divmod(group, 2)
            assert (packed_scales[:, tile, step, g, 2 * b + r] == scales[:, row, group].numpy()).all()
            for t in range(4):
                for expert in (0, 1):
                    found = codes_of_word(int(words[expert, tile, step, 4 * g + t, 2 * b + r]))
                    assert found == nibbles[expert, row, 32 * group + 8 * t :][:8].tolist()


def test_released_shapes_take_exactly_the_checkpoints_bytes():
    packed = layout.empty_packed(1, 5760, 2880, "meta")
    assert packed.words.nbytes + packed.scales.nbytes == 5760 * 2880 // 2 + 5760 * 90


def test_the_assembly_scales_pairs_exactly():
    """All pairs of codes times all scales: bf16's bits of the value, infinity from 2^128 on, subnormal below 2^-126."""
    codes = np.arange(256, dtype=np.uint32)
    low, high = ((code >> 3 & 1) << 15 | (code & 7) << 6 for code in (codes & 15, codes >> 4))
    for byte in range(255):
        scale = np.full(32, max(byte * 0x00800080, 0x00400040), np.uint32)
        values = mxfp4.PAIR_VALUES.astype(np.float64) * 2.0 ** (byte - 127)
        with np.errstate(over="ignore"):
            expected = values.astype(np.float32).view(np.uint32)
        assert not (expected & 0xFFFF).any()
        for first in range(0, 256, 32):
            lanes = slice(first, first + 32)
            pairs = low[lanes] | high[lanes] << 16
            registers = ptx.run(tensor_core.SCALED_PAIR.value, [None, None, pairs, scale])
            assert (registers["$0"] == expected[lanes, 0] >> 16).all()
            assert (registers["$1"] == expected[lanes, 1] >> 16).all()


@pytest.mark.parametrize("low_high", [(100, 140), (0, 3), (200, 220)])
def test_the_assembly_multiplies_a_tile_with_eight_columns(generator, low_high):
    """The text itself, on 32 emulated lanes, for two steps and eight columns, against float64."""
    steps, k = 2, 128
    blocks, scales = random_experts(generator, 1, 16, k // 32, *low_high)
    scales[0, 0] = low_high[0]
    packed = layout.pack(blocks, scales, interleaved_rows=False)
    inputs = torch.randn(8, k, generator=generator).bfloat16()
    scaled = (inputs.float() * tensor_core.INPUT_SCALE).bfloat16()
    accumulators = [np.zeros(32, np.uint32)] * 4
    for step in range(steps):
        words = packed.words[0, 0, step].numpy().view(np.uint32)  # [lane, 4]
        byte_words = packed.scales[0, 0, step].numpy().copy().view(np.uint32)[:, 0]  # [g]
        pairs = scaled.view(torch.int16).numpy().view(np.uint16).view(np.uint32)  # [column, k / 2]
        lane_inputs = [
            pairs[ptx.GROUP, (64 * step + 32 * b + 8 * ptx.THREAD) // 2 + pair] for b in (0, 1) for pair in range(4)
        ]
        operands = [None] * 4 + [words[:, j] for j in range(4)] + lane_inputs + [byte_words[ptx.GROUP]] + accumulators
        registers = ptx.run(tensor_core.STEP.value, operands)
        accumulators = [registers[f"${n}"] for n in range(4)]
    weights = mxfp4.decode(blocks.numpy(), scales.numpy())[0].astype(np.float64)
    expected = weights @ inputs.double().numpy().T
    found = np.zeros((16, 8))
    for number, register in enumerate(accumulators):
        found[ptx.GROUP + 8 * (number // 2), 2 * ptx.THREAD + number % 2] = register.view(np.float32)
    found *= tensor_core.OUTPUT_SCALE
    # Below 2^-112 the accumulators are subnormal: their last place is 2^-149, times 2^14.
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max() + 16 * 2.0**-135


def test_a_register_of_the_assembly_is_the_value_times_a_power_of_two():
    """All 16 codes in all 8 places of a word."""
    for code in range(16):
        block = torch.full((1, 16, 2, 16), code | code << 4, dtype=torch.uint8)
        packed = layout.pack(block, torch.full((1, 16, 2), 127, dtype=torch.uint8), interleaved_rows=False)
        word = packed.words.flatten()[:1].numpy().view(np.uint32)
        registers = ptx.run("\n".join(tensor_core._decode("w", "u")).replace("w,", "$0,"), [np.repeat(word, 32)])
        for pair in range(4):
            for half in (0, 1):
                value = ptx._bf16(registers[f"u{pair}"], half)[0] * 2.0**126
                assert value == mxfp4.FP4_VALUES[code]
                assert np.signbit(value) == (code >= 8)

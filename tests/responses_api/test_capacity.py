"""What a server takes on by default: on a small machine less, and never more than a share of the memory."""

import pytest

from gpt_oss.config import ModelConfig
from gpt_oss.responses_api.capacity import SHARE, choose_capacity

SMALL = ModelConfig(num_hidden_layers=24)  # 20b: 49,152 bytes of keys and values per token
GIB = 1 << 30


@pytest.mark.parametrize(
    ("free", "chosen"),
    [
        (400 * GIB, (8, 131_072)),
        (100 * GIB, (8, 67_584)),
        (12 * GIB, (8, 8_192)),
        (4 * GIB, (2, 10_240)),
        (GIB // 2, (1, 8_192)),
    ],
)
def test_memory_decides(free, chosen):
    assert choose_capacity(SMALL, free) == chosen
    slots, context_length = chosen
    assert slots * context_length * 49_152 <= max(free // SHARE, 8_192 * 49_152)


def test_what_was_asked_for_stays():
    assert choose_capacity(SMALL, GIB, slots=32, context_length=131_072) == (32, 131_072)
    assert choose_capacity(SMALL, 12 * GIB, slots=2) == (2, 32_768)
    assert choose_capacity(SMALL, 12 * GIB, context_length=65_536) == (1, 65_536)


def test_wider_numbers_halve_it():
    assert choose_capacity(SMALL, 100 * GIB, 4) == (8, 33_792)

"""How many requests a server computes together, and how long each may be, where the command line left it open.

In: a model's numbers and the free memory. Out: slots and tokens per slot whose keys and values fit a share of it. Only
the torch backend asks: its cache grows to what was promised, while the others size theirs by themselves.
"""

from gpt_oss.config import ModelConfig

SLOTS = 8
SHARE = 4
"""The cache may take one part in so many of what is free: weights and everything else on the machine take the rest."""
SHORTEST = 8192
"""Tokens per slot below which there are rather fewer slots."""
STEP = 1024


def choose_capacity(
    config: ModelConfig,
    free_bytes: int,
    bytes_per_number: int = 2,
    *,
    slots: int | None = None,
    context_length: int | None = None,
) -> tuple[int, int]:
    """Slots and context length; what was asked for stays as it is.

    The least is one slot of SHORTEST tokens, or the model's context where that is shorter.
    """
    token_bytes = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * bytes_per_number
    tokens = free_bytes // SHARE // token_bytes  # of all slots together
    shortest = min(context_length or SHORTEST, config.context_length)
    slots = slots or max(1, min(SLOTS, tokens // shortest))
    fitting = max(shortest, tokens // slots // STEP * STEP)
    return slots, context_length or min(config.context_length, fitting)

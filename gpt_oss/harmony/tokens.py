"""The ids of Harmony's control tokens, by name (see `gpt_oss.tokenizer` for the whole vocabulary)."""

from gpt_oss.tokenizer import NUM_TEXT_TOKENS, SPECIAL_TOKENS, VOCAB_SIZE

START = SPECIAL_TOKENS["<|start|>"]
END = SPECIAL_TOKENS["<|end|>"]
MESSAGE = SPECIAL_TOKENS["<|message|>"]
CHANNEL = SPECIAL_TOKENS["<|channel|>"]
CONSTRAIN = SPECIAL_TOKENS["<|constrain|>"]
CALL = SPECIAL_TOKENS["<|call|>"]
RETURN = SPECIAL_TOKENS["<|return|>"]
END_OF_TEXT = SPECIAL_TOKENS["<|endoftext|>"]

STOP_TOKENS = (RETURN, CALL, END_OF_TEXT)
"""Any of these ends what the assistant has to say for now."""

__all__ = [
    "CALL",
    "CHANNEL",
    "CONSTRAIN",
    "END",
    "END_OF_TEXT",
    "MESSAGE",
    "NUM_TEXT_TOKENS",
    "RETURN",
    "START",
    "STOP_TOKENS",
    "VOCAB_SIZE",
]

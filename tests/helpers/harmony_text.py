"""Harmony written out as text (`<|channel|>final<|message|>hi<|return|>`) to token ids and back."""

from gpt_oss.tokenizer import get_tokenizer


def ids(text: str) -> list[int]:
    """Token ids of text in which control tokens are meant."""
    return get_tokenizer().encode(text, allowed_special="all")


def shown(tokens: list[int]) -> str:
    """The inverse of `ids`."""
    return get_tokenizer().decode(tokens)

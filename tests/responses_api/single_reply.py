"""A model that always says the same, to any number of requests at once."""

from gpt_oss.token_generator import Generation, IteratorGeneration, Request, TokenGenerator
from gpt_oss.tokenizer import VOCAB_SIZE
from tests.helpers.harmony_text import ids


class SameReply(TokenGenerator):
    """Says `reply`."""

    vocab_size = VOCAB_SIZE
    context_length = 100_000

    def __init__(self, reply: str):
        self._reply = ids(reply)

    def start(self, request: Request) -> Generation:
        return IteratorGeneration(request, iter(self._reply), self.context_length)

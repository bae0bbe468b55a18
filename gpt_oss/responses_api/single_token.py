"""The public gpt-oss server's backends as a `TokenGenerator`: a function that gives one token per call.

In: `infer_next_token(tokens, temperature, new_request) -> id`, the whole sequence so far each time. Such functions are
not written for concurrent calls, so requests take turns, one whole answer each.
"""

import threading
from collections.abc import Callable, Iterator

from gpt_oss.token_generator import Generation, IteratorGeneration, Request, TokenGenerator
from gpt_oss.tokenizer import VOCAB_SIZE

NextToken = Callable[..., int]
CONTEXT_LENGTH = 131_072


class SingleTokenGenerator(TokenGenerator):
    """Asks `infer_next_token` for every token; of the sampling options it only gets the temperature."""

    vocab_size = VOCAB_SIZE
    honours_allowed_tokens = False

    def __init__(self, infer_next_token: NextToken, context_length: int = CONTEXT_LENGTH):
        self.context_length = context_length
        self._infer = infer_next_token
        self._turn = threading.Lock()

    def start(self, request: Request) -> Generation:
        """Answer with the one token."""
        return IteratorGeneration(request, self._tokens(request), self.context_length)

    def _tokens(self, request: Request) -> Iterator[int]:
        with self._turn:
            tokens, new_request = list(request.prompt_tokens), True
            while True:
                token = self._infer(list(tokens), temperature=request.temperature, new_request=new_request)
                new_request = False
                tokens.append(token)
                yield token

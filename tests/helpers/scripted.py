"""A model that says exactly what a test wrote down, and tools that do what it wrote down."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from openai_harmony import Author, Message, Role, TextContent, ToolDescription, ToolNamespaceConfig

from gpt_oss.token_generator import Generation, IteratorGeneration, Request, Token, TokenGenerator
from gpt_oss.tokenizer import VOCAB_SIZE
from tests.helpers.harmony_text import ids, shown


class ScriptedGenerator(TokenGenerator):
    """Answers the n-th request with the n-th reply: text with control tokens, or ids, or Tokens.

    seconds_per_token, seconds_to_read (the prompt): how slow it is.
    expected: prompts (as text), checked one by one where given. An exception as
    the last item of a reply is raised there. `requests` and `generations` record what happened.
    """

    vocab_size = VOCAB_SIZE

    def __init__(
        self,
        *replies: str | Sequence[int | Token | Exception],
        context_length: int = 100_000,
        seconds_per_token: float = 0.0,
        seconds_to_read: float = 0.0,
        expected: Sequence[str] = (),
    ):
        self.context_length = context_length
        self.requests: list[Request] = []
        self.generations: list[Generation] = []
        self._replies = list(replies)
        self._seconds = seconds_per_token
        self._seconds_to_read = seconds_to_read
        self._expected = list(expected)
        self._seen: tuple[int, ...] = ()

    def start(self, request: Request) -> Generation:
        self.requests.append(request)
        if self._expected:
            assert shown(list(request.prompt_tokens)) == self._expected.pop(0)
        assert self._replies, "the script has no reply left for this request"
        reply = self._replies.pop(0)
        tokens = ids(reply) if isinstance(reply, str) else reply
        cached = _common_prefix(self._seen, request.prompt_tokens)
        self._seen = (
            *request.prompt_tokens,
            *(getattr(t, "id", t) for t in tokens if not isinstance(t, Exception)),
        )
        generation = _Reading(request, self._play(tokens), self.context_length, cached_tokens=cached)
        generation.seconds_to_read = self._seconds_to_read
        self.generations.append(generation)
        return generation

    def _play(self, tokens: Iterable[int | Token | Exception]) -> Iterator[int | Token]:
        time.sleep(self._seconds_to_read)
        for token in tokens:
            if self._seconds:
                time.sleep(self._seconds)
            if isinstance(token, Exception):
                raise token
            yield token


class _Reading(IteratorGeneration):
    """Reads its prompt at a steady pace."""

    seconds_to_read = 0.0

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._began = time.monotonic()

    @property
    def read_tokens(self) -> int:
        share = (time.monotonic() - self._began) / self.seconds_to_read if self.seconds_to_read else 1.0
        return int(self.prompt_tokens * min(1.0, share))


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


class ScriptedTool:
    """Answers to `name` and everything below it with the next of its replies; exceptions are raised."""

    instruction = ""

    def __init__(self, name: str, *replies: str | Exception, seconds: float = 0.0):
        self.name = name
        self.calls: list[Message] = []
        self.interrupted = 0
        self._replies = list(replies)
        self._seconds = seconds

    @property
    def tool_config(self) -> ToolNamespaceConfig:
        return ToolNamespaceConfig(
            name=self.name, description=f"The tool {self.name}.", tools=[ToolDescription.new("run", "Runs.")]
        )

    def accepts(self, recipient: str | None) -> bool:
        return recipient == self.name or (recipient or "").startswith(f"{self.name}.")

    async def process(self, message: Message):
        self.calls.append(message)
        try:
            await asyncio.sleep(self._seconds)
        except asyncio.CancelledError:
            self.interrupted += 1
            raise
        reply = self._replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        author = Author(role=Role.TOOL, name=message.recipient)
        yield Message(
            author=author, content=[TextContent(text=reply)], channel=message.channel, recipient="assistant"
        )

"""One turn of a conversation: the only place where a model is asked, a tool is called and its answer fed
back.

In: the messages so far (the last one usually the user's), a `TokenGenerator`, tools. Out: the events of
`gpt_oss.harmony.events`, the last of which carries the messages to append. The conversation is never
changed here, so a turn that is cancelled, or that fails, leaves nothing half done.

`run_turn` is an async generator, because tools are async and a server runs many turns on one event loop;
inference, which blocks, runs in a thread (`pump`). Code without a loop iterates
`gpt_oss.harmony.bridge.Bridge.run(run_turn(…))`.

Within the turn what the model wrote is fed back token for token, so that the cache's prefix always matches.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Literal

from openai_harmony import Message

from gpt_oss.errors import ContextOverflow, GptOssError
from gpt_oss.harmony import tokens
from gpt_oss.harmony.events import (
    EndReason,
    Event,
    Notice,
    PromptRead,
    SampleStarted,
    TokenSampled,
    ToolResult,
    TurnDone,
    Usage,
)
from gpt_oss.harmony.prompt import (
    drop_oldest_turns,
    message_text,
    opening,
    render_for_completion,
    render_messages,
)
from gpt_oss.harmony.pump import Cancellation, TokenPump
from gpt_oss.harmony.reader import Call, SampleReader
from gpt_oss.harmony.toolbox import ArgumentFormat, Tool, Toolbox
from gpt_oss.token_generator import AllowedTokens, FinishReason, Request, Token, TokenGenerator

ANSWER_ROOM = 512
"""Tokens kept free for the answer (at most a quarter of the context) when old turns are dropped."""
PROGRESS_SECONDS = 0.25
"""How often it is told how much of a long prompt was read."""


@dataclass(frozen=True)
class TurnOptions:
    """How to sample, and where a turn ends.

    max_tokens: of all the model writes in the turn, 0 for no limit but the context's. max_rounds: how often
    the model is asked. max_tool_calls: how many calls are run here; further ones are refused. max_seconds:
    of the whole turn, tools included. overflow: what to do with a conversation longer than the context:
    raise ContextOverflow, or drop its oldest turns. constraint: called before each round with its number,
    gives the mask for `TokenGenerator.stream` (grammars, tool_choice); the ids it sees are those of this
    round. raw: send a TokenSampled event for every token.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    max_tokens: int = 0
    max_rounds: int = 32
    max_tool_calls: int | None = None
    max_seconds: float | None = None
    overflow: Literal["error", "drop"] = "error"
    constraint: Callable[[int], AllowedTokens | None] | None = None
    raw: bool = False


async def run_turn(
    messages: Sequence[Message],
    generator: TokenGenerator,
    tools: Sequence[Tool] = (),
    *,
    functions: Mapping[str, ArgumentFormat] | None = None,
    options: TurnOptions = TurnOptions(),
    cancellation: Cancellation | None = None,
) -> AsyncGenerator[Event, None]:
    """Let the model answer `messages`, running tools as it asks for them.

    functions: what the caller runs itself, by full name, with its argument format; a call to one ends the
    turn with `tool_calls`. cancellation: ends the turn from any thread; closing the generator ends it too.
    Raises RequestError (ContextOverflow) before the first event for a request that cannot be run.
    """
    toolbox, cancellation = Toolbox(tools, functions), cancellation or Cancellation()
    # A long history takes its time to become tokens, which the event loop need not wait for.
    turn = await asyncio.to_thread(_Turn, messages, generator, toolbox, options, cancellation)
    if notice := await asyncio.to_thread(turn.fit_context):
        yield notice
    while turn.reason is None:
        async with aclosing(turn.ask()) as events:
            async for event in events:
                yield event
        async with aclosing(turn.answer_calls()) as events:
            async for event in events:
                yield event
    yield turn.done()


class _Turn:
    def __init__(
        self,
        messages: Sequence[Message],
        generator: TokenGenerator,
        toolbox: Toolbox,
        options: TurnOptions,
        cancellation: Cancellation,
    ):
        self.reason: EndReason | None = None
        self._history = list(messages)
        self._generator, self._toolbox = generator, toolbox
        self._options, self._cancellation = options, cancellation
        self._head = render_for_completion(self._history)
        self._tail: list[int] = []  # this turn, token for token
        self._messages: list[Message] = []
        self._calls: list[Call] = []  # not answered yet
        self._index = self._rounds = self._calls_run = 0
        self._error: str | None = None
        self._clock = _Clock(options.max_seconds)
        self._written = {"reasoning": 0, "call": 0, "text": 0}
        self._input = self._cached = self._tool_tokens = 0

    def fit_context(self) -> Notice | None:
        """Drop the oldest turns where the prompt is too long and the caller allows it, else raise."""
        context = self._generator.context_length
        room = min(ANSWER_ROOM, context // 4) if self._options.overflow == "drop" else 1
        excess = len(self._head) + len(self._tail) + room - context
        if excess <= 0:
            return None
        if self._options.overflow == "drop":
            self._history, dropped = drop_oldest_turns(self._history, excess)
            self._head = render_for_completion(self._history)
            if dropped and len(self._head) + len(self._tail) < context:
                return Notice(
                    f"the context of {context} tokens is full; the oldest {_turns(dropped)} left it"
                )
        if len(self._head) + len(self._tail) < context:
            return None
        raise ContextOverflow(
            f"the conversation has {len(self._head) + len(self._tail)} tokens but the context holds {context}; "
            "shorten it or load the model with a longer context"
        )

    async def ask(self) -> AsyncGenerator[Event, None]:
        """One sample of the model."""
        prompt = self._head + self._tail
        self._input = self._input or len(prompt)
        self._rounds += 1
        request = self._request(prompt)
        yield SampleStarted(self._rounds, request.prompt_tokens)
        reader = SampleReader(self._toolbox, self._index)
        async with aclosing(self._tokens(request)) as sampled:
            async for token in sampled:
                if isinstance(token, PromptRead):
                    yield token
                    continue
                if self._options.raw:
                    yield TokenSampled(token)
                for event in reader.read(token):
                    yield event
                if reader.strayed:
                    break
        for event in reader.finish():
            yield event
        self._absorb(reader)

    async def _tokens(self, request: Request) -> AsyncGenerator[Token | PromptRead, None]:
        """The sample's tokens; sets the reason where the turn cannot go on after it."""
        pump = TokenPump(partial(self._generator.start, request))
        with self._cancellation.calling(pump.cancel):
            try:
                while not await pump.wait(self._clock.remaining(PROGRESS_SECONDS)):
                    if self._clock.remaining() == 0:
                        raise TimeoutError
                    if pump.read_tokens:
                        yield PromptRead(pump.read_tokens)
                while batch := await asyncio.wait_for(pump.next_batch(), self._clock.remaining()):
                    self._clock.tick(self._rounds)
                    if self._rounds == 1:
                        self._cached = pump.cached_tokens
                    for token in batch:
                        yield token
                self.reason = _ENDS.get(pump.finish_reason)
            except TimeoutError:
                self.reason = "max_seconds"
            except GptOssError as error:
                self.reason, self._error = "error", str(error)
            finally:
                pump.cancel()

    def _request(self, prompt: list[int]) -> Request:
        options = self._options
        return self._generator.request(
            prompt,
            stop_tokens=[token for token in tokens.STOP_TOKENS if token < self._generator.vocab_size],
            temperature=options.temperature,
            top_p=options.top_p,
            top_k=options.top_k,
            seed=options.seed,
            logprobs=options.logprobs,
            top_logprobs=options.top_logprobs,
            max_tokens=options.max_tokens and options.max_tokens - self._output(),
            allowed_tokens=options.constraint(self._rounds) if options.constraint else None,
        )

    def _absorb(self, reader: SampleReader) -> None:
        self._index = reader.index
        self._messages += reader.messages
        self._calls = reader.calls
        for kind, count in reader.counts.items():
            self._written[kind] += count
        self._tail += reader.ids_to_continue()
        if self._cancellation.requested:
            self.reason = "cancelled"
        elif self.reason is None and not self._calls:
            self.reason = "stop"

    async def answer_calls(self) -> AsyncGenerator[Event, None]:
        """Run the sample's calls one after the other, unless the turn is over."""
        replies: list[Message] = []
        for call in list(self._calls):
            if self.reason is not None:
                break
            if call.by_caller:
                continue
            result = await self._answer(call)
            if result is not None:
                self._calls.remove(call)
                replies += result.messages
                yield result
        self._messages += replies
        if self.reason is None:
            await asyncio.to_thread(self._continue, replies)
        if self.reason is None and (notice := await asyncio.to_thread(self._fit_again)):
            yield notice

    async def _answer(self, call: Call) -> ToolResult | None:
        """Run one call; None where the turn ended meanwhile."""
        began = time.monotonic()
        limit = self._options.max_tool_calls
        if self._rounds >= self._options.max_rounds or (limit is not None and self._calls_run >= limit):
            replies = [self._toolbox.refuse(call.message, "no more tool calls are possible in this turn")]
        else:
            self._calls_run += 1
            loop = asyncio.get_running_loop()
            running = asyncio.ensure_future(self._toolbox.answer(call.message))
            with self._cancellation.calling(partial(_cancel_soon, loop, running)):
                try:
                    replies = await asyncio.wait_for(running, self._clock.remaining())
                except TimeoutError:
                    self.reason = "max_seconds"
                    return None
                except asyncio.CancelledError:
                    if not self._cancellation.requested:
                        raise  # the whole turn is being cancelled from outside
                    self.reason = "cancelled"
                    return None
        text = "".join(map(message_text, replies))
        return ToolResult(call.index, call.name, text, tuple(replies), time.monotonic() - began)

    def _continue(self, replies: list[Message]) -> None:
        """Feed the answers back, or end the turn where somebody else has to answer, or nobody may."""
        if self._calls:
            self.reason = "tool_calls"
        elif self._rounds >= self._options.max_rounds:
            self.reason = "max_rounds"
        elif self._options.max_tokens and self._output() >= self._options.max_tokens:
            self.reason = "max_tokens"
        if self.reason is not None:
            return
        answers = render_messages(replies)
        self._tool_tokens += len(answers)
        self._tail += answers + opening()
        self._input += len(answers) + len(opening())

    def _fit_again(self) -> Notice | None:
        try:
            return self.fit_context()
        except ContextOverflow:
            self.reason = "context"
            return None

    def _output(self) -> int:
        return sum(self._written.values())

    def done(self) -> TurnDone:
        """The last event. Calls that nobody will answer are no part of the conversation."""
        assert self.reason is not None
        unanswered = [] if self.reason == "tool_calls" else [call.message for call in self._calls]
        usage = Usage(
            self._input,
            self._cached,
            self._tool_tokens,
            self._output(),
            self._written["reasoning"],
            self._written["call"],
            self._written["text"],
        )
        kept = tuple(m for m in self._messages if not any(m is call for call in unanswered))
        first, generating = self._clock.first_token_seconds, self._clock.generating_seconds
        return TurnDone(self.reason, kept, usage, self._error, self._rounds, first, generating)


class _Clock:
    """The turn's time limit, and how fast tokens came."""

    def __init__(self, max_seconds: float | None):
        self._start = time.monotonic()
        self._deadline = None if max_seconds is None else self._start + max_seconds
        self.first_token_seconds = self.generating_seconds = 0.0
        self._round, self._last = 0, self._start

    def remaining(self, at_most: float | None = None) -> float | None:
        """Seconds left of the limit, None without one."""
        if self._deadline is None:
            return at_most
        left = max(0.0, self._deadline - time.monotonic())
        return left if at_most is None else min(left, at_most)

    def tick(self, round: int) -> None:
        """Tokens came."""
        now = time.monotonic()
        if not self._round:
            self.first_token_seconds = now - self._start
        if round == self._round:
            self.generating_seconds += now - self._last
        self._round, self._last = round, now


_ENDS: dict[FinishReason | None, EndReason] = {
    "length": "max_tokens",
    "context": "context",
    "cancelled": "cancelled",
}
"""Endings of a sample after which the turn cannot go on."""


def _cancel_soon(loop: asyncio.AbstractEventLoop, task: "asyncio.Future[list[Message]]") -> None:
    loop.call_soon_threadsafe(task.cancel)


def _turns(count: int) -> str:
    return "turn" if count == 1 else f"{count} turns"

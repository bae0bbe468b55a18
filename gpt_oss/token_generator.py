"""The one interface everything above inference uses: token ids in, token ids out, one at a time.

In: a prompt as token ids and how to sample. Out: a `Generation`, an iterator of `Token` that says why it
ended. Nothing here knows text, Harmony, tools or torch, so importing it costs nothing.

    stream()    checks the request at once, starts it and returns its Generation
    generate()  the same for people who want plain ids (or pairs with logprobs) in a for loop

Backends that speak the engine's three verbs are wrapped by `EngineTokenGenerator`; engines that bring their
own loop (transformers, vLLM, Ollama) and scripted ones in tests implement `start` alone, with
`IteratorGeneration` around their loop. Whoever implements `start` receives a `Request` that was checked
already.
"""

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from gpt_oss.errors import ContextOverflow, GenerationError, RequestError

if TYPE_CHECKING:
    import numpy as np

    from gpt_oss.engine import Backend, EngineStats

FinishReason = Literal["stop", "length", "context", "cancelled", "error"]
AllowedTokens = Callable[[Sequence[int]], "np.ndarray | None"]
"""The ids generated so far -> bool mask [vocab_size] of the ids that may come next, or None when all may."""

MAX_TOP_LOGPROBS = 20


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token. Log probabilities are the raw logits': before temperature, filters and mask."""

    id: int
    logprob: float | None = None  # None unless the request asked for logprobs
    top_logprobs: tuple[tuple[int, float], ...] = ()  # (id, logprob), most probable first


@dataclass(frozen=True, slots=True)
class Request:
    """What to generate, checked. `max_tokens` counts generated tokens; 0 means no limit but the context's."""

    prompt_tokens: tuple[int, ...]
    stop_tokens: frozenset[int] = frozenset()
    temperature: float = 1.0
    max_tokens: int = 0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    allowed_tokens: AllowedTokens | None = None

    def finish_reason(self, last: int, generated: int, context_length: int) -> FinishReason | None:
        """Why the request ends after its `generated`-th token `last`, or None when it goes on."""
        if last in self.stop_tokens:
            return "stop"
        if 0 < self.max_tokens <= generated:
            return "length"
        if len(self.prompt_tokens) + generated >= context_length:
            return "context"
        return None


class Generation(ABC, Iterator[Token]):
    """A running request. Iterating blocks until the next token and raises GenerationError where inference
    fails.

    A stop token is yielded, as the last one. `finish_reason` is None until the last token was handed out and
    is set together with it. `cancel` may be called at any time from any thread: iteration ends at once, also
    where another thread is blocked in it, and the request's slot is free within one token. Dropping the
    object cancels too.
    """

    prompt_tokens: int
    """Length of the prompt."""
    cached_tokens: int = 0
    """How many of the prompt's tokens were found in the cache; valid from the first token on."""
    finish_reason: FinishReason | None = None

    @property
    def read_tokens(self) -> int:
        """How many of the prompt's tokens were read so far, cached ones included; 0 where an engine cannot tell."""
        return 0

    @abstractmethod
    def __next__(self) -> Token: ...

    @abstractmethod
    def cancel(self) -> None:
        """End the request; no effect once it ended."""

    def close(self) -> None:
        """The same as `cancel`, for `contextlib.closing` and `with`."""
        self.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()


class IteratorGeneration(Generation):
    """A generation that pulls an iterator of tokens (or bare ids) in the caller's thread and ends it by the
    request.

    For engines that bring their own loop: `tokens` may run on for ever, and is closed when the request ends.
    Running dry ends it with "stop". An exception other than GptOssError becomes GenerationError.
    """

    def __init__(self, request: Request, tokens: Iterable[Token | int], context_length: int, *, cached_tokens: int = 0):
        self.prompt_tokens = len(request.prompt_tokens)
        self.cached_tokens = cached_tokens
        self._request = request
        self._tokens = iter(tokens)
        self._context_length = context_length
        self._generated = 0
        if self.prompt_tokens >= context_length:
            self.finish_reason = "context"

    def __next__(self) -> Token:
        if self.finish_reason is not None:
            self._close_source()
            raise StopIteration
        try:
            item = next(self._tokens)
        except StopIteration:
            self.finish_reason = self.finish_reason or "stop"
            raise
        except GenerationError:
            self.finish_reason = "error"
            raise
        except Exception as error:  # the loop below is foreign code; callers handle one kind of failure
            self.finish_reason = "error"
            raise GenerationError(f"inference failed: {type(error).__name__}: {error}") from error
        if self.finish_reason is not None:  # cancelled while the source was computing
            self._close_source()
            raise StopIteration
        token = item if isinstance(item, Token) else Token(item)
        self._generated += 1
        reason = self._request.finish_reason(token.id, self._generated, self._context_length)
        if reason is not None:  # nothing else is written here: another thread may cancel at any time
            self.finish_reason = reason
        return token

    def cancel(self) -> None:
        """End the generation; nothing more is sampled."""
        if self.finish_reason is None:
            self.finish_reason = "cancelled"

    def close(self) -> None:
        """Cancel and close the source; from the consuming thread only (other threads use `cancel`)."""
        self.cancel()
        self._close_source()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _close_source(self) -> None:
        close = getattr(self._tokens, "close", None)
        if close is not None:
            close()


class TokenGenerator(ABC):
    """A loaded model that continues prompts. Used from many threads, unless a subclass says otherwise."""

    context_length: int
    """Most tokens, prompt and answer together, that one request can have."""
    vocab_size: int
    honours_allowed_tokens: bool = True
    """Whether masks can be had. Requests with one are refused where they cannot."""

    @abstractmethod
    def start(self, request: Request) -> Generation:
        """Begin to work on a checked request and return at once."""

    def close(self) -> None:  # noqa: B027 - not every generator holds something
        """End what is running and free what was loaded; the object cannot be used afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(
        self,
        prompt_tokens: Iterable[int],
        *,
        stop_tokens: Iterable[int] | None = (),
        temperature: float = 1.0,
        max_tokens: int | None = None,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int | None = None,
        top_logprobs: int = 0,
        logprobs: bool = False,
        allowed_tokens: AllowedTokens | None = None,
    ) -> Request:
        """Check the arguments of `stream` for this model; RequestError names the one that cannot be used."""
        if allowed_tokens is not None and not self.honours_allowed_tokens:
            raise RequestError("this backend cannot restrict which tokens come next; leave out allowed_tokens")
        prompt = _token_ids("prompt_tokens", prompt_tokens, self.vocab_size)
        if not prompt:
            raise RequestError("prompt_tokens must hold at least one token, got none")
        if len(prompt) > self.context_length:
            raise ContextOverflow(
                f"the prompt has {len(prompt)} tokens but the context holds {self.context_length}; "
                "shorten the prompt or load the model with a longer context"
            )
        stops = () if stop_tokens is None else stop_tokens
        return Request(
            prompt_tokens=prompt,
            stop_tokens=frozenset(_token_ids("stop_tokens", stops, self.vocab_size)),
            temperature=_temperature(temperature),
            max_tokens=_integer("max_tokens", 0 if max_tokens is None else max_tokens, 0),
            top_p=_top_p(top_p),
            top_k=_integer("top_k", top_k, 0),
            seed=None if seed is None else _integer("seed", seed),
            top_logprobs=_integer("top_logprobs", top_logprobs, 0, MAX_TOP_LOGPROBS),
            logprobs=bool(logprobs) or top_logprobs > 0,
            allowed_tokens=allowed_tokens,
        )

    def stream(
        self,
        prompt_tokens: Iterable[int],
        *,
        stop_tokens: Iterable[int] | None = (),
        temperature: float = 1.0,
        max_tokens: int | None = None,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int | None = None,
        top_logprobs: int = 0,
        logprobs: bool = False,
        allowed_tokens: AllowedTokens | None = None,
    ) -> Generation:
        """Start a request and return its tokens as they come.

        prompt_tokens: at least one id, at most `context_length`. stop_tokens: ids that end the answer (the id
        is yielded); none by default. temperature: 0 takes the most probable token, 1 samples the model's
        distribution. max_tokens: most tokens to generate, None or 0 for no limit but the context's. top_k,
        top_p: sample among the k most probable tokens (0: all), then among the fewest that hold the share
        top_p. seed: the same seed gives the same answer, whatever else runs. top_logprobs: how many
        alternatives to report per token (≤ 20). allowed_tokens: see `AllowedTokens`; called before every
        token, must be quick. Raises RequestError for an argument that cannot be used, ContextOverflow for a
        prompt that does not fit, both before any work.
        """
        return self.start(
            self.request(
                prompt_tokens,
                stop_tokens=stop_tokens,
                temperature=temperature,
                max_tokens=max_tokens,
                top_p=top_p,
                top_k=top_k,
                seed=seed,
                top_logprobs=top_logprobs,
                logprobs=logprobs,
                allowed_tokens=allowed_tokens,
            )
        )

    def generate(
        self,
        prompt_tokens: Iterable[int],
        stop_tokens: Iterable[int] | None = None,
        temperature: float = 1.0,
        max_tokens: int | None = None,
        return_logprobs: bool = False,
        *,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int | None = None,
        allowed_tokens: AllowedTokens | None = None,
    ) -> Iterator[int | tuple[int, float]]:
        """Yield the generated ids, or (id, logprob) pairs with `return_logprobs`; arguments as in `stream`.

        The arguments are checked by the call, the work starts with the first `next`, and closing (or
        dropping) the returned generator early ends the request.
        """
        request = self.request(
            prompt_tokens,
            stop_tokens=stop_tokens,
            temperature=temperature,
            max_tokens=max_tokens,
            top_p=top_p,
            top_k=top_k,
            seed=seed,
            logprobs=return_logprobs,
            allowed_tokens=allowed_tokens,
        )
        return self._ids(request)

    def _ids(self, request: Request) -> Iterator[int | tuple[int, float]]:
        with self.start(request) as generation:
            for token in generation:
                yield (token.id, cast(float, token.logprob)) if request.logprobs else token.id


class EngineTokenGenerator(TokenGenerator):
    """A backend with the engine around it: slots shared by all callers, prefix reuse, batched decoding.

    options: those of `gpt_oss.engine.Engine`. Backends subclass it and build themselves in `__init__`.
    """

    def __init__(self, backend: "Backend", **options: Any):
        from gpt_oss.engine import Engine  # samples with torch, which readers of this interface need not have

        self.engine = Engine(backend, **options)
        self.context_length = backend.context_length
        self.vocab_size = backend.vocab_size

    def start(self, request: Request) -> Generation:
        """Queue the request."""
        return self.engine.submit(request)

    @property
    def stats(self) -> "EngineStats":
        """Counters of the engine, for a server's status page."""
        return self.engine.stats

    def close(self) -> None:
        """Stop the engine."""
        self.engine.close()


def _token_ids(field: str, ids: Iterable[int], vocab_size: int) -> tuple[int, ...]:
    """Plain ints (NumPy's and torch's integers too), all of them in the vocabulary."""
    try:
        plain = tuple(map(operator.index, ids))
    except TypeError:
        raise RequestError(f"{field} must be integers, got {ids!r:.80}") from None
    for bad in (min(plain, default=0), max(plain, default=0)):
        if not 0 <= bad < vocab_size:
            raise RequestError(f"{field} must be ids from 0 to {vocab_size - 1}, got {bad}")
    return plain


def _integer(field: str, value: int, low: int | None = None, high: int | None = None) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise RequestError(f"{field} must be an integer, got {value!r:.80}") from None
    if (low is not None and number < low) or (high is not None and number > high):
        expected = f"at least {low}" if high is None else f"from {low} to {high}"
        raise RequestError(f"{field} must be {expected}, got {number}")
    return number


def _number(field: str, value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer beyond every float
        return math.inf
    except (TypeError, ValueError):
        raise RequestError(f"{field} must be a number, got {value!r:.80}") from None


def _temperature(value: float) -> float:
    number = _number("temperature", value)
    if not 0.0 <= number < math.inf:  # NaN compares false
        raise RequestError(f"temperature must be a finite number of at least 0, got {number}")
    return number


def _top_p(value: float) -> float:
    number = _number("top_p", value)
    if not 0.0 < number <= 1.0:
        raise RequestError(f"top_p must be above 0 and at most 1, got {number}")
    return number

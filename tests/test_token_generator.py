"""The generate interface around a loop that someone else brings, and what importing it costs."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt_oss.errors import GenerationError
from gpt_oss.token_generator import Generation, IteratorGeneration, Request, Token, TokenGenerator


class Counting(TokenGenerator):
    """Generates 0, 1, 2, ... for ever, or what `source` yields; knows whether its loop was closed."""

    context_length = 20
    vocab_size = 1000

    def __init__(self, source=None):
        self.source = source or self.count
        self.closed = False

    def count(self) -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            self.closed = True

    def start(self, request: Request) -> Generation:
        return IteratorGeneration(request, self.source(), self.context_length, cached_tokens=1)


def test_a_stop_token_is_the_last_one() -> None:
    generator = Counting()
    generation = generator.stream([5, 5], stop_tokens=[3])
    assert [token.id for token in generation] == [0, 1, 2, 3]
    assert (generation.finish_reason, generation.prompt_tokens, generation.cached_tokens) == ("stop", 2, 1)
    assert generator.closed


@pytest.mark.parametrize(("limit", "count", "reason"), [(4, 4, "length"), (0, 18, "context"), (None, 18, "context")])
def test_limits(limit, count, reason) -> None:
    generation = Counting().stream([5, 5], max_tokens=limit)
    assert ([token.id for token in generation], generation.finish_reason) == (list(range(count)), reason)


def test_a_full_prompt_generates_nothing() -> None:
    generation = Counting().stream([5] * 20)
    assert ([*generation], generation.finish_reason) == ([], "context")


def test_a_loop_that_runs_dry() -> None:
    generation = Counting(lambda: iter([7, Token(8, -0.25)])).stream([5])
    assert [*generation] == [Token(7), Token(8, -0.25)]
    assert generation.finish_reason == "stop"


def test_a_failing_loop() -> None:
    def failing():
        yield 1
        raise OSError("connection lost")

    generation = Counting(failing).stream([5])
    assert next(generation).id == 1
    with pytest.raises(GenerationError, match="OSError: connection lost"):
        next(generation)
    assert ([*generation], generation.finish_reason) == ([], "error")


def test_cancel_from_another_thread_while_the_loop_computes() -> None:
    entered, cancelled = threading.Event(), threading.Event()

    def slow():
        yield 1
        entered.set()
        assert cancelled.wait(60)
        yield 2

    generation = Counting(slow).stream([5])

    def cancel() -> None:
        entered.wait(60)
        generation.cancel()
        cancelled.set()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    assert [token.id for token in generation] == [1]
    assert generation.finish_reason == "cancelled"
    canceller.join()


@pytest.mark.parametrize("end", ["close", "leave"])
def test_the_loop_is_closed(end) -> None:
    generator = Counting()
    generation = generator.stream([5])
    next(generation)
    if end == "close":
        generation.close()
    else:
        with generation:
            pass
    assert generator.closed
    assert generation.finish_reason == "cancelled"


def test_generate_yields_ids_or_pairs_and_closes_its_loop() -> None:
    generator = Counting(lambda: iter([Token(7, -0.5), Token(8, -0.25)]))
    assert [*generator.generate([5])] == [7, 8]
    assert [*generator.generate([5], return_logprobs=True)] == [(7, -0.5), (8, -0.25)]

    generator = Counting()
    pulled = generator.generate([5])
    assert next(pulled) == 0
    pulled.close()
    assert generator.closed


def test_importing_the_interface_imports_no_library() -> None:
    code = (
        "import sys; import gpt_oss.token_generator; "
        "print({'torch', 'numpy', 'tiktoken', 'openai_harmony'} & set(sys.modules))"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"

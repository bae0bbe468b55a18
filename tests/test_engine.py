"""The engine against a backend whose logits give away any mistake in a cache, with hand-computed greedy texts."""

import gc
import itertools
import math
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from gpt_oss.errors import ContextOverflow, GenerationError, QueueFull, RequestError
from gpt_oss.token_generator import EngineTokenGenerator, Generation, Token
from tests.helpers.fake_backend import VOCAB, FakeBackend, FakeSamplingBackend, expected_greedy, logits_after

TIMEOUT = 60.0  # for what comes at once, but for a machine with other things to do
ROOT = Path(__file__).parents[1]


@pytest.fixture
def make() -> Iterator[Callable[..., EngineTokenGenerator]]:
    """Makes generators that are closed at the end of the test, whatever happened in it."""
    made: list[EngineTokenGenerator] = []

    def make_one(backend: FakeBackend, **options: int) -> EngineTokenGenerator:
        made.append(EngineTokenGenerator(backend, **options))
        return made[-1]

    yield make_one
    for generator in made:
        generator.close()


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not true():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.001)


def ids(generation: Generation) -> list[int]:
    return [token.id for token in generation]


def prompts(count: int, seed: int, longest: int = 60) -> list[list[int]]:
    """Random prompts, half of them beginning like an earlier one."""
    random = np.random.default_rng(seed)
    made: list[list[int]] = []
    for index in range(count):
        own = random.integers(0, VOCAB, size=random.integers(1, longest)).tolist()
        shared = made[random.integers(len(made))] if index % 2 else []
        made.append((shared[: random.integers(0, longest)] + own)[:longest])
    return made


class TestTexts:
    @pytest.mark.parametrize("slots", [1, 3, 32])
    @pytest.mark.parametrize("chunk", [1, 7, 512])
    def test_concurrent_requests_give_the_texts_of_sequential_ones(self, make, slots: int, chunk: int) -> None:
        asked = prompts(32, seed=slots * 1000 + chunk)
        generator = make(FakeBackend(slots), chunk=chunk, busy_chunk=max(1, chunk // 3))
        together = [generator.stream(prompt, temperature=0, max_tokens=20) for prompt in asked]
        assert [ids(one) for one in together] == [expected_greedy(prompt, 20) for prompt in asked]
        assert {one.finish_reason for one in together} == {"length"}

    def test_concurrent_callers_on_threads(self, make) -> None:
        asked = prompts(32, seed=5)
        generator = make(FakeBackend(slots=8))
        texts: dict[int, list[int]] = {}

        def ask(index: int) -> None:
            texts[index] = list(generator.generate(asked[index], temperature=0, max_tokens=15))

        callers = [threading.Thread(target=ask, args=(index,)) for index in range(32)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(TIMEOUT)
        assert [texts[index] for index in range(32)] == [expected_greedy(prompt, 15) for prompt in asked]

    def test_sampled_text_depends_on_the_seed_alone(self, make) -> None:
        backend = FakeBackend(slots=8)
        generator = make(backend)
        alone = ids(generator.stream([1, 2, 3], seed=7, max_tokens=30, temperature=1.3, top_p=0.9, top_k=20))
        others = [generator.stream([9, n], seed=n, max_tokens=40, temperature=0.1 * n, top_k=n) for n in range(7)]
        again = ids(generator.stream([1, 2, 3], seed=7, max_tokens=30, temperature=1.3, top_p=0.9, top_k=20))
        assert again == alone
        assert any(len(slots) > 1 for verb, slots, _ in backend.calls if verb == "decode")
        for other in others:
            other.close()
        assert ids(generator.stream([1, 2, 3], seed=8, max_tokens=30, temperature=1.3)) != alone

    def test_requests_without_seed_differ(self, make) -> None:
        generator = make(FakeBackend())
        texts = {tuple(generator.generate([4], temperature=2.0, max_tokens=20)) for _ in range(5)}
        assert len(texts) == 5


class TestPrefixReuse:
    def test_a_conversation_computes_each_token_once(self, make) -> None:
        backend = FakeBackend(slots=2)
        generator = make(backend)
        first = generator.stream([5, 6, 7, 8], temperature=0, max_tokens=10)
        answer = ids(first)
        assert (first.prompt_tokens, first.cached_tokens) == (4, 0)
        backend.calls.clear()

        second = generator.stream([5, 6, 7, 8, *answer, 9, 9], temperature=0, max_tokens=5)
        assert ids(second) == expected_greedy([5, 6, 7, 8, *answer, 9, 9], 5)
        # The last sampled token of the first answer was never fed to the backend, so it is not cached.
        assert second.cached_tokens == 4 + 9
        assert backend.calls[0] == ("prefill", [0], 1 + 2)
        assert generator.stats.prefix_hits == 1
        assert generator.stats.cached_tokens == 13
        assert generator.stats.prompt_tokens == 4 + 16
        assert generator.stats.generated_tokens == 15

    def test_the_same_prompt_again_computes_its_last_token_only(self, make) -> None:
        backend = FakeBackend()
        generator = make(backend)
        prompt = list(range(30))
        assert ids(generator.stream(prompt, temperature=0, max_tokens=4)) == expected_greedy(prompt, 4)
        again = generator.stream(prompt, temperature=0, max_tokens=4)
        assert ids(again) == expected_greedy(prompt, 4)
        assert again.cached_tokens == 29
        assert [call for call in backend.calls if call[0] == "prefill"] == [("prefill", [0], 30), ("prefill", [0], 1)]

    def test_the_slot_with_the_longest_prefix_is_taken(self, make) -> None:
        backend = FakeBackend(slots=3)
        generator = make(backend)
        started = [generator.stream([n, n, n, n], temperature=0, max_tokens=3) for n in (1, 2, 3)]
        for one in started:
            ids(one)
        backend.calls.clear()
        follow_up = generator.stream([2, 2, 2, 2, 40], temperature=0, max_tokens=1)
        assert ids(follow_up) == expected_greedy([2, 2, 2, 2, 40], 1)
        assert (follow_up.cached_tokens, backend.calls) == (4, [("prefill", [1], 1)])

    def test_an_unrelated_prompt_takes_the_slot_unused_for_longest(self, make) -> None:
        backend = FakeBackend(slots=2)
        generator = make(backend)
        for prompt in ([1, 1, 1], [2, 2, 2], [1, 1, 1, 3]):  # the last one refreshes slot 0
            ids(generator.stream(prompt, temperature=0, max_tokens=1))
        backend.calls.clear()
        ids(generator.stream([7, 7], temperature=0, max_tokens=1))
        assert backend.calls == [("prefill", [1], 2)]

    @pytest.mark.parametrize("kept", [lambda n: 0, lambda n: n - n % 8, lambda n: max(0, n - 1)])
    def test_a_backend_that_keeps_less_than_asked(self, make, kept) -> None:
        backend = FakeBackend(slots=2, kept=kept)
        generator = make(backend)
        for prompt in prompts(20, seed=11):
            backend.calls.clear()
            generation = generator.stream(prompt, temperature=0, max_tokens=7)
            assert ids(generation) == expected_greedy(prompt, 7)
            assert backend.calls[0][2] == len(prompt) - generation.cached_tokens

    def test_a_backend_that_keeps_more_than_asked_is_an_error(self, make) -> None:
        generator = make(FakeBackend(slots=1))
        generator.engine._scheduler._backend.truncate = lambda slot, length: length + 1  # type: ignore[method-assign]
        with pytest.raises(GenerationError, match="truncate"):
            ids(generator.stream([1]))


class TestEnds:
    def test_stop_token_is_yielded_last(self, make) -> None:
        text = expected_greedy([3, 1], 40)
        stop = text[5]
        generation = make(FakeBackend()).stream([3, 1], temperature=0, stop_tokens=[stop], max_tokens=40)
        assert ids(generation) == text[: text.index(stop) + 1]
        assert generation.finish_reason == "stop"
        with pytest.raises(StopIteration):
            next(generation)

    def test_the_reason_comes_with_the_last_token(self, make) -> None:
        generation = make(FakeBackend()).stream([3, 1], temperature=0, max_tokens=2)
        next(generation)
        assert generation.finish_reason is None
        next(generation)
        assert generation.finish_reason == "length"

    @pytest.mark.parametrize("no_limit", [None, 0])
    def test_no_limit_runs_to_the_context(self, make, no_limit) -> None:
        generation = make(FakeBackend(context_length=50)).stream([1] * 20, max_tokens=no_limit, temperature=0)
        assert ids(generation) == expected_greedy([1] * 20, 30)
        assert generation.finish_reason == "context"

    def test_prompts_around_the_context_length(self, make) -> None:
        backend = FakeBackend(context_length=10)
        generator = make(backend)
        one_left = generator.stream([1] * 9, temperature=0)
        assert (ids(one_left), one_left.finish_reason) == (expected_greedy([1] * 9, 1), "context")
        backend.calls.clear()
        full = generator.stream([1] * 10, temperature=0)
        assert (ids(full), full.finish_reason) == ([], "context")
        with pytest.raises(ContextOverflow, match="11 tokens but the context holds 10"):
            generator.stream([1] * 11)
        assert backend.calls == []

    def test_a_stop_token_wins_over_limits_reached_with_it(self, make) -> None:
        text = expected_greedy([8], 1)
        generation = make(FakeBackend()).stream([8], temperature=0, max_tokens=1, stop_tokens=text)
        assert (ids(generation), generation.finish_reason) == (text, "stop")


class TestCancel:
    def test_closed_early_leaves_the_next_request_right(self, make) -> None:
        generator = make(FakeBackend(slots=1))
        pulled = generator.generate([1, 2, 3], temperature=0)
        assert [next(pulled) for _ in range(3)] == expected_greedy([1, 2, 3], 3)
        pulled.close()
        assert list(generator.generate([1, 2, 4], temperature=0, max_tokens=20)) == expected_greedy([1, 2, 4], 20)
        assert generator.stats.active == 0

    def test_a_dropped_generation_frees_its_slot(self, make) -> None:
        steps = threading.Semaphore(0)
        backend = FakeBackend(slots=1, before=lambda verb: steps.acquire())
        generator = make(backend)
        dropped = generator.stream([1, 2], temperature=0)
        steps.release(3)
        next(dropped)
        del dropped
        gc.collect()
        steps.release(1)  # the step it may be in
        wait_until(lambda: generator.stats.active == 0)
        steps.release(1000)
        assert ids(generator.stream([1], temperature=0, max_tokens=2)) == expected_greedy([1], 2)

    def test_a_generator_never_started_takes_no_slot(self, make) -> None:
        generator = make(FakeBackend())
        generator.generate([1, 2]).close()
        assert generator.stats.requests == 0

    def test_cancel_from_another_thread_during_a_long_prefill(self, make) -> None:
        entered, proceed = threading.Event(), threading.Semaphore(0)

        def before(verb: str) -> None:
            entered.set()
            assert proceed.acquire(timeout=TIMEOUT)

        backend = FakeBackend(slots=1, context_length=10_000, before=before)
        generator = make(backend, chunk=10)
        generation = generator.stream([1] * 9000, temperature=0)
        canceller = threading.Thread(target=lambda: (entered.wait(), generation.cancel()))
        canceller.start()
        assert ids(generation) == []  # blocked here until the other thread cancels, prefill still held back
        assert generation.finish_reason == "cancelled"
        canceller.join()
        proceed.release(1)
        wait_until(lambda: generator.stats.active == 0)
        assert backend.calls == [("prefill", [0], 10)]
        proceed.release(100)
        assert ids(generator.stream([1] * 15, temperature=0, max_tokens=3)) == expected_greedy([1] * 15, 3)

    def test_cancel_while_waiting(self, make) -> None:
        proceed = threading.Semaphore(0)
        generator = make(FakeBackend(slots=1, before=lambda verb: proceed.acquire()))
        running = generator.stream([1], temperature=0, max_tokens=3)
        waiting = generator.stream([2], temperature=0)
        third = generator.stream([3], temperature=0, max_tokens=3)
        waiting.cancel()
        assert (ids(waiting), waiting.finish_reason) == ([], "cancelled")
        proceed.release(1000)
        assert ids(running) == expected_greedy([1], 3)
        assert ids(third) == expected_greedy([3], 3)
        assert generator.stats.requests == 2

    def test_cancel_after_the_end_changes_nothing(self, make) -> None:
        generation = make(FakeBackend()).stream([1], temperature=0, max_tokens=2)
        ids(generation)
        generation.cancel()
        assert generation.finish_reason == "length"

    def test_closing_the_generator_ends_all_requests(self, make) -> None:
        generator = make(FakeBackend(slots=1, context_length=100_000))
        running, waiting = generator.stream([1]), generator.stream([2])
        next(running)
        generator.close()
        ids(running)
        assert running.finish_reason == "cancelled"
        assert (ids(waiting), waiting.finish_reason) == ([], "cancelled")
        with pytest.raises(GenerationError, match="closed"):
            generator.stream([1])
        generator.close()


class Boom(Exception):
    pass


class TestProcesses:
    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
    def test_a_forked_process_is_told_to_load_its_own(self) -> None:
        program = (
            "import os, sys\n"
            "from gpt_oss.errors import GenerationError\n"
            "from gpt_oss.token_generator import EngineTokenGenerator\n"
            "from tests.helpers.fake_backend import FakeBackend\n"
            "generator = EngineTokenGenerator(FakeBackend())\n"
            "list(generator.generate([1], max_tokens=3))\n"
            "begun = generator.stream([1], max_tokens=3)\n"
            "with generator.engine._lock:\n"  # as the worker's thread may hold it
            "    child = os.fork()\n"
            "    if child:\n"
            "        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
            "for asked in (lambda: generator.stream([1], max_tokens=3), lambda: next(begun)):\n"
            "    try:\n"
            "        asked()\n"
            "    except GenerationError as error:\n"
            "        print(error)\n"
            "generator.close()\n"
            "sys.exit(7)\n"
        )
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 7, done.stderr
        assert done.stdout.count("from which this one was forked; load the model again") == 2


class TestReaders:
    def test_the_end_reaches_every_thread_that_waits(self, make) -> None:
        generation = make(FakeBackend()).stream([1], temperature=0, max_tokens=30)
        read: list[int] = []
        readers = [threading.Thread(target=lambda: read.extend(ids(generation)), daemon=True) for _ in range(4)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(TIMEOUT)
            assert not reader.is_alive()
        assert sorted(read) == sorted(expected_greedy([1], 30))


class TestFailures:
    def test_a_failing_prefill_fails_its_request_only(self, make) -> None:
        held = threading.Event()
        calls = []

        def before(verb: str) -> None:
            held.wait(TIMEOUT)
            calls.append(verb)
            if calls.count("prefill") == 2 and verb == "prefill":
                raise Boom("no memory")

        generator = make(FakeBackend(slots=3, before=before))
        asked = [[1, 2], [3, 4], [5, 6]]
        started = [generator.stream(prompt, temperature=0, max_tokens=9) for prompt in asked]
        held.set()
        assert ids(started[0]) == expected_greedy([1, 2], 9)
        with pytest.raises(GenerationError, match="Boom: no memory") as caught:
            ids(started[1])
        assert isinstance(caught.value.__cause__, Boom)
        assert started[1].finish_reason == "error"
        with pytest.raises(StopIteration):
            next(started[1])
        assert ids(started[2]) == expected_greedy([5, 6], 9)

    def test_a_failing_decode_fails_its_batch_and_the_engine_goes_on(self, make) -> None:
        decodes = []

        def before(verb: str) -> None:
            if verb == "decode":
                decodes.append(verb)
                if len(decodes) == 4:
                    raise Boom("device lost")

        backend = FakeBackend(slots=2, before=before)
        generator = make(backend)
        generation = generator.stream([1, 2], temperature=0)
        with pytest.raises(GenerationError, match="while generating a token: Boom: device lost"):
            ids(generation)
        # Nothing of the failed slot's cache is trusted.
        again = generator.stream([1, 2], temperature=0, max_tokens=12)
        assert ids(again) == expected_greedy([1, 2], 12)
        assert again.cached_tokens == 0

    @pytest.mark.parametrize("poison", [math.nan, -math.inf, math.inf])
    def test_logits_that_are_not_finite(self, make, poison: float) -> None:
        class Poisoned(FakeBackend):
            def decode(self, slots, tokens):
                logits = super().decode(slots, tokens)
                logits[[token == 33 for token in tokens]] = poison
                return logits

        generator = make(Poisoned(slots=2))
        good = generator.stream([1], temperature=0, max_tokens=10)
        only_33 = np.arange(VOCAB) == 33
        bad = generator.stream([2], allowed_tokens=lambda generated: only_33, logprobs=True)
        assert next(bad).id == 33
        with pytest.raises(GenerationError, match="logits"):
            next(bad)
        assert ids(good) == expected_greedy([1], 10)


class TestAllowedTokens:
    def test_the_mask_is_asked_before_each_token(self, make) -> None:
        seen: list[list[int]] = []

        def even_after_odd(generated):
            seen.append(list(generated))
            parity = np.arange(VOCAB) % 2
            return None if not generated else parity != generated[-1] % 2

        text = ids(make(FakeBackend()).stream([1], max_tokens=20, seed=1, allowed_tokens=even_after_odd))
        assert seen == [text[:n] for n in range(20)]
        assert all(a % 2 != b % 2 for a, b in itertools.pairwise(text))

    @pytest.mark.parametrize(
        ("mask", "message"),
        [
            (np.zeros(VOCAB, bool), "allows no token"),
            (np.ones(VOCAB - 1, bool), r"expected a bool mask \[50\]"),
            (np.ones(VOCAB), "expected a bool mask"),
        ],
    )
    def test_masks_that_cannot_be_used(self, make, mask, message) -> None:
        generator = make(FakeBackend(slots=2))
        other = generator.stream([1], temperature=0, max_tokens=30)
        with pytest.raises(GenerationError, match=message):
            ids(generator.stream([2], allowed_tokens=lambda generated: mask))
        assert ids(other) == expected_greedy([1], 30)

    def test_what_was_generated_cannot_be_changed(self, make) -> None:
        kept: list[tuple[int, ...]] = []
        text = ids(make(FakeBackend()).stream([1], max_tokens=5, allowed_tokens=kept.append))
        assert kept == [tuple(text[:n]) for n in range(5)]

    def test_a_mask_that_wants_to_end_the_program_fails_its_request_only(self, make) -> None:
        generator = make(FakeBackend())
        with pytest.raises(GenerationError, match="allowed: SystemExit: 3"):
            ids(generator.stream([2], allowed_tokens=lambda generated: sys.exit(3)))
        assert ids(generator.stream([1], temperature=0, max_tokens=30)) == expected_greedy([1], 30)

    def test_a_raising_mask_fails_its_request_only(self, make) -> None:
        def broken(generated):
            raise Boom("grammar")

        generator = make(FakeBackend(slots=2))
        other = generator.stream([1], temperature=0, max_tokens=30)
        with pytest.raises(GenerationError, match="allowed: Boom: grammar"):
            ids(generator.stream([2], allowed_tokens=broken))
        assert ids(other) == expected_greedy([1], 30)


class TestLogprobs:
    def test_logprobs_are_those_of_the_raw_logits(self, make) -> None:
        tokens = list(make(FakeBackend()).stream([1, 2], temperature=3.0, top_k=5, top_logprobs=4, max_tokens=8))
        history = [1, 2]
        for token in tokens:
            logits = logits_after(history).astype(np.float64)
            logprobs = logits - np.log(np.exp(logits).sum())
            best, found = dict(token.top_logprobs), [value for _, value in token.top_logprobs]
            assert token.logprob == pytest.approx(logprobs[token.id], abs=1e-5)
            # By value: of two that are equal in fp32 either may come first.
            assert len(best) == 4 and found == pytest.approx(np.sort(logprobs)[:-5:-1], abs=1e-5)
            assert found == pytest.approx(logprobs[list(best)], abs=1e-5)
            history.append(token.id)

    def test_each_request_gets_what_it_asked_for(self, make) -> None:
        generator = make(FakeBackend(slots=4))
        plain, some, one, five = (
            generator.stream([n], max_tokens=5, logprobs=n > 0, top_logprobs=top) for n, top in enumerate((0, 0, 1, 5))
        )
        assert {token.logprob for token in plain} == {None}
        assert {(type(token.logprob), token.top_logprobs) for token in some} == {(float, ())}
        assert {len(token.top_logprobs) for token in one} == {1}
        assert {len(token.top_logprobs) for token in five} == {5}

    def test_generate_yields_pairs(self, make) -> None:
        generator = make(FakeBackend())
        pairs = list(generator.generate([1], temperature=0, max_tokens=4, return_logprobs=True))
        assert [id for id, _ in pairs] == expected_greedy([1], 4)
        assert all(isinstance(logprob, float) and logprob <= 0 for _, logprob in pairs)


class TestSamplingOnTheBackend:
    """Where every request allows it the backend chooses the tokens and runs a step ahead; nobody notices."""

    def test_the_texts_are_the_same(self, make) -> None:
        """Requests of different lengths that come and go, two of three of them sampled."""
        backends = (FakeBackend(slots=3), FakeSamplingBackend(slots=3))
        texts = []
        for generator in map(make, backends):
            running = [
                generator.stream(
                    prompt, temperature=0.6 * (n % 3), seed=n, max_tokens=3 + 5 * n, logprobs=n % 2 == 0,
                    top_logprobs=max(0, n - 4),
                )
                for n, prompt in enumerate(prompts(9, seed=3))
            ]  # fmt: skip
            texts.append([list(generation) for generation in running])
        assert [[token.id for token in text] for text in texts[0]] == [
            [token.id for token in text] for text in texts[1]
        ]
        for text, other in zip(*texts, strict=True):
            for token, twin in zip(text, other, strict=True):
                assert token.logprob == (None if twin.logprob is None else pytest.approx(twin.logprob, abs=1e-6))
                assert [id for id, _ in token.top_logprobs] == [id for id, _ in twin.top_logprobs]
                assert dict(token.top_logprobs) == pytest.approx(dict(twin.top_logprobs), abs=1e-6)
        assert backends[1].opened > 0

    @pytest.mark.parametrize(
        ("settings", "allowed"),
        [
            ({"temperature": 0.0}, True),
            ({"temperature": 0.0, "top_p": 0.5, "top_k": 3}, True),
            ({"temperature": 1.0, "logprobs": True}, True),
            ({"temperature": 1.0, "top_p": 0.5}, False),
            ({"temperature": 1.0, "top_k": 3}, False),
            ({"temperature": 0.0, "top_logprobs": 2}, True),
            ({"temperature": 0.0, "allowed_tokens": lambda generated: None}, False),
        ],
    )
    def test_only_what_the_backend_can_do_is_left_to_it(self, make, settings, allowed: bool) -> None:
        backend = FakeSamplingBackend()
        generation = make(backend).stream([1, 2], max_tokens=4, seed=5, **settings)
        assert len(ids(generation)) == 4
        assert backend.opened == allowed
        assert any(verb == "decode" for verb, _, _ in backend.calls) != allowed

    def test_nothing_stays_open_when_nobody_asks(self, make) -> None:
        """The step ahead is taken back with the last token, not when the next request comes."""
        backend = FakeSamplingBackend(slots=2)
        generator = make(backend)
        ids(generator.stream([1, 2], temperature=0, max_tokens=5))
        wait_until(lambda: generator.stats.active == 0 and not backend._counted)
        assert backend.cache[0] == [1, 2, *expected_greedy([1, 2], 4)]

    def test_a_failure_in_a_step_ahead_ends_the_requests_and_no_more(self, make) -> None:
        steps = itertools.count()

        def before(verb: str) -> None:
            if verb == "decode_sampled" and next(steps) == 4:
                raise Boom

        generator = make(FakeSamplingBackend(before=before))
        generation = generator.stream([1, 2], temperature=0, max_tokens=150)
        assert next(generation).id == expected_greedy([1, 2], 1)[0]
        with pytest.raises(GenerationError, match="while generating a token"):
            ids(generation)
        assert ids(generator.stream([1, 2], temperature=0, max_tokens=5)) == expected_greedy([1, 2], 5)

    def test_a_backend_may_refuse_a_batch(self, make) -> None:
        backend = FakeSamplingBackend(slots=2, most_rows=0)
        assert ids(make(backend).stream([1], temperature=0, max_tokens=3)) == expected_greedy([1], 3)
        assert not backend.opened


class TestFairness:
    def test_a_long_prompt_does_not_stall_decoding(self, make) -> None:
        held = threading.Event()

        def before(verb: str) -> None:
            held.wait(TIMEOUT)

        backend = FakeBackend(slots=2, context_length=5000, before=before)
        generator = make(backend, chunk=100, busy_chunk=20)
        short = generator.stream([1], temperature=0, max_tokens=30)
        long = generator.stream([2] * 1000, temperature=0, max_tokens=1)
        held.set()
        assert ids(short) == expected_greedy([1], 30)
        assert ids(long) == expected_greedy([2] * 1000, 1)
        first_decode = next(i for i, call in enumerate(backend.calls) if call[0] == "decode")
        last_decode = max(i for i, call in enumerate(backend.calls) if call[0] == "decode")
        between = backend.calls[first_decode : last_decode + 1]
        prefilled = 0
        for verb, _, tokens in between:
            prefilled = prefilled + tokens if verb == "prefill" else 0
            assert prefilled <= 20

    def test_a_short_prompt_does_not_wait_for_a_long_one(self, make) -> None:
        held = threading.Event()
        backend = FakeBackend(slots=2, context_length=5000, before=lambda verb: held.wait(TIMEOUT))
        generator = make(backend, chunk=100, busy_chunk=100)
        long = generator.stream([2] * 4000, temperature=0, max_tokens=1)
        short = generator.stream([1] * 5, temperature=0, max_tokens=1)
        held.set()
        assert ids(short) == expected_greedy([1] * 5, 1)
        assert len(backend.cache[0]) < 4000 or long.finish_reason is None
        assert next(call for call in backend.calls if call[1] == [1]) in backend.calls[:3]
        assert ids(long) == expected_greedy([2] * 4000, 1)

    def test_requests_are_admitted_in_order(self, make) -> None:
        held = threading.Event()
        backend = FakeBackend(slots=1, before=lambda verb: held.wait(TIMEOUT))
        generator = make(backend)
        # Each prompt's length tells it apart in the record; the third shares a prefix with the first.
        asked = [[1] * 3, [2] * 4, [1] * 5, [3] * 6]
        started = [generator.stream(prompt, temperature=0, max_tokens=1) for prompt in asked]
        held.set()
        for one in started:
            ids(one)
        assert [tokens for _, _, tokens in backend.calls] == [3, 4, 5, 6]

    def test_short_prompts_share_a_chunk_and_then_a_batch(self, make) -> None:
        held = threading.Event()
        backend = FakeBackend(slots=8, before=lambda verb: held.wait(TIMEOUT))
        generator = make(backend, chunk=512)
        started = [generator.stream([n, n], temperature=0, max_tokens=3) for n in range(8)]
        held.set()
        for one in started:
            ids(one)
        verbs = [verb for verb, _, _ in backend.calls]
        assert verbs.count("prefill") == 8
        assert verbs.count("decode") <= 4  # 2 when all came before the first step


class TestQueueAndThread:
    def test_a_full_queue_refuses(self, make) -> None:
        held = threading.Event()
        generator = make(FakeBackend(slots=1, before=lambda verb: held.wait(TIMEOUT)), max_waiting=2)
        running = generator.stream([1], temperature=0, max_tokens=2)
        wait_until(lambda: generator.stats.active == 1)
        waiting = [generator.stream([n], temperature=0, max_tokens=2) for n in (2, 3)]
        with pytest.raises(QueueFull):
            generator.stream([4])
        assert (generator.stats.active, generator.stats.waiting, generator.stats.slots) == (1, 2, 1)
        held.set()
        assert [ids(one) for one in (running, *waiting)] == [expected_greedy([n], 2) for n in (1, 2, 3)]

    @pytest.mark.skipif(not hasattr(time, "pthread_getcpuclockid"), reason="this system has no clocks of threads")
    def test_an_idle_engine_uses_no_processor_time(self, make) -> None:
        generator = make(FakeBackend())
        ids(generator.stream([1], max_tokens=3))
        thread = generator.engine._worker
        assert thread is not None and thread.ident is not None
        clock = time.pthread_getcpuclockid(thread.ident)
        before = time.clock_gettime(clock)
        time.sleep(0.3)
        assert time.clock_gettime(clock) - before < 0.1

    def test_no_thread_before_the_first_request_nor_after_idling(self, make, monkeypatch) -> None:
        monkeypatch.setattr("gpt_oss.engine.IDLE_SECONDS", 0.05)
        generator = make(FakeBackend())
        others = set(threading.enumerate())  # of engines that other tests left idle

        def engine_threads() -> int:
            return sum(thread.name == "gpt-oss-engine" for thread in set(threading.enumerate()) - others)

        assert engine_threads() == 0
        for _ in range(3):
            assert ids(generator.stream([1], temperature=0, max_tokens=3)) == expected_greedy([1], 3)
            wait_until(lambda: engine_threads() == 0)

    def test_many_requests_against_an_idling_thread(self, make, monkeypatch) -> None:
        monkeypatch.setattr("gpt_oss.engine.IDLE_SECONDS", 0.0)  # the thread ends after each request
        generator = make(FakeBackend())
        for n in range(300):
            assert ids(generator.stream([n % VOCAB], temperature=0, max_tokens=1)) == expected_greedy([n % VOCAB], 1)

    def test_an_engine_nobody_holds_is_freed_with_its_backend(self, monkeypatch) -> None:
        monkeypatch.setattr("gpt_oss.engine.IDLE_SECONDS", 0.05)
        generator = EngineTokenGenerator(FakeBackend())
        ids(generator.stream([1], max_tokens=3))
        backend = weakref.ref(generator.engine._scheduler._backend)
        del generator

        def is_freed() -> bool:
            gc.collect()
            return backend() is None

        wait_until(is_freed)

    def test_a_program_that_ends_while_tokens_are_computed_ends_well(self) -> None:
        program = (
            "from gpt_oss.token_generator import EngineTokenGenerator\n"
            "from tests.helpers.fake_backend import FakeBackend\n"
            "generation = EngineTokenGenerator(FakeBackend(context_length=10**6)).stream([1])\n"
            "print(next(generation).id)\n"
        )
        root = Path(__file__).parents[1]
        done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=300)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.strip().isdigit()


class TestRequests:
    @pytest.mark.parametrize(
        ("arguments", "field"),
        [
            ({"prompt_tokens": []}, "prompt_tokens"),
            ({"prompt_tokens": [1, VOCAB]}, "prompt_tokens"),
            ({"prompt_tokens": [-1, 1]}, "prompt_tokens"),
            ({"prompt_tokens": ["a"]}, "prompt_tokens"),
            ({"prompt_tokens": [1.5]}, "prompt_tokens"),
            ({"prompt_tokens": 5}, "prompt_tokens"),
            ({"stop_tokens": [VOCAB]}, "stop_tokens"),
            ({"temperature": -0.1}, "temperature"),
            ({"temperature": math.nan}, "temperature"),
            ({"temperature": math.inf}, "temperature"),
            ({"temperature": "hot"}, "temperature"),
            ({"temperature": 10**400}, "temperature"),
            ({"top_p": 10**400}, "top_p"),
            ({"max_tokens": -1}, "max_tokens"),
            ({"max_tokens": 1.5}, "max_tokens"),
            ({"top_p": 0.0}, "top_p"),
            ({"top_p": 1.1}, "top_p"),
            ({"top_p": math.nan}, "top_p"),
            ({"top_k": -1}, "top_k"),
            ({"seed": 1.5}, "seed"),
            ({"top_logprobs": 21}, "top_logprobs"),
            ({"top_logprobs": -1}, "top_logprobs"),
        ],
    )
    def test_the_field_is_named_before_any_work(self, make, arguments, field) -> None:
        generator = make(FakeBackend())
        with pytest.raises(RequestError, match=f"^{field} "):
            generator.stream(**{"prompt_tokens": [1], **arguments})
        assert generator.stats.requests == generator.stats.waiting == 0

    def test_stop_tokens_may_be_an_array(self, make) -> None:
        generator = make(FakeBackend())
        for stops in (np.array([0]), np.array([3, 4]), set(), None):
            assert generator.request([1], stop_tokens=stops).stop_tokens == frozenset(() if stops is None else stops)

    def test_top_k_may_exceed_every_vocabulary(self, make) -> None:
        generator = make(FakeBackend())
        assert len(ids(generator.stream([1], top_k=10**30, top_p=0.5, max_tokens=3))) == 3

    def test_generate_checks_when_called_not_at_the_first_token(self, make) -> None:
        with pytest.raises(ValueError, match="max_tokens"):
            make(FakeBackend()).generate([1], max_tokens=-5)

    def test_integers_of_other_libraries_and_any_seed_are_fine(self, make) -> None:
        generator = make(FakeBackend())
        prompt = np.array([1, 2], dtype=np.uint16)
        for seed in (0, -1, 2**64, 10**30):
            tokens = list(generator.stream(prompt, seed=seed, max_tokens=np.int64(3), temperature=np.float32(1)))
            assert len(tokens) == 3 and all(type(token) is Token for token in tokens)

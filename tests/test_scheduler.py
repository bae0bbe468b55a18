"""The scheduler under random histories: what it believes to be cached is what the backend has, whatever happens."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gpt_oss.scheduler import Scheduler, Task, common_prefix
from gpt_oss.token_generator import Request, Token
from tests.helpers.fake_backend import FakeBackend, FakeSamplingBackend, expected_greedy

# Few values, so that prompts share prefixes.
PROMPTS = st.lists(st.integers(0, 1), min_size=1, max_size=12)


class Broken(Exception):
    pass


class Follower:
    """Reads a task's events as they come and knows what they should be."""

    def __init__(self, task: Task):
        self.task = task
        self.ids: list[int] = []
        self.reason: str | None = None

    def read(self) -> None:
        while not self.task.events.empty():
            event = self.task.events.get()
            assert self.reason is None, "an event after the end"
            if event.token is not None:
                assert type(event.token) is Token
                assert event.token.logprob is not None
                assert len(event.token.top_logprobs) == self.task.request.top_logprobs
                self.ids.append(event.token.id)
            self.reason = event.finish_reason


class SchedulerMachine(RuleBasedStateMachine):
    @initialize(
        slots=st.integers(1, 4),
        context=st.integers(13, 20),
        chunk=st.integers(1, 9),
        busy_chunk=st.integers(1, 9),
        granularity=st.integers(1, 4),
        most_rows=st.integers(0, 4),
    )
    def build(self, slots: int, context: int, chunk: int, busy_chunk: int, granularity: int, most_rows: int) -> None:
        """most_rows: of the backend's own sampling; 0 is a backend that has none."""
        self.failing = False
        options = {"kept": lambda length: length - length % granularity, "before": self.fail_when_told}
        self.backend = (
            FakeSamplingBackend(slots, context, most_rows=most_rows, **options)
            if most_rows
            else FakeBackend(slots, context, **options)
        )
        self.scheduler = Scheduler(self.backend, chunk, busy_chunk)
        self.followers: list[Follower] = []

    def fail_when_told(self, verb: str) -> None:
        if self.failing:
            raise Broken(verb)

    @precondition(lambda self: self.scheduler.free)
    @rule(
        prompt=PROMPTS,
        max_tokens=st.integers(0, 6),
        stop=st.sets(st.integers(0, 49), max_size=5),
        top_logprobs=st.integers(0, 2),
        masked=st.booleans(),
    )
    def admit(self, prompt: list[int], max_tokens: int, stop: set[int], top_logprobs: int, masked: bool) -> None:
        """A backend knows nothing of masks, so some requests end its own sampling."""
        request = Request(
            tuple(prompt), frozenset(stop), temperature=0.0, max_tokens=max_tokens, logprobs=True,
            top_logprobs=top_logprobs, allowed_tokens=(lambda generated: None) if masked else None,
        )  # fmt: skip
        self.followers.append(Follower(Task(request, seed=0)))
        self.scheduler.admit(self.followers[-1].task)

    @rule(steps=st.integers(1, 5))
    def step(self, steps: int) -> None:
        for _ in range(steps):
            self.scheduler.step()

    @rule()
    def step_with_a_failing_backend(self) -> None:
        self.failing = True
        self.scheduler.step()
        self.failing = False

    @precondition(lambda self: self.followers)
    @rule(data=st.data())
    def cancel(self, data) -> None:
        data.draw(st.sampled_from(self.followers)).task.cancelled = True

    @invariant()
    def the_books_are_right(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        for slot in self.scheduler._slots:
            if slot.cached:  # nothing is known of a slot that failed until it is truncated
                assert slot.cached == self.backend.held(slot.index)
            if slot.next_token is not None:
                assert slot.task is not None
                assert [*slot.cached, slot.next_token] == slot.task.prompt + slot.task.generated
        running = [slot.task for slot in self.scheduler._slots if slot.task is not None]
        for follower in self.followers:
            follower.read()
            request, count = follower.task.request, len(follower.ids)
            expected = expected_greedy(request.prompt_tokens, count, request.stop_tokens)
            assert follower.ids == expected[:count]
            assert (follower.reason is None) == (follower.task in running)
            if follower.reason == "length":
                assert count == request.max_tokens
            if follower.reason == "context":
                assert len(request.prompt_tokens) + count == self.backend.context_length
            if follower.reason == "stop":
                assert follower.ids[-1] in request.stop_tokens
            if follower.reason == "cancelled":
                assert follower.task.cancelled

    def teardown(self) -> None:
        """Whatever happened, every task that runs comes to its end, in a bounded number of steps."""
        if hasattr(self, "scheduler"):
            for _ in range(200):
                self.scheduler.step()
            assert self.scheduler.active == 0
            self.the_books_are_right()


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.mark.parametrize("length", [0, 1, 255, 256, 257, 600])
@pytest.mark.parametrize("same", [0, 1, 255, 256, 257, 512, 513])
def test_common_prefix(length: int, same: int) -> None:
    a = list(range(length))
    b = [*range(same), -1, *range(same + 1, 700)]
    assert common_prefix(a, b) == common_prefix(b, a) == min(length, same)

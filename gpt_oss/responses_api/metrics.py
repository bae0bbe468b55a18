"""Numbers about a server, in Prometheus' text format."""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gpt_oss.harmony.events import Event, TurnDone
from gpt_oss.token_generator import TokenGenerator

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """One server's numbers, in a registry of their own."""

    def __init__(self, generator: TokenGenerator):
        self._registry = registry = CollectorRegistry()
        self._generator = generator
        self._http = Counter("gpt_oss_http_requests", "Answered HTTP requests", ["path", "status"], registry=registry)
        self._turns = Counter("gpt_oss_responses", "Finished responses by their end", ["reason"], registry=registry)
        self._tokens = Counter("gpt_oss_tokens", "Tokens by what they were", ["kind"], registry=registry)
        self._running = Gauge("gpt_oss_responses_running", "Responses that have a slot", registry=registry)
        self._waiting = Gauge("gpt_oss_responses_waiting", "Responses that wait for a slot", registry=registry)
        self._first = Histogram(
            "gpt_oss_first_token_seconds", "From request to first token", buckets=_SECONDS, registry=registry
        )
        self._whole = Histogram("gpt_oss_response_seconds", "From request to end", buckets=_SECONDS, registry=registry)
        self._engine = {
            name: Gauge(f"gpt_oss_engine_{name}", f"The engine's counter {name}", registry=registry)
            for name in ("active", "waiting", "requests", "prefix_hits", "generated_tokens")
        }

    def observer(self) -> Callable[[Event], None]:
        """What counts a turn that begins now, to be called with each of its events."""
        began = time.monotonic()

        def observe(event: Event) -> None:
            if isinstance(event, TurnDone):
                self.turn(event, time.monotonic() - began)

        return observe

    def request(self, path: str, status: int) -> None:
        """An HTTP request was answered. path: the route, not the address, so that there are few."""
        self._http.labels(path, str(status)).inc()

    def running(self, total: int, slots: int) -> None:
        """So many responses are being made."""
        self._running.set(min(total, slots))
        self._waiting.set(max(0, total - slots))

    def turn(self, done: TurnDone, seconds: float) -> None:
        """A turn is over."""
        self._turns.labels(done.reason).inc()
        for kind in ("input", "cached", "output", "reasoning"):
            self._tokens.labels(kind).inc(getattr(done.usage, f"{kind}_tokens"))
        self._first.observe(done.first_token_seconds)
        self._whole.observe(seconds)

    def text(self) -> bytes:
        """All of it, as `/metrics` answers."""
        stats = getattr(self._generator, "stats", None)
        for name, gauge in self._engine.items():
            gauge.set(getattr(stats, name, 0))
        return generate_latest(self._registry)

"""How a server behaves; `serve` fills it from the command line, tests and embedders directly."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpt_oss.responses_api.event_mapper import REASONING_EVENT
from gpt_oss.responses_api.hosted_tools import Factories


@dataclass(frozen=True)
class Settings:
    """model: the name this server goes by. slots: requests that run at the same time; max_waiting: how many more may
    wait, the next is answered 429. api_key: what clients must send as a bearer token, None for no check. cors_origins:
    web pages that may call, none by default. reasoning_event: `reasoning_text` or Open Responses' `reasoning`.
    max_seconds, max_rounds: bounds of one response, tools included. shutdown_seconds: what open responses get to
    finish when the server is asked to stop. store_path: None keeps responses in memory."""

    model: str = "gpt-oss"
    slots: int = 1
    max_waiting: int = 256
    api_key: str | None = None
    cors_origins: Sequence[str] = ()
    max_body_bytes: int = 32 << 20
    reasoning_event: str = REASONING_EVENT
    max_seconds: float | None = None
    max_rounds: int = 32
    shutdown_seconds: float = 10.0
    store_path: Path | None = None
    store_max_responses: int = 10_000
    store_max_bytes: int = 1 << 30
    store_max_age: float = 30 * 86400.0
    hosted: Factories = field(default_factory=dict)

    def serves(self, model: str) -> bool:
        """Whether a request for `model` is meant for this server: its name, or any spelling of gpt-oss."""
        return model == self.model or model.lower().rpartition("/")[2].startswith("gpt-oss")

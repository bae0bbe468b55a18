"""Requests that are repeated while a server is busy, and JSON answers that may be anything.

Knows aiohttp and nothing of pages. The time limit is for all attempts and pauses together.
"""

import asyncio
import email.utils
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from gpt_oss.tools.simple_browser.base import BackendError

BUSY = frozenset((429, 500, 502, 503, 504))
REDIRECTS = frozenset((301, 302, 303, 307, 308))
MAX_REDIRECTS = 5


@dataclass(frozen=True)
class RetryPolicy:
    """Up to `attempts` requests, with pauses of `first_pause`, twice that, … seconds.

    A server's Retry-After is followed instead, both up to `longest_pause`.
    """

    attempts: int = 3
    first_pause: float = 0.5
    longest_pause: float = 8.0

    def pause(self, attempt: int, retry_after: str | None) -> float:
        """Seconds to wait after the failed `attempt` (from 0); `retry_after` is that header in either form."""
        asked = _seconds(retry_after) if retry_after else None
        return min(self.first_pause * 2**attempt if asked is None else asked, self.longest_pause)


def _seconds(retry_after: str) -> float | None:
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


Request = Callable[[str], AbstractAsyncContextManager[aiohttp.ClientResponse]]


@dataclass(frozen=True)
class Service:
    """Whom a request is for: the name in messages, what to say if access is refused, and the limits."""

    name: str
    advice: str
    seconds: float
    retry: RetryPolicy


async def request_json(request: Request, url: str, service: Service) -> Any:
    """Send what `request` makes for `url` until it is answered, and return the JSON of a 200 answer.

    `request` must not follow redirects itself: they are followed here, on the same host only, because the
    request may carry a key. Raises BackendError naming the service.
    """
    try:
        async with asyncio.timeout(service.seconds):
            return await _answered_json(request, url, service)
    except TimeoutError as error:
        raise BackendError(f"{service.name} did not answer within {service.seconds:g} s") from error
    except aiohttp.ContentTypeError as error:
        raise BackendError(f"{service.name} did not answer with JSON") from error
    except aiohttp.ClientError as error:
        raise BackendError(f"{service.name} cannot be reached: {type(error).__name__}: {error}") from error
    except ValueError as error:
        raise BackendError(f"{service.name} answered with JSON that is not valid") from error


async def _answered_json(request: Request, url: str, service: Service) -> Any:
    attempt = redirects = 0
    while True:
        async with request(url) as response:
            if response.status == 200:
                return await response.json()
            if response.status in REDIRECTS and redirects < MAX_REDIRECTS:
                url = _same_host(url, response.headers.get("Location", ""), service)
                redirects += 1
                continue
            attempt += 1
            if response.status not in BUSY or attempt == service.retry.attempts:
                raise BackendError(_refusal(service, response.status))
            pause = service.retry.pause(attempt - 1, response.headers.get("Retry-After"))
        await asyncio.sleep(pause)


def _same_host(url: str, location: str, service: Service) -> str:
    target = URL(url).join(URL(location))
    if target.host != URL(url).host or (URL(url).scheme, target.scheme) == ("https", "http"):
        raise BackendError(f"{service.name} redirects to another host, {target.host}; that is not followed")
    return str(target)


def _refusal(service: Service, status: int) -> str:
    if status in (401, 403):
        return f"{service.name} refused the request (HTTP {status}); {service.advice}"
    if status == 429:
        return f"{service.name} is receiving too many requests (HTTP 429); try again later"
    return f"{service.name} answered with HTTP {status}"

"""Failures as the API's clients see them: an HTTP status and OpenAI's error object.

Clients decide by status: 400 is final, 429 and 5xx are tried again, so every mistake of a request is a 400 (or the
401, 404, 413 that says more) and never FastAPI's own 422. Knows nothing of what failed.
"""

from collections.abc import Mapping
from typing import Any

from gpt_oss.errors import ContextOverflow, GptOssError, QueueFull, RequestError


class ApiError(GptOssError):
    """A refused request. `param` is the path of the field, such as `input[0].role`; `code` a word programs know."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.message = message
        self.status = status
        self.type = type
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The JSON body of the answer."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def api_error(error: GptOssError) -> ApiError:
    """What a client is told about an error of the layers below."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ContextOverflow):
        message = f"Your input exceeds the context window of this model: {error}."
        return ApiError(message, param="input", code="context_length_exceeded")
    if isinstance(error, RequestError):
        return ApiError(str(error))
    if isinstance(error, QueueFull):
        return too_many_requests(str(error))
    return ApiError(str(error), status=500, type="server_error", code="server_error")


def too_many_requests(message: str, seconds: int = 1) -> ApiError:
    """429, to be tried again after `seconds`."""
    headers = {"retry-after": str(seconds)}
    return ApiError(message, status=429, type="rate_limit_error", code="rate_limit_exceeded", headers=headers)

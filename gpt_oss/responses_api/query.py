"""Query parameters, checked; each function raises ApiError that names the parameter."""

from collections.abc import Sequence

from starlette.requests import Request

from gpt_oss.responses_api.errors import ApiError


def integer_parameter(request: Request, name: str, default: int, low: int, high: int | None = None) -> int:
    """An integer from low to high."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 15 or not low <= int(text) <= (high or int(text)):
        expected = f"an integer from {low} to {high}" if high else f"an integer of at least {low}"
        raise ApiError(f"Invalid value for '{name}': expected {expected}.", param=name, code="invalid_value")
    return int(text)


def choice_parameter(request: Request, name: str, default: str, choices: Sequence[str]) -> str:
    """One of the choices."""
    text = request.query_params.get(name, default)
    if text not in choices:
        expected = " or ".join(choices)
        raise ApiError(f"Invalid value for '{name}': expected {expected}.", param=name, code="invalid_value")
    return text


def flag_parameter(request: Request, name: str) -> bool:
    """true or false."""
    return choice_parameter(request, name, "false", ("true", "false")) == "true"

"""The application's own description, for `/docs` and for those who test against it.

Requests are decoded by hand (see `http_bodies`), so FastAPI does not see their models; this adds them.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from gpt_oss.responses_api import response_models
from gpt_oss.responses_api.chat_models import ChatRequest
from gpt_oss.responses_api.request_models import CreateResponse, PromptRequest

_REF = "#/components/schemas/"
_REQUESTS = (CreateResponse, PromptRequest, ChatRequest)
_ERRORS = {
    "400": "The request is wrong; the error names the field",
    "401": "The API key is wrong",
    "404": "There is no such thing",
    "405": "There is no such method",
    "413": "The request is too large",
    "429": "Too many requests wait already",
    "503": "The server is shutting down",
}


def documented(request: str | None, response: str) -> dict[str, Any]:
    """Arguments of a route: the models of its body and of its answer."""
    extra: dict[str, Any] = {"responses": {"200": _content(response)}}
    if request is not None:
        extra["requestBody"] = {**_content(request), "required": True}
    return {"openapi_extra": extra}


def describe(app: FastAPI) -> None:
    """Give the application its description, made when it is first asked for."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _description(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _description(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
    models = [(model, "validation") for model in _REQUESTS] + [(m, "serialization") for m in response_models.ALL]
    _, definitions = models_json_schema(models, ref_template=_REF + "{model}")  # type: ignore[arg-type]
    schema["components"] = {"schemas": definitions["$defs"]}
    for methods in schema["paths"].values():
        for operation in methods.values():
            operation["responses"].pop("422", None)
            for status, text in _ERRORS.items():
                operation["responses"][status] = {"description": text, **_content("ErrorBody")}
    return schema


def _content(model: str) -> dict[str, Any]:
    return {"description": model, "content": {"application/json": {"schema": {"$ref": _REF + model}}}}

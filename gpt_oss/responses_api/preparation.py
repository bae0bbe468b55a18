"""From a checked request to everything a turn needs: messages, options, tools, and the response's first form.

In: a `CreateResponse`, and the history it continues. Out: a `Prepared`. Shared by the Responses API, Chat Completions
and token counting, so that they cannot disagree about the prompt. Compiling a grammar and rendering a long prompt take
time: call from a thread.
"""

import json
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from openai_harmony import Message

from gpt_oss.harmony.agent import TurnOptions, run_turn
from gpt_oss.harmony.events import Event
from gpt_oss.harmony.prompt import DEFAULT_EFFORT, developer_message, system_message
from gpt_oss.harmony.pump import Cancellation
from gpt_oss.responses_api.conversation import Entry, read_items, split_leading
from gpt_oss.responses_api.errors import ApiError
from gpt_oss.responses_api.hosted_tools import HostedTools
from gpt_oss.responses_api.offered_tools import Offer, read_offer
from gpt_oss.responses_api.output_items import new_id
from gpt_oss.responses_api.request_models import CreateResponse, PromptRequest, TextFormat
from gpt_oss.responses_api.settings import Settings
from gpt_oss.responses_api.store import Record
from gpt_oss.responses_api.turn_grammar import turn_grammar
from gpt_oss.token_generator import TokenGenerator

_EFFORTS = {"none": "low", "minimal": "low", "xhigh": "high", "max": "high"}
MIN_TOP_P = 1e-6  # 0 means the most probable token


@dataclass
class Prepared:
    """A turn that is ready to run. entries: the conversation without instructions, as it is stored."""

    offer: Offer
    entries: list[Entry]
    hosted: HostedTools
    messages: list[Message]
    options: TurnOptions

    def turn(self, generator: TokenGenerator) -> Callable[[Cancellation], AsyncGenerator[Event, None]]:
        """What makes the events, given what cancels them."""
        functions = self.offer.formats
        ask = partial(run_turn, self.messages, generator, self.hosted.tools, functions=functions, options=self.options)
        return lambda cancellation: ask(cancellation=cancellation)


def effort_of(request: PromptRequest) -> str:
    """Harmony's name of the reasoning effort."""
    asked = request.reasoning.effort if request.reasoning else None
    return _EFFORTS.get(asked or DEFAULT_EFFORT, asked or DEFAULT_EFFORT)


def check_supported(request: PromptRequest, settings: Settings) -> None:
    """Raise ApiError for what this server does not do at all."""
    check_model(request.model, settings)
    for name in ("conversation", "prompt"):
        if getattr(request, name) is not None:
            raise ApiError(f"'{name}' is not supported by this server.", param=name, code="unsupported_parameter")


def check_model(model: str | None, settings: Settings) -> None:
    """Raise ApiError for a model that is not served here."""
    if model is not None and not settings.serves(model):
        text = f"The model '{model}' does not exist; this server has '{settings.model}'."
        raise ApiError(text, status=404, param="model", code="model_not_found")


def prepare(
    request: CreateResponse,
    generator: TokenGenerator,
    settings: Settings,
    previous: Record | None = None,
    *,
    seed: int | None = None,
) -> Prepared:
    """Build the prompt and all options of a request that continues `previous`. Raises ApiError."""
    offer = read_offer(request.tools, request.tool_choice, settings.hosted.keys())
    entries = read_items(request.input, [Entry.from_dict(entry) for entry in previous.history] if previous else ())
    format = request.text.format if request.text else None
    constraint = turn_grammar(request, offer, generator.vocab_size, generator.context_length)
    if not generator.honours_allowed_tokens:
        _check_unconstrained(request, offer)
        constraint = None  # that arguments are a JSON object is left to the model, as nobody asked for more
    hosted = HostedTools(settings.hosted, offer.hosted, previous.browser if previous else None)
    messages = prompt_messages(request, offer, entries, hosted, format)
    include = request.include or ()
    options = TurnOptions(
        temperature=1.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else max(request.top_p, MIN_TOP_P),
        seed=seed,
        logprobs="message.output_text.logprobs" in include or bool(request.top_logprobs),
        top_logprobs=request.top_logprobs or 0,
        max_tokens=request.max_output_tokens or 0,
        max_rounds=settings.max_rounds,
        max_tool_calls=request.max_tool_calls,
        max_seconds=settings.max_seconds,
        overflow="drop" if request.truncation == "auto" else "error",
        constraint=constraint,
    )
    return Prepared(offer, entries, hosted, messages, options)


def _check_unconstrained(request: CreateResponse, offer: Offer) -> None:
    """Refuse what an engine without masks could only pretend to do."""
    format = request.text.format if request.text else None
    refused = []
    if format is not None and format.type != "text":
        refused.append(("constrain answers", "text.format"))
    if offer.required is not None:
        refused.append(("require a call", "tool_choice"))
    refused += [
        ("enforce a grammar", f"{entry.param}.{field}")
        for entry in offer.callables.values()
        if (field := entry.enforced)
    ]
    if refused:
        what, param = refused[0]
        raise ApiError(f"This server's backend cannot {what}; leave out '{param}'.", param=param)


def prompt_messages(
    request: PromptRequest, offer: Offer, entries: list[Entry], hosted: HostedTools, format: TextFormat | None
) -> list[Message]:
    """System and developer message, then the conversation."""
    if not entries:
        raise ApiError("'input' is required.", param="input", code="missing_required_parameter")
    leading, rest = split_leading(entries)
    texts = [request.instructions or "", *leading, _format_text(format)]
    developer = developer_message("\n\n".join(filter(None, texts)), namespaces=offer.descriptions())
    start = [system_message(effort=effort_of(request), tools=hosted.tools)]
    return [*start, *([developer] if developer else []), *(entry.message for entry in rest)]


def _format_text(format: TextFormat | None) -> str:
    """What the model is told about the form of its answer, as it was trained to read it."""
    if format is None or format.type == "text":
        return ""
    if format.type == "json_object":
        return "# Response Formats\n\n## json\n\n// The final answer is one JSON object.\n{}"
    comment = f"// {format.description}\n" if format.description else ""
    schema = json.dumps(format.schema_, ensure_ascii=False)
    return f"# Response Formats\n\n## {format.name}\n\n{comment}{schema}"


def response_fields(request: CreateResponse, offer: Offer, settings: Settings) -> dict[str, Any]:
    """The response before anything is made: all that repeats the request, with its defaults filled in."""
    format = request.text.format if request.text else None
    text: dict[str, Any] = {"format": _format_echo(format)}
    if request.text and request.text.verbosity:
        text["verbosity"] = request.text.verbosity
    fields: dict[str, Any] = {
        "id": new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "in_progress",
        "background": bool(request.background),
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "model": request.model or settings.model,
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "prompt_cache_key": request.prompt_cache_key,
        "reasoning": {
            "effort": effort_of(request),
            "summary": request.reasoning.summary if request.reasoning else None,
        },
        "safety_identifier": request.safety_identifier,
        "service_tier": "default",
        "store": request.store is not False,
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "text": text,
        "tool_choice": offer.choice,
        "tools": list(offer.echo),
        "top_logprobs": request.top_logprobs or 0,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "presence_penalty": request.presence_penalty or 0.0,
        "frequency_penalty": request.frequency_penalty or 0.0,
        "truncation": request.truncation or "disabled",
        "usage": None,
        "metadata": request.metadata or {},
    }
    if request.user is not None:  # null is not a value the published schema knows
        fields["user"] = request.user
    return fields


def _format_echo(format: TextFormat | None) -> dict[str, Any]:
    if format is None:
        return {"type": "text"}
    return format.model_dump(by_alias=True, exclude_none=True)

"""A request's `tools` and `tool_choice`: what the model is offered, what it may and must call, who answers.

In: the tool objects of any API version. Out: an `Offer`. Types that this server cannot offer are accepted and left
out, because clients such as Codex send them by default. Names are Harmony's: `functions.NAME`, `NAMESPACE.NAME`,
`browser`, `python`.
"""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from openai_harmony import ToolDescription, ToolNamespaceConfig
from pydantic import Field

from gpt_oss.harmony.prompt import FUNCTIONS
from gpt_oss.harmony.toolbox import ArgumentFormat
from gpt_oss.responses_api.errors import ApiError
from gpt_oss.responses_api.input_items import Lenient
from gpt_oss.responses_api.request_models import parse

logger = logging.getLogger(__name__)

BROWSER, PYTHON = "browser", "python"
HOSTED_TYPES: Mapping[str, str] = {
    "web_search": BROWSER,
    "web_search_2025_08_26": BROWSER,
    "web_search_preview": BROWSER,
    "web_search_preview_2025_03_11": BROWSER,
    "browser_search": BROWSER,
    "code_interpreter": PYTHON,
}
"""Types of tools that the server runs itself, by the name the model knows them by."""

_NAME = r"^[a-zA-Z0-9_.:/-]{1,128}$"


class FunctionTool(Lenient):
    """A function of the caller's."""

    type: Literal["function"]
    name: str = Field(pattern=_NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class CustomFormat(Lenient):
    """What a custom tool reads: any text, or text of a grammar."""

    type: Literal["text", "grammar"] = "text"
    syntax: Literal["lark", "regex"] | None = None
    definition: str | None = None


class CustomTool(Lenient):
    """A tool of the caller's that takes free text."""

    type: Literal["custom"]
    name: str = Field(pattern=_NAME)
    description: str | None = None
    format: CustomFormat | None = None


class NamespaceTool(Lenient):
    """A group of functions with a name."""

    type: Literal["namespace"]
    name: str = Field(pattern=_NAME)
    description: str | None = None
    tools: list[dict[str, Any]]


@dataclass(frozen=True)
class CallerTool:
    """Something the caller runs. `full_name` is Harmony's; `param` where in the request it was described."""

    full_name: str
    name: str
    namespace: str | None
    tool: FunctionTool | CustomTool
    param: str

    @property
    def space(self) -> str:
        """The namespace in the prompt."""
        return self.namespace or FUNCTIONS

    @property
    def is_custom(self) -> bool:
        """Whether it takes free text instead of a JSON object."""
        return isinstance(self.tool, CustomTool)

    @property
    def enforced(self) -> str | None:
        """The field that asks for more than valid JSON: `strict`, or the `format` of a grammar."""
        if isinstance(self.tool, FunctionTool):
            return "strict" if self.tool.strict else None
        return "format" if self.tool.format is not None and self.tool.format.type == "grammar" else None


@dataclass(frozen=True)
class Offer:
    """What the model may call.

    echo: the tools as the response repeats them. choice: `tool_choice` as it is echoed. callables: the caller's, by
    full name; hosted: `browser`, `python`. required: the model must call one of these (full names) before it may
    answer; None leaves it free.
    """

    echo: Sequence[dict[str, Any]] = ()
    choice: str | dict[str, Any] = "auto"
    callables: Mapping[str, CallerTool] = field(default_factory=dict)
    namespaces: Mapping[str, str | None] = field(default_factory=dict)  # name -> description
    hosted: Sequence[str] = ()
    required: Sequence[str] | None = None

    @property
    def formats(self) -> dict[str, ArgumentFormat]:
        """The functions argument of `run_turn`."""
        return {name: "text" if entry.is_custom else "json" for name, entry in self.callables.items()}

    def descriptions(self) -> list[ToolNamespaceConfig]:
        """The caller's tools as the developer message shows them, one namespace each."""
        configs = []
        for space, description in self.namespaces.items():
            tools = [_description(entry.tool) for entry in self.callables.values() if entry.space == space]
            if tools:
                configs.append(ToolNamespaceConfig(name=space, description=description, tools=tools))
        return configs


def read_offer(
    tools: Sequence[dict[str, Any]] | None,
    choice: str | dict[str, Any] | None,
    available: Collection[str] = (),
) -> Offer:
    """Read both parameters; raises ApiError. available: the hosted tools that this server can run."""
    callables: dict[str, CallerTool] = {}
    namespaces: dict[str, str | None] = {}
    hosted: list[str] = []
    echo = []
    for number, tool in enumerate(tools or ()):
        param = f"tools[{number}]"
        kind = tool.get("type")
        if not isinstance(kind, str):
            raise ApiError(
                f"Missing required parameter: '{param}.type'.", param=f"{param}.type", code="missing_required_parameter"
            )
        echo.append(_echo(tool, kind))
        if kind == "namespace":
            space = _parse(NamespaceTool, tool, param)
            namespaces.setdefault(space.name, space.description)
            for inner_number, inner in enumerate(space.tools):
                for entry in _callable(inner, f"{param}.tools[{inner_number}]", space.name):
                    callables[entry.full_name] = entry
        elif kind in HOSTED_TYPES:
            if HOSTED_TYPES[kind] in available and HOSTED_TYPES[kind] not in hosted:
                hosted.append(HOSTED_TYPES[kind])
            elif HOSTED_TYPES[kind] not in available:
                _say_left_out(kind)
        else:
            for entry in _callable(tool, param, None):
                namespaces.setdefault(FUNCTIONS, None)
                callables[entry.full_name] = entry
    return _choose(Offer(echo, "auto" if choice is None else choice, callables, namespaces, hosted))


@lru_cache(maxsize=64)
def _say_left_out(kind: str) -> None:
    """Once for each type: clients such as Codex offer the same tools with every request."""
    logger.warning("tools of type %.40r cannot be run here, so the model is not told of them", kind)


def _callable(tool: dict[str, Any], param: str, namespace: str | None) -> Iterator[CallerTool]:
    parsed: FunctionTool | CustomTool
    if tool.get("type") == "function":
        parsed = _parse(FunctionTool, tool, param)
    elif tool.get("type") == "custom":
        parsed = _parse(CustomTool, tool, param)
    else:
        _say_left_out(str(tool.get("type")))
        return
    yield CallerTool(f"{namespace or FUNCTIONS}.{parsed.name}", parsed.name, namespace, parsed, param)


def _parse(model: type[Any], tool: dict[str, Any], param: str) -> Any:
    try:
        return parse(model, tool)
    except ApiError as error:
        where = f"{param}.{error.param}" if error.param else param
        raise ApiError(error.message.replace(f"'{error.param}'", f"'{where}'"), param=where, code=error.code) from None


def _echo(tool: dict[str, Any], kind: str) -> dict[str, Any]:
    """The tool with the fields that readers of an echo insist on."""
    if kind == "namespace":
        return {**tool, "description": tool.get("description") or ""}
    if kind != "function":
        return tool
    return {"description": None, "parameters": None, "strict": None, **tool}


def _description(tool: FunctionTool | CustomTool) -> ToolDescription:
    if isinstance(tool, FunctionTool):
        return ToolDescription.new(tool.name, tool.description or "", tool.parameters)
    text = f"{tool.description or ''}\nThe message to this tool is plain text, not JSON.".lstrip()
    if tool.format is not None and tool.format.definition:
        text += f"\nIt must follow this {tool.format.syntax} grammar:\n{tool.format.definition}"
    return ToolDescription.new(tool.name, text, None)


def _choose(offer: Offer) -> Offer:
    """The offer as `tool_choice` narrows it."""
    choice = offer.choice
    everything = [*offer.callables, *offer.hosted]
    if isinstance(choice, str):
        if choice not in ("none", "auto", "required"):
            raise ApiError(
                f"Invalid value for 'tool_choice': {choice!r} is not none, auto or required.",
                param="tool_choice",
                code="invalid_value",
            )
        if choice == "none":
            return _narrowed(offer, [], None)
        if choice == "required" and not everything:
            raise ApiError(
                "Tool choice 'required' needs a tool that this server can offer in 'tools'.", param="tool_choice"
            )
        return offer if choice == "auto" else _narrowed(offer, everything, everything)
    if not isinstance(choice.get("type"), str):
        raise ApiError("'tool_choice' needs a 'type'.", param="tool_choice.type", code="missing_required_parameter")
    if choice.get("type") == "allowed_tools":
        mode, tools = choice.get("mode", "auto"), choice.get("tools")
        if mode not in ("auto", "required") or not isinstance(tools, list):
            raise ApiError(
                "'tool_choice' of type allowed_tools needs a 'mode' of auto or required and 'tools'.",
                param="tool_choice",
                code="invalid_value",
            )
        names = [name for tool in tools if not _left_out(offer, tool) for name in _named(offer, tool)]
        if mode == "required" and not names:
            raise ApiError(
                "Tool choice 'allowed_tools' requires a call, but this server can offer none of its tools.",
                param="tool_choice",
            )
        return _narrowed(offer, names, names if mode == "required" else None)
    if _left_out(offer, choice):
        raise ApiError(f"This server cannot offer tools of type '{choice['type']}'.", param="tool_choice")
    names = _named(offer, choice)
    return _narrowed(offer, everything, names)


def _named(offer: Offer, choice: Any) -> list[str]:
    """Full names of what an object like `{"type": "function", "name": …}` points at."""
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind in ("function", "custom"):
        name, namespace = choice.get("name"), choice.get("namespace")
        found = [
            c.full_name
            for c in offer.callables.values()
            if c.name == name and c.is_custom == (kind == "custom") and namespace in (None, c.namespace)
        ]
    else:
        hosted = HOSTED_TYPES.get(str(kind))
        found = [hosted] if hosted is not None and hosted in offer.hosted else []
    if not found:
        shown = choice.get("name", kind) if isinstance(choice, dict) else choice
        raise ApiError(f"Tool choice '{shown!s:.100}' not found in 'tools' parameter.", param="tool_choice")
    return found


def _left_out(offer: Offer, choice: Any) -> bool:
    """Whether the choice is one of the request's tools that are not offered to the model."""
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind in ("function", "custom") or HOSTED_TYPES.get(str(kind)) in offer.hosted:
        return False
    return any(tool["type"] == kind for tool in offer.echo)


def _narrowed(offer: Offer, names: Collection[str], required: Sequence[str] | None) -> Offer:
    return Offer(
        offer.echo,
        offer.choice,
        {name: entry for name, entry in offer.callables.items() if name in names},
        offer.namespaces,
        [name for name in offer.hosted if name in names],
        required,
    )

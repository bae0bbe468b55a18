"""The order rules of a Responses stream (spec/responses.md, 1.5), checked without any of the server's code.

`check_stream` takes the raw bytes of an SSE answer; `check_events` a list of events. Both return the events.
"""

import json
from typing import Any

from openai._models import construct_type
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

TERMINAL = ("response.completed", "response.failed", "response.incomplete")
_TEXT_EVENTS = {  # delta event: (done event, its field, the item's field)
    "response.function_call_arguments.delta": ("arguments", "arguments"),
    "response.custom_tool_call_input.delta": ("input", "input"),
    "response.code_interpreter_call_code.delta": ("code", "code"),
}
_EVENT = TypeAdapter(ResponseStreamEvent)


def sse_events(content: bytes) -> list[dict[str, Any]]:
    """The events of an SSE answer, whose framing is checked: event equals type, [DONE] at the end."""
    blocks = content.decode().split("\n\n")
    assert blocks[-2:] == ["data: [DONE]", ""], blocks[-2:]
    events = []
    for block in blocks[:-2]:
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    return events


def check_stream(content: bytes) -> list[dict[str, Any]]:
    """The rules, on raw bytes."""
    return check_events(sse_events(content))


def check_events(events: list[dict[str, Any]], reasoning: str = "reasoning_text") -> list[dict[str, Any]]:
    """The rules R1-R10, and the SDK's model of every event."""
    for event in events:
        _check_model(event)
    assert [e["sequence_number"] for e in events] == list(range(len(events))), "R1"
    lifecycle = [e for e in events if "response" in e]
    assert [e["type"] for e in lifecycle][:1] == ["response.created"], "R2"
    begun = [e["type"] for e in lifecycle if e["type"] not in ("response.created", "response.queued", *TERMINAL)]
    assert begun == ["response.in_progress"], "R2"
    assert events[-1]["type"] in TERMINAL and sum(e["type"] in TERMINAL for e in events) == 1, "R2"
    assert len({e["response"]["id"] for e in lifecycle}) == 1, "R2"
    assert events[0]["response"]["output"] == [] and events[0]["response"]["status"] in ("in_progress", "queued")
    done: list[dict[str, Any]] = []
    opened: dict[str, Any] | None = None
    inner: list[dict[str, Any]] = []
    for event in events:
        kind = event["type"]
        if kind == "response.output_item.added":
            assert opened is None and event["output_index"] == len(done), "R3"
            _check_fresh(event["item"])
            opened, inner = event["item"], []
        elif kind == "response.output_item.done":
            assert opened is not None and event["output_index"] == len(done), "R3"
            assert event["item"]["id"] == opened["id"], "R4"
            _check_item(event["item"], inner, reasoning)
            done.append(event["item"])
            opened = None
        elif "item_id" in event:
            assert opened is not None and event["item_id"] == opened["id"], "R4"
            assert event["output_index"] == len(done), "R4"
            inner.append(event)
    assert opened is None, "an item was never closed"
    final = events[-1]["response"]
    assert final["output"] == done, "R8"
    for item in done[:-1]:
        assert item["status"] != "incomplete", "R10"
    if done and done[-1]["status"] == "incomplete":
        assert final["status"] != "completed", "R10"
    return events


def _check_fresh(item: dict[str, Any]) -> None:
    assert item["status"] == "in_progress", "R7"
    for name in ("content", "arguments", "input", "code"):
        assert not item.get(name), "R7"


def _check_item(item: dict[str, Any], inner: list[dict[str, Any]], reasoning: str) -> None:
    assert item["status"] in ("completed", "incomplete"), "R7"
    kinds = [event["type"] for event in inner]
    if item["type"] in ("message", "reasoning"):
        stem = f"response.{'output_text' if item['type'] == 'message' else reasoning}"
        assert kinds[0] == "response.content_part.added" and kinds[-1] == "response.content_part.done", "R6"
        assert all(event["content_index"] == 0 for event in inner), "R5"
        text = "".join(event["delta"] for event in inner if event["type"] == f"{stem}.delta")
        (whole,) = [event["text"] for event in inner if event["type"] == f"{stem}.done"]
        (part,) = item["content"]
        assert text == whole == part["text"] and inner[-1]["part"] == part, "R6"
        annotations = [e for e in inner if e["type"] == "response.output_text.annotation.added"]
        assert [e["annotation_index"] for e in annotations] == list(range(len(annotations)))
        assert [e["annotation"] for e in annotations] == part.get("annotations", [])
        for annotation in part.get("annotations", []):
            assert text[annotation["start_index"] : annotation["end_index"]]
    else:
        assert not any("content_index" in event for event in inner), "R5"
    for kind, (done_field, item_field) in _TEXT_EVENTS.items():
        deltas = [event["delta"] for event in inner if event["type"] == kind]
        wholes = [event[done_field] for event in inner if event["type"] == kind.replace(".delta", ".done")]
        if deltas or wholes:
            assert ["".join(deltas)] == wholes or item["status"] == "incomplete", "R6"
            assert item[item_field] == "".join(deltas), "R6"


def _check_model(event: dict[str, Any]) -> None:
    """Valid for the SDK; but for usage null before the end, which the real wire has too, and Open Responses' name."""
    if event["type"].startswith("response.reasoning."):
        return
    response = event.get("response")
    if response is not None and response["usage"] is None:
        event = {**event, "response": {k: v for k, v in response.items() if k != "usage"}}
    model = construct_type(value=event, type_=ResponseStreamEvent)
    _EVENT.validate_python(event)
    assert model.type == event["type"]

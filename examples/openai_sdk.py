"""The OpenAI SDK against a server of ours: an answer, a stream, a function call and JSON that fits a schema.

Start `gpt-oss serve`, then: python examples/openai_sdk.py [ADDRESS]
"""

import json
import sys
from typing import Any, Literal

from openai import OpenAI
from openai.types.responses import FunctionToolParam
from pydantic import BaseModel

GET_WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather at a place.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"location": {"type": "string"}},
        "required": ["location"],
        "additionalProperties": False,
    },
}


class Verdict(BaseModel):
    """What the last request asks for; the server lets the model write nothing else."""

    parity: Literal["even", "odd"]
    prime: bool


def main(address: str) -> None:
    """Four requests, each with what came of it."""
    client = OpenAI(base_url=address, api_key="none")

    answer = client.responses.create(model="gpt-oss", input="What is 17 + 25?", temperature=0)
    print("answer:", answer.output_text)

    print("stream: ", end="")
    with client.responses.stream(model="gpt-oss", input="What is the capital of Peru?", temperature=0) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                print(event.delta, end="|")
    print()

    question = "What is the weather in Oslo?"
    first = client.responses.create(
        model="gpt-oss", input=question, tools=[GET_WEATHER], tool_choice="required", temperature=0
    )
    results: list[Any] = []
    for call in first.output:
        if call.type == "function_call":
            print("call:", call.name, json.loads(call.arguments))
            results.append({"type": "function_call_output", "call_id": call.call_id, "output": "sunny, 21 degrees"})
    second = client.responses.create(
        model="gpt-oss", input=results, tools=[GET_WEATHER], previous_response_id=first.id, temperature=0
    )
    print("with its result:", second.output_text)

    parsed = client.responses.parse(model="gpt-oss", input="What is 7?", text_format=Verdict, temperature=0)
    print("parsed:", parsed.output_parsed)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1")

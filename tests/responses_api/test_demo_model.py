"""The embedded demo model behind the server: what a newcomer sees first."""

import pytest
from openai import OpenAI

from gpt_oss.backends import load_generator
from tests.responses_api.stream_rules import check_stream


@pytest.fixture(scope="module")
def demo():
    with load_generator("torch", context_length=2048, slots=2) as generator:
        yield generator


def test_it_greets_and_remembers_where_it_was(live, demo):
    with OpenAI(base_url=live(generator=demo, model="gpt-oss-demo"), api_key="none", max_retries=0) as client:
        first = client.responses.create(model="gpt-oss-demo", input="Hello!", temperature=0)
        assert first.status == "completed" and first.output_text
        again = client.responses.create(
            model="gpt-oss-demo", input="Hello!", previous_response_id=first.id, temperature=0
        )
        assert again.status == "completed" and again.usage.input_tokens > first.usage.total_tokens - 40


def test_a_required_call_has_arguments_of_its_schema(serve, demo):
    schema = {
        "type": "object",
        "properties": {"unit": {"enum": ["celsius", "fahrenheit"]}},
        "required": ["unit"],
        "additionalProperties": False,
    }
    tool = {"type": "function", "name": "get_temperature", "parameters": schema, "strict": True}
    asked = {"input": "How warm is it?", "temperature": 0, "stream": True}
    body = {**asked, "tools": [tool], "tool_choice": "required"}
    events = check_stream(serve(generator=demo).post(body).content)
    made = events[-1]["response"]["output"][-1]
    assert made["type"] == "function_call"
    assert made["arguments"].replace(" ", "") in ('{"unit":"celsius"}', '{"unit":"fahrenheit"}')

"""openai-python against a live server: every endpoint it has for responses, as users call it."""

import asyncio
import json

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.responses_api.replies import WEATHER, answer, call, think


@pytest.fixture
def client_for(live):
    """A client of a server that says these replies."""
    clients = []

    def connect(*replies, **settings):
        clients.append(OpenAI(base_url=live(*replies, **settings), api_key="none", max_retries=0))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def test_a_dialogue_with_a_tool_by_previous_response_id(client_for):
    client = client_for(call("get_weather", '{"location": "Oslo"}', "Look."), answer("Sunny in Oslo."))
    first = client.responses.create(model="gpt-oss-20b", input="Weather in Oslo?", tools=[WEATHER])
    reasoning, function_call = first.output
    assert reasoning.content[0].text == "Look."
    assert json.loads(function_call.arguments) == {"location": "Oslo"}
    output = {"type": "function_call_output", "call_id": function_call.call_id, "output": "sunny"}
    second = client.responses.create(
        model="gpt-oss-20b", input=[output], previous_response_id=first.id, tools=[WEATHER]
    )
    assert second.output_text == "Sunny in Oslo." and second.usage.total_tokens > 0


def test_a_dialogue_with_a_tool_by_history(client_for):
    client = client_for(call("get_weather", '{"location": "Oslo"}', "Look."), answer("Sunny in Oslo."))
    history = [{"role": "user", "content": "Weather in Oslo?"}]
    first = client.responses.create(model="gpt-oss-20b", input=history, tools=[WEATHER], store=False)
    history += [item.model_dump() for item in first.output]
    history += [{"type": "function_call_output", "call_id": first.output[1].call_id, "output": "sunny"}]
    assert client.responses.create(model="gpt-oss-20b", input=history, store=False).output_text == "Sunny in Oslo."


def test_the_stream_helper(client_for):
    client = client_for(answer("Hello there.", "Greet."))
    with client.responses.stream(model="gpt-oss-20b", input="hi") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert final.output_text == "Hello there." and kinds[0] == "response.created" and kinds[-1] == "response.completed"


def test_the_stream_helper_with_a_call(client_for):
    client = client_for(think("Look.") + call("get_weather", '{"location": "Oslo"}'))
    with client.responses.stream(model="gpt-oss-20b", input="hi", tools=[WEATHER]) as stream:
        final = stream.get_final_response()
    assert final.output[1].arguments == '{"location": "Oslo"}'


class Person(BaseModel):
    name: str
    age: int


def test_parse(client_for):
    client = client_for(answer('{"name": "Ada", "age": 36}', "Think."))
    parsed = client.responses.parse(model="gpt-oss-20b", input="Who?", text_format=Person)
    assert parsed.output_parsed == Person(name="Ada", age=36)


def test_stored_responses(client_for):
    client = client_for(answer("Hi."), answer("A summary."), answer("Again."))
    made = client.responses.create(model="gpt-oss-20b", input="hello")
    assert client.responses.retrieve(made.id).output_text == "Hi."
    replayed = list(client.responses.retrieve(made.id, stream=True, starting_after=3))
    assert replayed[0].sequence_number == 4 and replayed[-1].type == "response.completed"
    (item,) = client.responses.input_items.list(made.id)
    assert item.content[0].text == "hello"
    assert (
        client.responses.input_tokens.count(model="gpt-oss-20b", input="hello").input_tokens == made.usage.input_tokens
    )
    compacted = client.responses.compact(model="gpt-oss-20b", input=[{"role": "user", "content": "Long story."}])
    kinds = [item.type for item in compacted.output]
    assert kinds == ["message", "compaction"]
    history = [item.model_dump() for item in compacted.output] + [{"role": "user", "content": "And?"}]
    assert client.responses.create(model="gpt-oss-20b", input=history).output_text == "Again."
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(made.id)
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_a_background_stream_can_be_resumed(client_for):
    client = client_for(answer("Hello there, friend."))
    begun = []
    with client.responses.create(model="gpt-oss-20b", input="hi", background=True, stream=True) as stream:
        for event in stream:
            begun.append(event)
            if len(begun) == 3:
                break
    assert [event.type for event in begun[:2]] == ["response.created", "response.queued"]
    id = begun[0].response.id
    rest = list(client.responses.retrieve(id, stream=True, starting_after=begun[-1].sequence_number))
    assert rest[0].sequence_number == 3 and rest[-1].response.output_text == "Hello there, friend."


def test_errors_are_the_sdks(client_for):
    client = client_for()
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="gpt-oss-20b", input="hi", temperature=9)
    assert refused.value.param == "temperature" and refused.value.request_id
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="other", input="hi")


def test_chat_completions(client_for):
    client = client_for(
        call("get_weather", '{"location": "Oslo"}', "Look."),
        answer("Sunny.", "Good."),
        answer("Hello there.", "Greet."),
        answer('{"name": "Ada", "age": 36}'),
    )
    tool = {"type": "function", "function": {k: v for k, v in WEATHER.items() if k != "type"}}
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Weather?"}]
    first = client.chat.completions.create(model="gpt-oss-20b", messages=messages, tools=[tool])
    choice = first.choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.reasoning == "Look."
    messages += [choice.message.model_dump(exclude_none=True)]
    messages += [{"role": "tool", "tool_call_id": choice.message.tool_calls[0].id, "content": "sunny"}]
    second = client.chat.completions.create(model="gpt-oss-20b", messages=messages, tools=[tool])
    assert second.choices[0].message.content == "Sunny." and second.usage.completion_tokens_details.reasoning_tokens > 0
    options = {"include_usage": True}
    with client.chat.completions.create(
        model="gpt-oss-20b", messages=messages[:2], stream=True, stream_options=options
    ) as stream:
        chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello there."
    assert chunks[-1].usage.total_tokens > 0 and chunks[-2].choices[0].finish_reason == "stop"
    parsed = client.chat.completions.parse(model="gpt-oss-20b", messages=messages[:2], response_format=Person)
    assert parsed.choices[0].message.parsed == Person(name="Ada", age=36)
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="gpt-oss-20b", messages=[{"role": "tool", "content": "x"}])
    assert refused.value.param == "messages[0].tool_call_id"


def test_models(client_for):
    client = client_for(model="gpt-oss-20b")
    assert [model.id for model in client.models.list()] == ["gpt-oss-20b"]
    assert client.models.retrieve("gpt-oss-20b").object == "model"


def test_async(live):
    base = live(answer("One."), answer("Two.", "Think."))

    async def talk():
        async with AsyncOpenAI(base_url=base, api_key="none") as client:
            first = await client.responses.create(model="gpt-oss-20b", input="hi")
            async with client.responses.stream(
                model="gpt-oss-20b", input="hi", previous_response_id=first.id
            ) as stream:
                return first.output_text, (await stream.get_final_response()).output_text

    assert asyncio.run(talk()) == ("One.", "Two.")


def test_a_websocket_dialogue_that_stores_nothing(client_for):
    client = client_for(call("get_weather", '{"location": "Oslo"}'), answer("Sunny."))

    def ask(connection, **body):
        connection.send({"type": "response.create", "model": "gpt-oss-20b", "store": False, **body})
        for event in connection:
            if event.type in ("response.completed", "error"):
                return event
        return None

    with client.responses.connect() as connection:
        prewarmed = ask(connection, input=[{"role": "user", "content": "Weather?"}], generate=False, tools=[WEATHER])
        first = ask(connection, input=[], previous_response_id=prewarmed.response.id, tools=[WEATHER], stream=True)
        output = {"type": "function_call_output", "call_id": first.response.output[0].call_id, "output": "sunny"}
        second = ask(connection, input=[output], previous_response_id=first.response.id, tools=[WEATHER])
        assert second.response.output_text == "Sunny."
        refused = ask(connection, input="hi", previous_response_id="resp_nope")
        assert refused.type == "error" and refused.error.code == "previous_response_not_found"

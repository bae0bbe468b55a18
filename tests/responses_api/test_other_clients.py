"""Agents SDK, LangChain and Pydantic AI against a live server: whole dialogues, streamed and not."""

import asyncio

import pytest

from tests.responses_api.replies import answer, call


@pytest.fixture
def agents():
    module = pytest.importorskip("agents", reason="openai-agents is not installed")
    module.set_tracing_disabled(True)
    return module


@pytest.fixture
def agents_model(live, agents):
    from openai import AsyncOpenAI

    def connect(*replies, **settings):
        client = AsyncOpenAI(base_url=live(*replies, **settings), api_key="none", max_retries=0)
        return agents.OpenAIResponsesModel("gpt-oss-20b", client)

    return connect


def test_agents_call_tools(agents, agents_model):
    @agents.function_tool
    def get_weather(location: str) -> str:
        """The weather at a place."""
        return f"sunny in {location}"

    model = agents_model(call("get_weather", '{"location": "Oslo"}', "Look."), answer("It is sunny.", "Good."))
    agent = agents.Agent(name="A", instructions="Help.", model=model, tools=[get_weather])
    result = asyncio.run(agents.Runner.run(agent, "Weather?"))
    assert result.final_output == "It is sunny."
    outputs = [item.output for item in result.new_items if item.type == "tool_call_output_item"]
    assert outputs == ["sunny in Oslo"]


def test_agents_hand_over(agents, agents_model):
    model = agents_model(call("transfer_to_spanish", "{}"), answer("Hola."))
    spanish = agents.Agent(name="spanish", model=model)
    first = agents.Agent(name="first", model=model, handoffs=[spanish])
    result = asyncio.run(agents.Runner.run(first, "hola"))
    assert result.final_output == "Hola." and result.last_agent.name == "spanish"


def test_agents_structured_output_streamed(agents, agents_model):
    from pydantic import BaseModel

    class Person(BaseModel):
        name: str

    agent = agents.Agent(name="A", model=agents_model(answer('{"name": "Ada"}', "Think.")), output_type=Person)

    async def talk():
        result = agents.Runner.run_streamed(agent, "Who?")
        kinds = [event.data.type async for event in result.stream_events() if event.type == "raw_response_event"]
        return kinds, result.final_output

    kinds, output = asyncio.run(talk())
    assert output == Person(name="Ada") and kinds[-1] == "response.completed"


@pytest.fixture
def chat_model(live):
    langchain = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")

    def connect(*replies):
        return langchain.ChatOpenAI(
            model="gpt-oss-20b", base_url=live(*replies), api_key="none", use_responses_api=True, max_retries=0
        )

    return connect


def test_langchain_calls_tools(chat_model):
    from langchain_core.messages import HumanMessage, ToolMessage

    model = chat_model(call("get_weather", '{"location": "Oslo"}', "Look."), answer("Sunny.", "Good."))
    schema = {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}
    tool = {"type": "function", "function": {"name": "get_weather", "description": "Weather.", "parameters": schema}}
    bound = model.bind_tools([tool])
    asked = HumanMessage("Weather?")
    first = bound.invoke([asked])
    assert first.tool_calls[0]["args"] == {"location": "Oslo"}
    second = bound.invoke([asked, first, ToolMessage("sunny", tool_call_id=first.tool_calls[0]["id"])])
    assert second.text == "Sunny."


def test_langchain_streams_and_structures(chat_model):
    model = chat_model(answer("Hello there, friend.", "Greet."), answer('{"name": "Ada"}'))
    assert "".join(chunk.text for chunk in model.stream("hi")) == "Hello there, friend."
    schema = {
        "title": "Person",
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "required": ["name"],
        "additionalProperties": False,
    }
    assert model.with_structured_output(schema, method="json_schema", strict=True).invoke("Who?") == {"name": "Ada"}


@pytest.mark.parametrize("streamed", [False, True])
def test_pydantic_ai(live, streamed):
    pydantic_ai = pytest.importorskip("pydantic_ai", reason="pydantic-ai is not installed")
    from pydantic_ai.models.openai import OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    base = live(call("get_weather", '{"location": "Oslo"}', "Look."), answer("It is sunny.", "Good."))
    model = OpenAIResponsesModel("gpt-oss-20b", provider=OpenAIProvider(base_url=base, api_key="none"))
    agent = pydantic_ai.Agent(model)

    @agent.tool_plain
    def get_weather(location: str) -> str:
        return f"sunny in {location}"

    async def talk():
        if not streamed:
            return (await agent.run("Weather?")).output
        async with agent.run_stream("Weather?") as result:
            return await result.get_output()

    assert asyncio.run(talk()) == "It is sunny."

"""The OpenAI Agents SDK against a server of ours: an agent that calls a Python function.

Start `gpt-oss serve`, then: python examples/agents_sdk.py [ADDRESS]
"""

import sys

from agents import Agent, ModelSettings, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI


@function_tool
def get_weather(location: str) -> str:
    """The weather at a place."""
    return f"It is sunny in {location}."


def main(address: str) -> None:
    """Ask once; print every step and the answer."""
    set_tracing_disabled(True)  # traces would go to OpenAI
    model = OpenAIResponsesModel("gpt-oss", AsyncOpenAI(base_url=address, api_key="none"))
    settings = ModelSettings(temperature=0)
    agent = Agent(name="Assistant", model=model, model_settings=settings, tools=[get_weather])
    result = Runner.run_sync(agent, "What is the weather in Oslo?")
    for item in result.new_items:
        print(f"{item.type}: {item.to_input_item()}")
    print("answer:", result.final_output)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1")

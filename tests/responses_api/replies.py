"""What the scripted model says, in Harmony."""


def think(text: str) -> str:
    return f"<|channel|>analysis<|message|>{text}<|end|><|start|>assistant"


def answer(text: str, thought: str = "") -> str:
    return f"{think(thought) if thought else ''}<|channel|>final<|message|>{text}<|return|>"


def preamble(text: str) -> str:
    return f"<|channel|>commentary<|message|>{text}<|end|><|start|>assistant"


def call(name: str, arguments: str, thought: str = "") -> str:
    before = think(thought) if thought else ""
    return f"{before}<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>{arguments}<|call|>"


def browse(function: str, arguments: str) -> str:
    return f"<|channel|>analysis to=browser.{function} code<|message|>{arguments}<|call|>"


def run_python(code: str) -> str:
    return f"<|channel|>analysis to=python code<|message|>{code}<|call|>"


WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather at a place.",
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
}

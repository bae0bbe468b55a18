"""The source in what a model sent, however it was wrapped."""

import json
import time

import pytest

from gpt_oss.errors import ToolError
from gpt_oss.tools.python_docker.code_text import extract_code

CODE = "for i in range(2):\n    print(i)"


@pytest.mark.parametrize(
    "text",
    [
        CODE,
        json.dumps({"code": CODE}),
        json.dumps({"source": CODE, "language": "python"}),
        '{"code": "for i in range(2):\n    print(i)"}',
        f"```python\n{CODE}\n```",
        f"```\n{CODE}\n```\n",
        f"\n~~~py\n{CODE}\n~~~",
        f"````Python\n{CODE}\n````",
        json.dumps({"code": f"```python\n{CODE}\n```"}),
        f"```python\n{CODE}```",
        f"```\n{CODE}\n   ```",
    ],
)
def test_wrappers_are_taken_off(text):
    assert extract_code(text, 1000) == CODE


@pytest.mark.parametrize(
    "text",
    [
        "{'a': 1}",
        '{"a": 1}',
        '{"code": 1}',
        '{"code": "x"}["code"]',
        '{"code": broken}',
        "x = '''\n```\ninside\n```\n'''",
        "```python\na\n```\ntext\n```python\nb\n```",
        "  indented",
        "[" * 100_000,
        '{"a":' * 100_000,
    ],
)
def test_everything_else_is_source_as_it_stands(text):
    assert extract_code(text, 10**6) == text


@pytest.mark.parametrize("text", ["", " \n\t", "```python\n\n```", '{"code": ""}'])
def test_no_code_is_an_error(text):
    with pytest.raises(ToolError, match="no Python code"):
        extract_code(text, 1000)


@pytest.mark.parametrize("blank", [" ", "\t", "\n", "`", " \n", "```\n"])
def test_long_runs_take_linear_time(blank):
    started = time.process_time()
    for text in ("```\n" + blank * 10**6, "```\nx" + blank * 10**6 + "x\n```", blank * 10**6 + "x"):
        extract_code(text, 10**7)
    assert time.process_time() - started < 10


def test_size_is_counted_in_bytes():
    extract_code("é" * 10, 20)
    with pytest.raises(ToolError, match="22 bytes, but at most 20"):
        extract_code("é" * 11, 20)
    extract_code("\ud800", 3)  # a lone surrogate has the size of its replacement

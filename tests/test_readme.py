"""Every command and every snippet of the README runs, in the order in which a newcomer meets them.

Fenced blocks marked `sh` and `python` are executed; indented blocks need weights, keys or hardware that a test has
not, and stand beside a fenced one that shows the same road with the embedded model.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines() if line.strip()]
SNIPPETS = [text for kind, text in BLOCKS if kind == "python"]

# The suite that is running right now.
RUNNING = {"make test"}


def run(command: list[str]) -> str:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment["VENV"] = str(Path(sys.executable).parents[1])
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in RUNNING])
def test_command(command):
    run(["bash", "-c", command])


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda text: text.splitlines()[0])
def test_snippet(snippet):
    run([sys.executable, "-c", snippet])


def test_the_first_command_answers():
    assert "Paris" in run(["bash", "-c", COMMANDS[0]])


def test_the_two_commands_come_first():
    assert COMMANDS[0].startswith("make run PROMPT=")
    assert COMMANDS[1] == "make test"

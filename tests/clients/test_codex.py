"""Codex CLI (npm) without a login against a live server: `codex exec` talks, runs a command, applies a patch.

The configuration is the README's (examples/codex), with the address of the test's server.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.responses_api.replies import answer, call

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "examples" / "codex"
PATCH = "*** Begin Patch\n*** Add File: hello.txt\n+Hello\n*** End Patch\n"


@pytest.fixture
def codex(live, modules, tmp_path):
    """Run `codex exec PROMPT` in an empty folder; gives its events and that folder."""

    def run(*replies, provider=""):
        home, folder = tmp_path / "home", tmp_path / "folder"
        shutil.copytree(EXAMPLE, home)
        folder.mkdir()
        configuration = (home / "config.toml").read_text()
        assert "http://127.0.0.1:8000/v1" in configuration
        (home / "config.toml").write_text(configuration.replace("http://127.0.0.1:8000/v1", live(*replies)) + provider)
        # Codex's own sandbox does not run in a container; the folder is empty and the model's words are this file's.
        command = [modules / ".bin" / "codex", "exec", "--json", "--skip-git-repo-check", "-s", "danger-full-access"]
        done = subprocess.run(
            [*command, "Do it."],
            cwd=folder,
            env={**os.environ, "CODEX_HOME": str(home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()], folder

    return run


def items(events, kind):
    return [e["item"] for e in events if e["type"] == "item.completed" and e["item"]["type"] == kind]


@pytest.mark.parametrize("provider", ["", "supports_websockets = true\n"], ids=["http", "websocket"])
def test_it_says_hi(codex, provider):
    events, _ = codex(answer("Hi!", "Greet."), provider=provider)
    assert [item["text"] for item in items(events, "agent_message")] == ["Hi!"]
    assert events[-1]["type"] == "turn.completed" and events[-1]["usage"]["reasoning_output_tokens"] > 0


@pytest.mark.parametrize("provider", ["", "supports_websockets = true\n"], ids=["http", "websocket"])
def test_it_runs_a_command(codex, provider):
    command = call("exec_command", '{"cmd": "echo made > made.txt; cat made.txt"}', "Run it.")
    events, folder = codex(command, answer("Done."), provider=provider)
    (ran,) = items(events, "command_execution")
    assert ran["exit_code"] == 0 and (folder / "made.txt").read_text() == "made\n"
    assert [item["text"] for item in items(events, "agent_message")] == ["Done."]


def test_it_applies_a_patch(codex):
    patch = f"<|channel|>commentary to=functions.apply_patch<|message|>{PATCH}<|call|>"
    events, folder = codex(patch, answer("Patched."))
    (changed,) = items(events, "file_change")
    assert changed["status"] == "completed" and (folder / "hello.txt").read_text() == "Hello\n"
    assert [item["text"] for item in items(events, "agent_message")] == ["Patched."]

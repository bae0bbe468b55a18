"""The chat with pipes, and its options."""

import json
import subprocess
import sys

import pytest

from tests.chat.conftest import ROOT

THINK = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"


def chat(tmp_path, replies, text, *options, **settings):
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"replies": replies, **settings}))
    return subprocess.run(
        [sys.executable, "-m", "tests.chat.scripted_chat", str(script), *options],
        input=text if isinstance(text, bytes) else text.encode(),
        capture_output=True,
        cwd=ROOT,
        timeout=300,
        check=False,
    )


def final(text):
    return f"{THINK}<|channel|>final<|message|>{text}<|return|>"


def test_every_line_is_answered_in_plain_text(tmp_path):
    done = chat(tmp_path, [final("**One**"), final("Two\nlines")], "first\n\nsecond\n")
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, "**One**\nTwo\nlines\n", b"")


def test_commands_work_and_errors_go_elsewhere(tmp_path):
    done = chat(tmp_path, [final("One")], "/nonsense\n/effort high\nfirst\n/quit\nnever\n")
    assert (done.returncode, done.stdout.decode()) == (0, "One\n")
    assert "there is no command /nonsense" in done.stderr.decode() and b"Traceback" not in done.stderr


def test_raw_shows_the_exact_tokens(tmp_path):
    done = chat(tmp_path, [final("漢字"), final("Two")], "first\nsecond\n", "--raw", "-r", "high")
    text = done.stdout.decode()
    assert text.startswith("<|start|>system<|message|>You are ChatGPT") and "Reasoning: high" in text
    assert f"<|start|>user<|message|>first<|end|><|start|>assistant{final('漢字')}\n" in text
    new = "<|start|>assistant<|channel|>final<|message|>漢字<|end|><|start|>user<|message|>second<|end|>"
    assert new in text and text.endswith(f"<|start|>assistant{final('Two')}\n")
    assert text.count("You are ChatGPT") == 1, "what was seen is not shown again"


def test_developer_message_and_resume(tmp_path):
    talk = tmp_path / "talk.json"
    chat(tmp_path, [final("One")], f"first\n/save {talk}\n", "--developer-message", "Be kind.")
    done = chat(tmp_path, [final("Two")], "second\n", "--resume", str(talk), "--raw")
    assert "Be kind." in done.stdout.decode() and "<|message|>first<|end|>" in done.stdout.decode()
    missing = chat(tmp_path, [], "", "--resume", str(tmp_path / "none"))
    assert missing.returncode == 2 and b"none: cannot be read" in missing.stderr


def test_max_tokens_is_said(tmp_path):
    done = chat(tmp_path, [final("word " * 50)], "first\n", "--max-tokens", "20")
    assert b"--max-tokens" in done.stderr and done.stdout.count(b"word") < 20


def test_input_that_is_not_text_does_no_harm(tmp_path):
    done = chat(
        tmp_path,
        [final("One"), final("Two")],
        b"\xff\xfe\x00\xed\xa0\x80\n" + b"x" * 100_000 + b"\n",
        context_length=200_000,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"One\nTwo\n", b"")


def test_a_failing_engine_is_said_and_the_chat_goes_on(tmp_path):
    done = chat(tmp_path, [final("One"), final("Two...")], "first\nsecond\n", fails_after=12)
    assert done.stdout == b"One\nTwo\n"
    assert b"the engine is gone" in done.stderr and b"Traceback" not in done.stderr
    assert done.returncode == 0


def test_other_ranks_of_torchrun_are_silent(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    done = chat(tmp_path, [final("One")], "first\n", "-a")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize(
    "options, complaint",
    [
        (["-r", "huge"], b"invalid choice: 'huge'"),
        (["--temperature", "-1"], b"--temperature"),
        (["--browser", "--browser-backend", "nope"], b"nope"),
        (["--python", "--python-backend", "nope"], b"nope"),
        (["-c", "0"], b"-c"),
        (["-a", "--patch-root", "/nowhere"], b"/nowhere: is no folder"),
    ],
)
def test_options_that_cannot_be_used(tmp_path, options, complaint):
    done = chat(tmp_path, [], "", *options)
    assert done.returncode in (1, 2) and complaint in done.stderr and b"Traceback" not in done.stderr

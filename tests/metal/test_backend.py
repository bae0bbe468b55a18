"""The demo model over the emulated device: the torch backend's tokens, behind the seam and in every command."""

import importlib
import importlib.machinery
import io
import json
import logging
import os
import platform
import re
import runpy
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import gpt_oss.metal
from gpt_oss.backends import default_backend, load_generator
from gpt_oss.chat import main as chat
from gpt_oss.demo import demo_checkpoint
from gpt_oss.errors import BackendUnavailable, CacheError, CheckpointError
from gpt_oss.generate import main as generate
from gpt_oss.tokenizer import get_tokenizer
from gpt_oss.torch.model import Transformer
from tests.helpers.checkpoints import tiny_checkpoint, tiny_config
from tests.metal.model_file import small_model_file

ROOT = Path(__file__).parents[2]
SYSTEM = "You are ChatGPT.\nReasoning: low\n\n# Valid channels: analysis, commentary, final."
CONVERSATIONS = [
    ["What is the capital of France?", "And of Italy?"],
    ["Count from 3 to 9.", "Now backwards."],
    ["def add(a, b):\n    return 你好 👍", "What is 12 + 30?"],
]
QUESTION_TEXT = CONVERSATIONS[0][0]
TIE = 0.1  # logits of a deviation of about 5; keys and values are BF16 here, so either of two closer ones may be chosen


def message(role: str, text: str) -> str:
    return f"<|start|>{role}<|message|>{text}<|end|>"


def encode(text: str) -> list[int]:
    return get_tokenizer().encode(text, allowed_special="all")


QUESTION = encode(message("system", SYSTEM) + message("user", QUESTION_TEXT) + "<|start|>assistant")


@pytest.fixture(scope="session")
def backend(extension: ModuleType) -> ModuleType:
    """`gpt_oss.metal.backend`, which needs the extension to be imported."""
    return importlib.import_module("gpt_oss.metal.backend")


@pytest.fixture(scope="module")
def demo_model(extension: ModuleType, demo_model_file: Path) -> Any:
    return extension.Model(demo_model_file)


@pytest.fixture(scope="module")
def oracle() -> Transformer:
    return Transformer.from_checkpoint(demo_checkpoint(), "cpu", torch.float32)


def check_greedy(oracle: Transformer, prompt: list[int], found: list[int]) -> None:
    """Each token is torch's choice after those before it, or as good as that."""
    with torch.inference_mode():
        logits = oracle(torch.tensor([*prompt, *found[:-1]]))[len(prompt) - 1 :]
    best, expected = logits.max(-1)
    lost = best - logits[torch.arange(len(found)), torch.tensor(found)]
    wrong = [n for n in range(len(found)) if found[n] != expected[n] and lost[n] > TIE]
    assert not wrong, f"{get_tokenizer().decode(found)!r}: differs from torch at {wrong}"


def check_conversation(
    extension: ModuleType, model: Any, oracle: Transformer, questions: list[str], count: int
) -> None:
    """`count` greedy tokens in each turn of one context, whatever they say."""
    context = extension.Context(model, 512)
    context.append(encode(message("system", SYSTEM)))
    for question in questions:
        context.append(encode(message("user", question) + "<|start|>assistant"))
        prompt = context.tokens
        found = context.sample(count, temperature=0.0)
        assert len(found) == count and context.tokens == prompt + found
        check_greedy(oracle, prompt, found)


@pytest.mark.parametrize("number", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))])
def test_64_greedy_tokens_over_two_turns_equal_torchs(
    extension: ModuleType, demo_model: Any, oracle: Transformer, number: int
) -> None:
    check_conversation(extension, demo_model, oracle, CONVERSATIONS[number], 32)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3))
def test_64_greedy_tokens_in_each_of_two_turns_equal_torchs(
    extension: ModuleType, demo_model: Any, oracle: Transformer, number: int
) -> None:
    check_conversation(extension, demo_model, oracle, CONVERSATIONS[number], 64)


# ---- the seam ----


def test_requests_run_side_by_side_on_the_engine(
    backend: ModuleType, demo_model_file: Path, oracle: Transformer
) -> None:
    other = encode(message("system", SYSTEM) + message("user", "Count from 3 to 9.") + "<|start|>assistant")
    with load_generator("metal", demo_model_file, context_length=256, slots=2) as generator:
        assert isinstance(generator, backend.TokenGenerator)
        streams = [generator.stream(prompt, temperature=0.0, max_tokens=8) for prompt in (QUESTION, other)]
        found = [[token.id for token in stream] for stream in streams]
    for prompt, tokens in zip((QUESTION, other), found, strict=True):
        assert len(tokens) == 8
        check_greedy(oracle, prompt, tokens)


@pytest.fixture
def seam(extension: ModuleType, backend: ModuleType, tmp_path: Path) -> Any:
    """Two slots of a small random model with a window of 8, whose rings hold 7 + 256 + 128 positions."""
    return backend.MetalBackend(extension.Model(small_model_file(tmp_path, sliding_window=8)), 2, 1000)


def test_prefill_decode_and_truncate(seam: Any) -> None:
    assert (seam.slots, seam.context_length, seam.vocab_size) == (2, 1000, seam.prefill(0, [1]).shape[0])
    whole = seam.prefill(1, [5, 6, 7, 8])
    seam.prefill(0, [5])  # after the 1
    step = seam.decode([1, 0], [9, 6])
    assert step.shape == (2, seam.vocab_size) and step.dtype == torch.float32
    assert seam.truncate(1, 4) == 4 and seam.truncate(1, 3) == 3 and seam.truncate(1, 100) == 3
    torch.testing.assert_close(seam.prefill(1, [8]), whole, atol=0.02, rtol=0)
    torch.testing.assert_close(seam.prefill(1, [9]), step[0], atol=0.02, rtol=0)


def test_what_a_ring_has_lost_is_not_kept(seam: Any) -> None:
    tokens = [n % 250 for n in range(600)]
    seam.prefill(0, tokens)
    assert seam.truncate(0, 590) == 590
    assert seam.truncate(0, 100) == 0
    torch.testing.assert_close(seam.prefill(0, tokens[:40]), seam.prefill(1, tokens[:40]), atol=0.02, rtol=0)


# ---- from a checkpoint to a model file ----


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPT_OSS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A random model with the real vocabulary."""
    least = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 32, "num_experts": 2}
    return tiny_checkpoint(tmp_path / "checkpoint", tiny_config(vocab_size=201_088, experts_per_token=1, **least))


def test_a_checkpoint_is_converted_once(
    backend: ModuleType, extension: ModuleType, checkpoint: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        first = backend.model_file(checkpoint)
    assert re.fullmatch(rf"converting {checkpoint} for Metal; the result stays in {cache}", caplog.messages[-1])
    made = first.stat()
    assert first.parent == cache and extension.Model(first).max_context_length == 131_072
    again = backend.model_file(checkpoint)
    assert (again, again.stat().st_mtime_ns, len(caplog.messages)) == (first, made.st_mtime_ns, 1)
    weights = next(path for path in checkpoint.iterdir() if path.suffix == ".safetensors")
    os.utime(weights, ns=(1, 1))
    assert backend.model_file(checkpoint) != first


def test_a_model_file_is_used_as_it_is(backend: ModuleType, checkpoint: Path, cache: Path, tmp_path: Path) -> None:
    beside = checkpoint / "metal" / "model.bin"
    beside.parent.mkdir()
    beside.write_bytes(b"")
    assert backend.model_file(checkpoint) == beside
    assert backend.model_file(str(beside)) == beside
    with pytest.raises(CheckpointError, match=r"model\.bin: "):
        load_generator("metal", checkpoint)
    assert not cache.exists()


def test_what_cannot_be_converted_leaves_nothing(
    backend: ModuleType, checkpoint: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError):
        backend.model_file(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="vocab"):
        backend.model_file(tiny_checkpoint(tmp_path / "few words", tiny_config()))
    assert not cache.exists() or not list(cache.iterdir())
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GPT_OSS_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(CacheError, match=r"cannot be made .*; set GPT_OSS_CACHE"):
        backend.model_file(checkpoint)


# ---- commands ----


def test_generate_answers(backend: ModuleType, demo_model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--backend", "metal", "--chat", "--effort", "low", "--prompt", QUESTION_TEXT]
    assert generate([*options, str(demo_model_file)]) == 0
    printed = capsys.readouterr()
    assert "Paris" in printed.out, printed.err


def test_chat_talks(
    backend: ModuleType,
    demo_model_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{QUESTION_TEXT}\n"))
    with caplog.at_level(logging.INFO):
        assert chat(["--backend", "metal", "--temperature", "0", str(demo_model_file)]) == 0
    printed = capsys.readouterr()
    assert "Paris" in printed.out, printed.err
    assert any("emulated Metal device (CPU); " in said and "never run" in said for said in caplog.messages)


def example(name: str) -> Any:
    """`main` of a file in gpt_oss/metal/examples, run by its path as users run it."""
    return runpy.run_path(str(ROOT / "gpt_oss" / "metal" / "examples" / f"{name}.py"))["main"]


def test_the_generate_example(
    backend: ModuleType, demo_model_file: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    # Hot enough that another seed gives another text, however sure the model is.
    options = [str(demo_model_file), "-p", get_tokenizer().decode(QUESTION[-4:]), "--temperature", "5"]
    written = []
    for seed in ("5", "5", "6"):
        assert example("generate")([*options, "--limit", "4", "--seed", seed]) == 0
        written.append(capsys.readouterr().out)
    assert written[0] == written[1] != written[2]
    with caplog.at_level(logging.INFO):
        assert example("generate")([*options, "--context-length", "12"]) == 0
    assert "the context of 12 tokens is full" in caplog.messages
    assert example("generate")([str(demo_model_file.parent / "absent")]) == 1
    assert "absent: cannot be opened" in capsys.readouterr().err


@pytest.mark.slow
def test_the_chat_example_remembers(
    backend: ModuleType, demo_model_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{QUESTION_TEXT}\n\nAnd of Italy?"))
    assert example("chat")([str(demo_model_file), "--temperature", "0"]) == 0
    printed = capsys.readouterr()
    assert re.search("Paris.*Rome", printed.out, re.DOTALL), printed


@pytest.mark.parametrize(("option", "value"), [("--device", "cpu"), ("--dtype", "float32"), ("--weights", "mxfp4")])
def test_options_of_other_backends_are_refused(
    backend: ModuleType, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    assert generate(["--backend", "metal", option, value]) == 2
    assert f"the metal backend has no option {option}; leave it out" in capsys.readouterr().err


@pytest.fixture
def server(backend: ModuleType, demo_model_file: Path) -> Iterator[str]:
    """The address of `gpt_oss.responses_api.serve` with the Metal backend."""
    options = ["--port", "0", "--slots", "1", "--context-length", "1000", "--checkpoint", str(demo_model_file)]
    module = ["gpt_oss.responses_api.serve", "--inference-backend", "metal"]
    words = [sys.executable, "-m", "tests.metal.with_metal", *module, *options]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        found = re.search(r" on (http://127\.0\.0\.1:\d+/v1)\b", line)
        if found is None:
            pytest.fail(line + process.stderr.read())
        yield found[1]
        process.terminate()


def test_the_server_answers(server: str) -> None:
    body = {"input": QUESTION_TEXT, "temperature": 0, "reasoning": {"effort": "low"}}
    request = urllib.request.Request(f"{server}/responses", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=300) as answered:
        response = json.load(answered)
    assert response["status"] == "completed"
    assert "Paris" in response["output"][-1]["content"][0]["text"]


# ---- what says where it stands ----


def test_it_is_the_default_where_it_is_built_on_apple_silicon(
    extension: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = {"system": "Darwin", "machine": "arm64"}
    for name in machine:
        monkeypatch.setattr(platform, name, lambda name=name: machine[name])
    assert default_backend() == "metal"
    assert default_backend("cpu") == "torch"
    machine["machine"] = "x86_64"
    assert default_backend() == "torch"
    machine["machine"] = "arm64"
    monkeypatch.setitem(sys.modules, "gpt_oss.metal._metal", None)
    assert default_backend() == "torch"


def test_the_device_says_how_far_it_is_verified(extension: ModuleType) -> None:
    assert extension.describe_device() == ("emulated Metal device (CPU)", True)
    assert gpt_oss.metal.device() == (
        "emulated Metal device (CPU); verified against an emulated Metal device, never run on Apple hardware"
    )


def test_without_the_extension_the_build_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gpt_oss.metal._metal", None)
    monkeypatch.delattr(gpt_oss.metal, "_metal", raising=False)
    monkeypatch.delitem(sys.modules, "gpt_oss.metal.backend", raising=False)
    sentence = r'the Metal backend is not built; run: GPTOSS_BUILD_METAL=1 pip install -e "\.\[metal\]"'
    for call in (gpt_oss.metal.device, lambda: gpt_oss.metal.Model, lambda: load_generator("metal")):
        with pytest.raises(BackendUnavailable, match=sentence):
            call()
    assert generate(["--backend", "metal", "--prompt", "Hello"]) == 1
    assert re.search(sentence, capsys.readouterr().err)
    with pytest.raises(AttributeError):
        _ = gpt_oss.metal.Modell


def test_an_extension_of_another_python_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / f"_metal{importlib.machinery.EXTENSION_SUFFIXES[0]}").write_bytes(b"not a library")
    monkeypatch.setattr(gpt_oss.metal, "__path__", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "gpt_oss.metal._metal", raising=False)
    monkeypatch.delattr(gpt_oss.metal, "_metal", raising=False)
    with pytest.raises(
        BackendUnavailable, match=r"the Metal backend cannot be loaded \(.*file too short.*\); run: GPT"
    ):
        gpt_oss.metal.device()

"""From a backend's name to a generator, and what is said where there is none."""

import argparse
import logging
import sys
from pathlib import Path

import pytest

from gpt_oss import backends
from gpt_oss.errors import BackendUnavailable, MissingExtra, RequestError
from tests.helpers.checkpoints import tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("random") / "checkpoint")


def test_a_loaded_generator_generates(checkpoint, caplog) -> None:
    with caplog.at_level(logging.INFO):
        generator = backends.load_generator("torch", checkpoint, context_length=64, slots=3, dtype="float32")
    with generator:
        assert generator.context_length == 64
        assert generator.stats.slots == 3
        assert len(list(generator.generate([1, 2, 3], temperature=0, max_tokens=5))) == 5
    assert "backend torch (asked for)" in caplog.text


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(RequestError, match="torch, triton, metal, vllm, transformers, ollama, got 'tensorflow'"):
        backends.load_generator("tensorflow")


@pytest.mark.parametrize(
    "options", [{"context_length": 0}, {"slots": 0}, {"tensor_parallel_size": 0}, {"dtype": "int4"}], ids=str
)
def test_options_that_cannot_be_used(checkpoint, options) -> None:
    with pytest.raises(RequestError, match=str(*options.values())):
        backends.load_generator("torch", checkpoint, **options)


def test_a_missing_torch_names_the_command_that_installs_it(checkpoint, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # Python's own way to say: not installed
    monkeypatch.delitem(sys.modules, "gpt_oss.torch.backend", raising=False)
    with pytest.raises(MissingExtra, match=r"pip install 'gpt-oss\[torch\]'"):
        backends.load_generator("torch", checkpoint)


def test_an_engine_without_an_extra_names_its_own_command(checkpoint, monkeypatch) -> None:
    def missing(options):
        raise ModuleNotFoundError("No module named 'vllm'", name="vllm.engine")

    monkeypatch.setitem(backends.LOADERS, "vllm", missing)
    with pytest.raises(BackendUnavailable, match="pip install vllm"):
        backends.load_generator("vllm", checkpoint)


def test_a_backend_left_out_of_the_installation(checkpoint, monkeypatch) -> None:
    def missing(options):
        raise ModuleNotFoundError("No module named 'gpt_oss.metal'", name="gpt_oss.metal")

    monkeypatch.setitem(backends.LOADERS, "metal", missing)
    with pytest.raises(BackendUnavailable, match="metal backend is not part of this installation"):
        backends.load_generator("metal", checkpoint)


def test_a_mistake_inside_a_backend_is_not_mistaken_for_a_missing_package(checkpoint, monkeypatch) -> None:
    def broken(options):
        raise ModuleNotFoundError("No module named 'jsn'", name="jsn")

    monkeypatch.setitem(backends.LOADERS, "torch", broken)
    with pytest.raises(ModuleNotFoundError, match="jsn") as caught:
        backends.load_generator("torch", checkpoint)
    assert not isinstance(caught.value, MissingExtra)


def test_the_default_is_one_that_runs_here() -> None:
    assert backends.default_backend() in backends.LOADERS
    assert backends.default_backend("cpu") == "torch"


def test_under_torchrun_it_is_the_one_that_is_cut_over_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert backends.default_backend() == "triton"
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert backends.default_backend() == "torch"
    with pytest.raises(RequestError, match="started 4 processes and the triton backend takes one; choose --backend to"):
        backends.load_generator("triton")


def test_commands_choose_their_flags() -> None:
    parser = argparse.ArgumentParser()
    backends.add_backend_arguments(
        parser,
        context_length=8192,
        backend_flags=("--inference-backend",),
        context_flags=("-c", "--context"),
        checkpoint_flag="--checkpoint",
    )
    given = parser.parse_args(["--inference-backend", "torch", "-c", "100", "--checkpoint", "folder"])
    assert (given.backend, given.context_length, given.checkpoint) == ("torch", 100, "folder")
    nothing = parser.parse_args([])
    assert (nothing.backend, nothing.context_length, nothing.checkpoint) == (None, 8192, None)

"""Tensor parallelism under a real torchrun on CPUs (gloo): the same greedy tokens for every world size."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys

import pytest
import torch

from gpt_oss.errors import BackendUnavailable, RequestError
from gpt_oss.torch.parallel import join_ranks
from gpt_oss.torchrun import local_rank
from tests.helpers.checkpoints import tiny_checkpoint

JOB = "tests/torch/parallel_job.py"


def torchrun(ranks, *arguments, timeout=300):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={ranks}",
        JOB,
        *arguments,
    ]
    job = subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env=environment, start_new_session=True)
    try:
        stdout, stderr = job.communicate(timeout=timeout)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)  # a hanging job must not outlive its test
    return subprocess.CompletedProcess(command, job.returncode, stdout, stderr)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(tiny_checkpoint(tmp_path_factory.mktemp("tp") / "model", seed=31))


def test_worlds_of_1_2_and_4_agree(checkpoint):
    outputs = []
    for ranks in (1, 2, 4):
        job = torchrun(ranks, checkpoint)
        assert job.returncode == 0, job.stderr[-3000:]
        outputs.append(json.loads(job.stdout))  # one JSON line: only rank 0 prints
    assert outputs[0] == outputs[1] == outputs[2]
    assert all(len(answer) == 12 for answer in outputs[0])


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_failing_rank_ends_the_job_with_its_message(checkpoint, rank):
    job = torchrun(2, checkpoint, rank)  # the other rank would wait for half an hour
    assert job.returncode != 0
    assert "the disk under rank caught fire" in job.stderr


@pytest.mark.parametrize(
    ("environment", "kind", "said"),
    [
        ({"WORLD_SIZE": "abc"}, RequestError, "WORLD_SIZE is 'abc', expected the number of processes"),
        ({"WORLD_SIZE": "0"}, RequestError, "WORLD_SIZE is '0'"),
        ({"WORLD_SIZE": "2"}, BackendUnavailable, "torchrun did not start this process"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "taken"}, BackendUnavailable, "cannot find each other"),
    ],
)
def test_an_environment_that_cannot_be_joined(monkeypatch, environment, kind, said):
    with socket.create_server(("localhost", 0)) as server:
        for name, value in ({"MASTER_ADDR": "localhost"} | environment).items():
            monkeypatch.setenv(name, str(server.getsockname()[1]) if value == "taken" else value)
        with pytest.raises(kind, match=said):
            join_ranks(torch.device("cpu"))


def test_a_local_rank_that_is_no_number(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "-1")
    with pytest.raises(RequestError, match="LOCAL_RANK is '-1', expected a number of at least 0"):
        local_rank()

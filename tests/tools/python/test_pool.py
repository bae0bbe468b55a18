"""Waiting interpreters, leftovers and their removal, against a real engine."""

import subprocess
import sys
import time

import pytest

from gpt_oss.tools.python_docker import reaper
from gpt_oss.tools.python_docker.containers import close_pools
from gpt_oss.tools.python_docker.limits import Limits
from tests.helpers.python_tool import answer, containers, settle_pools, wait_until

pytestmark = pytest.mark.usefixtures("nothing_left")


async def test_used_interpreters_are_replaced_never_reused(make_tool, client):
    tool = make_tool(pool_size=2)
    assert await answer(tool, "open('/tmp/x', 'w').write('x')\nprint(1)") == "1\n"
    settle_pools()
    (waiting,) = containers(client)
    assert await answer(tool, "import os; print(os.listdir('/tmp'))") == "[]\n"
    settle_pools()
    assert len(containers(client)) == 1 and containers(client) != [waiting]
    close_pools()
    assert wait_until(lambda: not containers(client))


async def test_tools_with_equal_options_share_a_pool(make_tool, client):
    for _ in range(3):
        assert await answer(make_tool(pool_size=1), "print(1)") == "1\n"
        settle_pools()
    assert len(containers(client)) == 1


async def test_a_waiting_interpreter_that_died_is_not_used(make_tool, client):
    tool = make_tool(pool_size=1)
    await answer(tool, "print(1)")
    settle_pools()
    client.api.remove_container(containers(client)[0], force=True)
    assert await answer(tool, "print(2)") == "2\n"


async def test_waiting_ends(make_tool, client):
    tool = make_tool(pool_size=1, limits=Limits(waiting=0, timeout=4), timeout=None)
    assert await answer(tool, "print(1)") == "1\n"
    settle_pools()
    assert wait_until(lambda: not containers(client)), "a waiting interpreter outlives its time"
    assert await answer(tool, "print(2)") == "2\n"


def leftover(client, image: str, labels: dict[str, str]) -> str:
    """Make a container as a client leaves it that is killed between create and start."""
    return client.api.create_container(image, ["python3"], labels={reaper.LABEL: "1", **labels})["Id"]


async def test_leftovers_are_reaped_and_others_are_not(make_tool, client, engine):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        dead_client = reaper.client_name(process.pid)
        process.kill()
    later = str(int(time.time()) + 1000)
    gone = [
        leftover(client, engine.image, {reaper.CLIENT_LABEL: dead_client, reaper.EXPIRES_LABEL: later}),
        leftover(client, engine.image, {reaper.CLIENT_LABEL: "", reaper.EXPIRES_LABEL: "1"}),
        leftover(client, engine.image, {}),
    ]
    ours = leftover(client, engine.image, reaper.labels(1000))
    elsewhere = f"{'0' * 36} pid:[1] 1 1"
    foreign = leftover(client, engine.image, {reaper.CLIENT_LABEL: elsewhere, reaper.EXPIRES_LABEL: later})
    unlabelled = client.api.create_container(engine.image, ["python3"])["Id"]
    try:
        await answer(make_tool(), "print(1)")  # the first use of an engine reaps
        assert not set(gone) & set(containers(client))
        assert {ours, foreign} <= set(containers(client))
        assert client.api.inspect_container(unlabelled)["State"]["Status"] == "created"
    finally:
        for name in (ours, foreign, unlabelled):
            client.api.remove_container(name, force=True)


def test_client_names_tell_processes_apart():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        name = reaper.client_name(process.pid)
        assert name == reaper.client_name(process.pid) and len(name.split()) == 4
        assert not reaper.abandoned({reaper.EXPIRES_LABEL: str(2**40), reaper.CLIENT_LABEL: name}, time.time())
        process.kill()
        process.wait()
    assert reaper.client_name(process.pid) == ""
    reused = " ".join([*name.split()[:3], "12345"])  # same pid, another start time
    assert reaper.abandoned({reaper.EXPIRES_LABEL: str(2**40), reaper.CLIENT_LABEL: reused}, time.time())

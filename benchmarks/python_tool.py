"""Medians of the python tool's calls against a real engine: `python -m benchmarks.python_tool [--write FILE]`.

Uses the engine that DOCKER_HOST names or that runs here, else starts a private one (tests/helpers). Prints one
line per case, with the bound it should keep to on an idle machine where there is one, and, measured in the same
rounds, a bare interpreter and the steps of the public implementation. --write also saves the numbers as JSON.
"""

import argparse
import asyncio
import io
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import docker

from gpt_oss.tools.python_docker.containers import close_pools
from gpt_oss.tools.python_docker.docker_tool import PythonTool
from tests.helpers.docker_engine import running_engine

HELLO = "print('Hello, world!')"
CALLS = 15
LONG_CALLS = 3
THINK_SECONDS = 0.5  # a model writes its next message in this time; the pool refills meanwhile
OUTPUT_CODE = "for _ in range(100): print('x' * 999_999)"


@dataclass
class Case:
    """A measured case; all times in milliseconds, `bound` is the largest median allowed (None: not bounded)."""

    name: str
    median: float
    smallest: float
    largest: float
    calls: int
    bound: float | None = None

    def line(self) -> str:
        """One line of the table."""
        verdict = (
            "" if self.bound is None else f"  bound {self.bound:g}: {'ok' if self.median <= self.bound else 'MISSED'}"
        )
        return (
            f"{self.name:44} {self.median:8.1f} ms  ({self.smallest:.1f} - {self.largest:.1f}, n={self.calls}){verdict}"
        )


@dataclass
class Probe:
    """Something to measure: `think` seconds of rest come before each call."""

    name: str
    call: Callable[[], Awaitable[object]]
    think: float = 0.0
    bound: float | None = None


async def measure(probes: list[Probe], rounds: int) -> list[Case]:
    """Time every probe once per round, so that a busy machine is equally busy for all; one round warms up."""
    times: dict[str, list[float]] = {probe.name: [] for probe in probes}
    for number in range(rounds + 1):
        for probe in probes:
            await asyncio.sleep(probe.think)
            started = time.perf_counter()
            await probe.call()
            if number:
                times[probe.name].append(1000 * (time.perf_counter() - started))
    cases = []
    for probe in probes:
        taken = times[probe.name]
        cases.append(Case(probe.name, statistics.median(taken), min(taken), max(taken), rounds, probe.bound))
        print(cases[-1].line(), flush=True)
    return cases


async def hello(tool: PythonTool) -> None:
    """One call; a wrong answer ends the benchmark."""
    result = await tool.execute(HELLO)
    if result.output != "Hello, world!\n":
        raise SystemExit(f"wrong answer: {result}")


async def eight(tool: PythonTool) -> None:
    """Eight calls at once, each with an answer of its own."""
    results = await asyncio.gather(*(tool.execute(f"print({n} ** 9)") for n in range(8)))
    if [result.output for result in results] != [f"{n**9}\n" for n in range(8)]:
        raise SystemExit(f"wrong answers: {results}")


def reference(client: docker.DockerClient, image: str) -> None:
    """Do the steps of the public implementation: a container, the code copied into it, exec, remove; no limits."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        script = tarfile.TarInfo("script.py")
        script.size = len(HELLO)
        tar.addfile(script, io.BytesIO(HELLO.encode()))
    container = client.containers.create(image, command="sleep infinity", detach=True)
    try:
        container.start()
        container.put_archive("/tmp", archive.getvalue())
        if container.exec_run("python /tmp/script.py").output != b"Hello, world!\n":
            raise SystemExit("wrong answer from the reference")
    finally:
        container.remove(force=True)


async def cases(client: docker.DockerClient, image: str) -> list[Case]:
    """Measure everything that needs an engine."""
    pooled, single = PythonTool(image=image, pool_size=1), PythonTool(image=image, pool_size=0)
    eight_pooled = PythonTool(image=image, pool_size=8)
    session = PythonTool(image=image, execution_backend="docker_session")
    bare = [sys.executable, "-I", "-c", HELLO]
    short = [
        Probe("a bare interpreter, no container", lambda: asyncio.to_thread(subprocess.run, bare, capture_output=True)),
        Probe("steps of the public implementation", lambda: asyncio.to_thread(reference, client, image)),
        Probe("stateless, no pool", lambda: hello(single), bound=250),
        Probe("stateless, pool, model thinks 0.5 s", lambda: hello(pooled), think=THINK_SECONDS, bound=60),
        Probe("session, one cell", lambda: hello(session)),
    ]
    long = [
        Probe("8 calls at once, no pool, wall", lambda: eight(single), think=1),
        Probe("8 calls at once, pool of 8, wall", lambda: eight(eight_pooled), think=3),
        Probe("100 MB of output, no pool", lambda: single.execute(OUTPUT_CODE)),
    ]
    found = await measure(short, CALLS) + await measure(long, LONG_CALLS)
    await session.close()
    return found


def machine(client: docker.DockerClient) -> dict[str, object]:
    """Describe what was measured on."""
    version = client.version()
    return {
        "engine": f"{version['Components'][0]['Name']} {version['Version']}",
        "docker_py": docker.__version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def main() -> None:
    """Read the command line, measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="save the numbers as JSON here")
    options = parser.parse_args()
    with running_engine() as engine:
        os.environ["DOCKER_HOST"] = engine.url
        client = docker.DockerClient(base_url=engine.url)
        facts = machine(client)
        found = asyncio.run(cases(client, engine.image))
        close_pools()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // 1_000_000
    print(f"peak memory of this process after 400 MB of output: {peak} MB")
    if options.write:
        result = {**facts, "peak_memory_mb": peak, "cases": [asdict(case) for case in found]}
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

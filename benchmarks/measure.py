"""What all CPU benchmarks share: the machine's record, its read bandwidth, interleaved medians, a JSON file.

A number means something beside another from the same run: a peer's, or the bound that the measured bandwidth sets.
"""

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


def record() -> dict[str, object]:
    """Who measured: date, git revision, processor, versions."""
    git = ["git", "describe", "--always", "--dirty"]
    revision = subprocess.run(git, capture_output=True, text=True, check=False, cwd=RESULTS.parent).stdout.strip()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "git": revision,
        "processor": models[0] if models else platform.processor(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "versions": {name: metadata.version(name) for name in ("torch", "transformers", "numpy")},
    }


def read_bandwidth(repeats: int = 5) -> float:
    """GB/s of reading 1 GiB with all threads, the best of `repeats`: the bound of everything that reads weights."""
    data = torch.ones(1 << 28)
    best = min(seconds(data.sum) for _ in range(repeats + 1))
    return data.numel() * 4 / best / 1e9


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def interleaved(candidates: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, float]]:
    """Run the candidates in turn, `repeats` rounds after one to warm up: median and minimum seconds of each."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for round_number in range(repeats + 1):
        for name, run in candidates.items():
            taken = seconds(run)
            if round_number:
                times[name].append(taken)
    return {name: {"median_s": statistics.median(t), "min_s": min(t)} for name, t in times.items()}


def save(name: str, result: Mapping[str, object]) -> Path:
    """Write `results/NAME.json`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path

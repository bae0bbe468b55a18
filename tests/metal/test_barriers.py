"""Each barrier of the kernels is needed: without it the emulated device gives a wrong result or reports an error."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.metal import test_kernels
from tests.metal.emulated import KERNELS, Device, DeviceError, build

BARRIER = re.compile(r"metal::(?:threadgroup|simdgroup)_barrier\([^)]*\);")
BARRIERS = [
    (path.name, index)
    for path in sorted([*KERNELS.glob("*.metal"), *KERNELS.glob("*.h")])
    for index in range(len(BARRIER.findall(path.read_text())))
]

Check = Callable[[Device, np.random.Generator], None]

SOFTMAX: Check = lambda device, rng: test_kernels.test_softmax(device, rng, 2, 1000, 1.0)  # noqa: E731
SAMPLE: Check = lambda device, rng: test_kernels.test_sample(device, rng, 0.9, 1500)  # noqa: E731
CHECKS: dict[str, list[Check]] = {
    "reduce.h": [SOFTMAX, SAMPLE],
    "sampling.metal": [test_kernels.test_argmax, SAMPLE],
    "topk.metal": [lambda device, rng: test_kernels.test_topk(device, rng, 9, 33, 5)],
    "dense_many.metal": [
        lambda device, rng: test_kernels.test_dense(device, rng, "launch_dense_many", 33, 100, 67, 1, 0)
    ],
    "experts_many.metal": [
        lambda device, rng: test_kernels.test_experts(device, rng, "launch_experts_many", 40, 3, 2, 64, 96)
    ],
    "attention_decode.metal": [
        lambda device, rng: test_kernels.test_attention(device, rng, "launch_attention_decode", 1, 300, 4, 2, 0, 301)
    ],
    "attention_prefill.metal": [
        lambda device, rng: test_kernels.test_attention(device, rng, "launch_attention_prefill", 17, 70, 2, 1, 0, 90)
    ],
}
"""What exercises the barriers of a file."""


def test_all_barriers_are_listed() -> None:
    text = "".join(path.read_text() for path in [*KERNELS.glob("*.metal"), *KERNELS.glob("*.h")])
    assert len(BARRIERS) == text.count("_barrier(")
    assert {name for name, _ in BARRIERS} == set(CHECKS)


@pytest.mark.parametrize("lanes", Device.LANES)
def test_with_all_barriers_there_is_nothing_to_notice(kernel_library: Path, lanes: str) -> None:
    assert not any(noticed(kernel_library, lanes, check) for checks in CHECKS.values() for check in checks)


@pytest.fixture(scope="module")
def without(kernel_library: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    """By barrier, a library that lacks it; what else it needs was compiled for `kernel_library`."""
    folders = {barrier: tmp_path_factory.mktemp("barrier") for barrier in BARRIERS}
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(folders, pool.map(build_without, folders, folders.values()), strict=True))


def build_without(removed: tuple[str, int], folder: Path) -> Path:
    name, index = removed
    text = (KERNELS / name).read_text()
    barrier = list(BARRIER.finditer(text))[index]
    (folder / name).write_text(text[: barrier.start()] + text[barrier.end() :])
    sources = []
    for path in sorted(KERNELS.glob("*.metal")):
        affected = path.name == name or f'"{name}"' in path.read_text()
        if affected and path.name != name:
            (folder / path.name).write_text(path.read_text())
        sources.append(folder / path.name if affected else path)
    return build(sources)


@pytest.mark.parametrize(("name", "index"), BARRIERS)
def test_a_missing_barrier_is_noticed(without: dict[tuple[str, int], Path], name: str, index: int) -> None:
    library = without[name, index]
    assert any(noticed(library, lanes, check) for lanes in Device.LANES for check in CHECKS[name])


def noticed(library: Path, lanes: str, check: Check) -> bool:
    with Device(library, lanes) as device:
        try:
            check(device, np.random.default_rng(1))
        except (AssertionError, DeviceError):
            return True
    return False

"""One build of the kernels over the emulated device for all tests."""

import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.metal.emulated import COMPILER, KERNELS, Device, build


@pytest.fixture(scope="session")
def kernel_library() -> Path:
    if not shutil.which(COMPILER) or platform.system() != "Linux":
        pytest.skip("the emulated Metal device needs Linux and a C++ compiler: apt-get install g++")
    return build(sorted(KERNELS.glob("*.metal")))


@pytest.fixture(params=[(lanes, threads) for lanes in Device.LANES for threads in (1024, 512, 256)], ids=str)
def device(kernel_library: Path, request: pytest.FixtureRequest) -> Iterator[Device]:
    """In three orders of threads and with three limits of threads per threadgroup."""
    with Device(kernel_library, *request.param) as made:
        yield made


@pytest.fixture
def plain_device(kernel_library: Path) -> Iterator[Device]:
    """For what does not depend on order or limits."""
    with Device(kernel_library) as made:
        yield made

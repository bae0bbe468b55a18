"""One build of the kernels over the emulated device for all tests."""

import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from gpt_oss.demo import demo_checkpoint
from gpt_oss.metal.converter import convert
from tests.metal.emulated import COMPILER, KERNELS, Device, build
from tests.metal.extension import load_extension


@pytest.fixture(scope="session")
def kernel_library() -> Path:
    """Built with the flags of the environment variable GPTOSS_METAL_TEST_FLAGS too; see test_sanitizers.py."""
    if not shutil.which(COMPILER) or platform.system() != "Linux":
        pytest.skip("the emulated Metal device needs Linux and a C++ compiler: apt-get install g++")
    return build(sorted(KERNELS.glob("*.metal")), os.environ.get("GPTOSS_METAL_TEST_FLAGS", "").split())


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


@pytest.fixture(scope="session")
def extension(kernel_library: Path) -> ModuleType:
    """`gpt_oss.metal._metal`, built over the emulated device; after it `gpt_oss.metal` can be used as installed."""
    return load_extension(kernel_library)


@pytest.fixture(scope="session")
def demo_model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded demo model, converted."""
    return convert(demo_checkpoint(), tmp_path_factory.mktemp("metal") / "demo.bin")

"""Kernels run in Triton's interpreter where there is no GPU; the variable must be set before they are imported."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

INTERPRETED = not torch.cuda.is_available()
if INTERPRETED:
    os.environ["TRITON_INTERPRET"] = "1"

import triton.language as tl  # noqa: E402
from triton.runtime import interpreter  # noqa: E402


def _call_device_function(self: Any, *args: Any, **kwargs: Any) -> Any:
    """`InterpretedFunction.__call__` without its search through triton.language on every call (ten times faster)."""
    if tl.core.is_builtin(tl.load) or tl.core.is_builtin(tl.core.load):
        interpreter._patch_lang(self.fn)
    return self.rewrite()(*args, **kwargs)


_find_np_dtype = interpreter._get_np_dtype
_np_dtypes: dict[str, Any] = {}


def _get_np_dtype(dtype: Any) -> Any:
    """The interpreter's own, which builds its table anew on every call."""
    name = dtype.scalar.name
    if name not in _np_dtypes:
        _np_dtypes[name] = _find_np_dtype(dtype)
    return _np_dtypes[name]


if INTERPRETED:
    interpreter.InterpretedFunction.__call__ = _call_device_function
    interpreter._get_np_dtype = _get_np_dtype


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With a card every test of this folder that has a device is one for it: `pytest -m gpu` runs them all."""
    for item in items:
        if not INTERPRETED and Path(__file__).parent in item.path.parents and "device" in item.fixturenames:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(params=[torch.float32] if INTERPRETED else [torch.float32, torch.bfloat16], ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """Activations: on a card also bf16, whose kernels are others (variants.py)."""
    return request.param


@pytest.fixture
def device() -> torch.device:
    """Where kernels run in this session."""
    return torch.device("cpu" if INTERPRETED else "cuda")


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """`torch.empty` gives NaN, so that what a kernel forgets to write is seen."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def generator(request: pytest.FixtureRequest) -> torch.Generator:
    """Fresh random numbers on every run; the seed is printed when a test fails."""
    seed = int.from_bytes(os.urandom(4))
    print("seed", seed)
    return torch.Generator().manual_seed(seed)

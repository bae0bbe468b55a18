"""Kernels run in Triton's interpreter where there is no GPU; the variable must be set before they are imported."""

import inspect
import os
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
    modules = [value for value in self.fn.__globals__.values() if inspect.ismodule(value) and value in (tl, tl.core)]
    if any(tl.core.is_builtin(module.load) for module in modules):
        interpreter._patch_lang(self.fn)
    return self.rewrite()(*args, **kwargs)


if INTERPRETED:
    interpreter.InterpretedFunction.__call__ = _call_device_function


@pytest.fixture
def device() -> torch.device:
    """Where kernels run in this session."""
    return torch.device("cpu" if INTERPRETED else "cuda")


@pytest.fixture
def generator(request: pytest.FixtureRequest) -> torch.Generator:
    """Fresh random numbers on every run; the seed is printed when a test fails."""
    seed = int.from_bytes(os.urandom(4))
    print("seed", seed)
    return torch.Generator().manual_seed(seed)

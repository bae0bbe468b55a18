"""The Metal backend: a model file mapped into memory, kernels on an Apple GPU, a C core between them.

`Model`, `Context` and `Tokenizer` come from the compiled extension `gpt_oss.metal._metal`; `device()` says what they
run on. On Linux that is an emulation of Metal's execution model on the CPU, which proves the kernels and the C core
and is far too slow for real models. Importing this package needs no extension.

Verified against an emulated Metal device; never run on Apple hardware.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from gpt_oss.errors import BackendUnavailable

if TYPE_CHECKING:
    from gpt_oss.metal._metal import Context, Model, Tokenizer

__all__ = ["Context", "Model", "Tokenizer", "device"]

BUILD_COMMAND = 'GPTOSS_BUILD_METAL=1 pip install -e ".[metal]"'
VERIFICATION = "verified against an emulated Metal device, never run on Apple hardware"


_NAME = "gpt_oss.metal._metal"


def device() -> str:
    """The device that models run on, and how far this backend has been verified.

    Raises BackendUnavailable if the extension is not built and BackendError if there is no usable device.
    """
    name, _ = _extension().describe_device()
    return f"{name}; {VERIFICATION}"


def _extension() -> Any:
    try:
        from gpt_oss.metal import _metal
    except ImportError as error:
        # A file that is there may still be of another Python, or made from other sources.
        state = "is not built" if find_spec(_NAME) is None else f"cannot be loaded ({error})"
        raise BackendUnavailable(f"the Metal backend {state}; run: {BUILD_COMMAND}") from error
    return _metal


def __getattr__(name: str) -> Any:
    if name in ("Context", "Model", "Tokenizer"):
        return getattr(_extension(), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""A card that is not there: tensors that say they are on "cuda" and are computed on the CPU.

Inside `pretended_card` every operator refuses what CUDA would: operands on different devices (but for CPU numbers and
CPU indices). Values are real, so whole programs run. Graphs record what `out=` operators and Triton's interpreted
kernels would do, and refuse operators that allocate.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

aten = torch.ops.aten
# These take operands from wherever they are.
ANY_DEVICE = {aten.copy_.default, aten._to_copy.default, aten._has_compatible_shallow_copy_type.default}
CPU_INDICES = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}


NUMBERS = {torch.Tensor.__int__, torch.Tensor.__float__, torch.Tensor.__bool__, torch.Tensor.__index__}
OPERATORS = {torch.Tensor.copy_: aten.copy_, torch.Tensor.__invert__: aten.bitwise_not}
CASTS = {torch.Tensor.float: torch.float32, torch.Tensor.double: torch.float64, torch.Tensor.bfloat16: torch.bfloat16,
         torch.Tensor.long: torch.int64, torch.Tensor.int: torch.int32, torch.Tensor.bool: torch.bool}  # fmt: skip


class PretendTensor(torch.Tensor):
    """`inner`, a CPU tensor, under another device's name."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor, device: torch.device) -> "PretendTensor":
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=device,
        )  # fmt: skip
        tensor.inner = inner
        return tensor

    def tolist(self) -> Any:
        """As torch's, which refuses subclasses."""
        return self.inner.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """As torch's for a device whose memory NumPy cannot see."""
        raise TypeError(f"can't convert {self.device} device type tensor to numpy")

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Indexing and numbers: torch's own ask a driver to switch cards before anything of ours is called."""
        with torch._C.DisableTorchFunctionSubclass():
            if func in NUMBERS:
                return func(args[0].inner)
            if func not in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
                return func(*args, **(kwargs or {}))
            tensor, key, *value = args
            keys = [leaf for leaf in tree_flatten(key)[0] if isinstance(leaf, torch.Tensor)]
            # Indices may lie on the CPU; a value may too where no index is a tensor, for then it is copied.
            elsewhere = [index for index in keys if index.device.type != "cpu"] + (value if keys else [])
            for operand in elsewhere:
                if isinstance(operand, torch.Tensor) and operand.dim() and operand.device != tensor.device:
                    raise RuntimeError(f"indexing a tensor on {tensor.device} with one on {operand.device}")
            inner = func(tensor.inner, *tree_map(_inner, (key, *value)))
            return inner if inner is None else PretendTensor(inner, tensor.device)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} of a tensor of a pretended device outside its context")


def _inner(leaf: Any) -> Any:
    return leaf.inner if isinstance(leaf, PretendTensor) else leaf


class _Entries(TorchFunctionMode):
    """What like indexing would ask for a driver: `torch.tensor(..., device=...)`, and moves, casts and copies."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return self._to(func(*args, **kwargs), torch.device(device), None)
        if func is torch.Tensor.to and not isinstance(args[1] if len(args) > 1 else None, torch.Tensor):
            device, dtype, *_ = torch._C._nn._parse_to(*args[1:], **{k: v for k, v in kwargs.items() if k != "copy"})
            return self._to(args[0], device, dtype)
        if func is torch.empty:
            kwargs.pop("pin_memory", None)  # which would ask for a driver as well
        if func in CASTS:
            return self._to(args[0], None, CASTS[func])
        if func is torch.Tensor.cpu:
            return self._to(args[0], torch.device("cpu"), None)
        if func is torch.Tensor.contiguous:
            return args[0] if args[0].is_contiguous() else aten.clone(args[0], memory_format=torch.contiguous_format)
        if func in OPERATORS:
            return OPERATORS[func](*args, **kwargs)
        return func(*args, **kwargs)

    def _to(self, tensor: torch.Tensor, device: torch.device | None, dtype: torch.dtype | None) -> torch.Tensor:
        device, dtype = device or tensor.device, dtype or tensor.dtype
        if device.type == tensor.device.type and dtype == tensor.dtype:
            return tensor
        return aten._to_copy(tensor, device=device, dtype=dtype)


class PretendDevice(TorchDispatchMode):
    """The context in which card 0 exists. `recorded` takes what runs while a graph is captured."""

    device = torch.device("cuda", 0)
    recorded: list[Callable[[], Any]] | None = None

    def __init__(self) -> None:
        super().__init__()
        self._entries = _Entries()

    def __enter__(self) -> "PretendDevice":
        self._entries.__enter__()
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self._entries.__exit__(*exception)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        kwargs.pop("pin_memory", None)
        operands = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
        self._check(func, args, operands)
        asked = kwargs.get("device")
        there = any(isinstance(operand, PretendTensor) for operand in operands)
        if asked is not None:
            there = torch.device(asked).type == self.device.type
            kwargs["device"] = "cpu" if there else asked
        if func is aten.copy_.default:
            there = isinstance(args[0], PretendTensor)
        wrappers = {id(operand.inner): operand for operand in operands if isinstance(operand, PretendTensor)}

        def wrap(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor) or not there:
                return leaf
            return wrappers[id(leaf)] if id(leaf) in wrappers else PretendTensor(leaf, self.device)

        if func is aten._to_copy.default and asked is not None and there != isinstance(args[0], PretendTensor):
            kwargs.pop("non_blocking", None)
        inner_args, inner_kwargs = tree_map(_inner, (args, kwargs))
        if PretendDevice.recorded is not None:
            if not isinstance(kwargs.get("out"), PretendTensor):
                raise RuntimeError(f"{func} while a graph is captured")
            PretendDevice.recorded.append(lambda: func(*inner_args, **inner_kwargs))
            return kwargs["out"]
        return tree_map(wrap, func(*inner_args, **inner_kwargs))

    def _check(self, func: Any, args: Any, operands: list[torch.Tensor]) -> None:
        if func in ANY_DEVICE:
            return
        if func in CPU_INDICES:
            indices = {id(index) for index in args[1] if index is not None}
            operands = [operand for operand in operands if id(operand) not in indices or operand.device == self.device]
        devices = {operand.device for operand in operands if operand.dim()}
        if len(devices) > 1:
            shapes = [(tuple(operand.shape), str(operand.device)) for operand in operands]
            raise RuntimeError(f"{func}: operands on different devices: {shapes}")


class _Graph:
    """What `torch.cuda.CUDAGraph` is there."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], Any]] = []

    def replay(self) -> None:
        """Run what was recorded once more."""
        for call in self.calls:
            call()


@contextmanager
def _capture(graph: _Graph, *_: Any, **__: Any) -> Iterator[None]:
    PretendDevice.recorded = graph.calls
    try:
        yield
    finally:
        PretendDevice.recorded = None


class _Current:
    """`torch.cuda.device`, which knows in which threads it is entered."""

    entered = threading.local()

    def __init__(self, device: Any):
        assert torch.device(device).type == "cuda"

    def __enter__(self) -> None:
        self.entered.depth = getattr(self.entered, "depth", 0) + 1

    def __exit__(self, *_: object) -> None:
        self.entered.depth -= 1


def _checked_launches(monkeypatch: Any) -> None:
    """Interpreted kernels take pretended tensors where they are launched on their card, and work on them in place."""
    from triton.runtime.interpreter import GridExecutor

    launch = GridExecutor.__call__

    def operands(self: Any, args: Any, kwargs: Any) -> Any:
        for value in [*args, *kwargs.values()]:
            if isinstance(value, torch.Tensor) and value.device.type != "cuda":
                raise ValueError(f"{self.fn.__name__}: pointer argument cannot be accessed from Triton (cpu tensor?)")
        return [_inner(value) for value in args], {name: _inner(value) for name, value in kwargs.items()}

    def run(self: Any, *args: Any, **kwargs: Any) -> None:
        if not getattr(_Current.entered, "depth", 0):
            raise RuntimeError(f"{self.fn.__name__} is launched on whatever card is current")
        if PretendDevice.recorded is not None:
            PretendDevice.recorded.append(lambda: launch(self, *args, **kwargs))
        else:
            launch(self, *args, **kwargs)

    monkeypatch.setattr(GridExecutor, "_init_args_hst", operands)
    monkeypatch.setattr(GridExecutor, "_restore_args_dev", lambda *_: None)
    monkeypatch.setattr(GridExecutor, "__call__", run)


@contextmanager
def pretended_card(monkeypatch: Any, *, triton: bool = False) -> Iterator[None]:
    """torch on a machine with one card, in this thread and in those started meanwhile; with `triton`, kernels too."""
    properties = SimpleNamespace(multi_processor_count=8)
    event = SimpleNamespace(record=lambda: None, synchronize=lambda: None)
    for name, value in {
        "is_available": lambda: True, "device_count": lambda: 1, "current_device": lambda: 0,
        "mem_get_info": lambda *_: (2**34, 2**34), "_lazy_init": lambda: None, "empty_cache": lambda: None,
        "synchronize": lambda *_: None, "get_device_properties": lambda *_: properties, "Event": lambda: event,
        "Stream": lambda *_: None, "graph_pool_handle": lambda: None, "CUDAGraph": _Graph, "graph": _capture,
        "device": _Current,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    if triton:
        _checked_launches(monkeypatch)
    run = threading.Thread.run

    def run_there(thread: threading.Thread) -> None:
        with PretendDevice(), torch.inference_mode():
            run(thread)

    monkeypatch.setattr(threading.Thread, "run", run_there)
    # Weights are made in inference mode too: tensors of a subclass made inside and outside of it do not mix.
    with PretendDevice(), torch.inference_mode():
        yield

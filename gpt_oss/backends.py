"""From a backend's name to a loaded `TokenGenerator`, and the options by which commands ask for one.

Importing this module imports no backend: `--help` answers at once, and a backend that is not installed is found
missing when it is asked for. Under `torchrun` rank 0 gets the generator; the other ranks serve it inside
`load_generator` until it closes, and get None.
"""

import argparse
import importlib
import importlib.util
import logging
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt_oss.command_line import positive
from gpt_oss.errors import BackendUnavailable, MissingExtra, RequestError
from gpt_oss.token_generator import TokenGenerator
from gpt_oss.torchrun import world_size

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

WEIGHTS = ("auto", "bf16", "mxfp4")
DTYPES = {"bfloat16": "bfloat16", "bf16": "bfloat16", "float32": "float32", "fp32": "float32"}


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What to load and how. None leaves the choice to the backend."""

    checkpoint: str | Path | None = None
    context_length: int | None = None
    slots: int = 1
    device: str | None = None
    dtype: str | None = None
    weights: str | None = None
    tensor_parallel_size: int | None = None

    def refuse(self, backend: str, *names: str) -> None:
        """RequestError if one of these options was given to a backend that cannot honour it."""
        for name in names:
            # One device is what every backend has.
            if getattr(self, name) not in (None, 1):
                raise RequestError(f"the {backend} backend has no option --{name.replace('_', '-')}; leave it out")

    @property
    def folder(self) -> Path:
        """The checkpoint's folder; the embedded demo model's, unpacked, where none was asked for."""
        if self.checkpoint is not None:
            return Path(self.checkpoint)
        from gpt_oss.demo import demo_checkpoint

        return demo_checkpoint()

    @property
    def torch_dtype(self) -> "torch.dtype":
        """The dtype as torch's; bfloat16 where none was asked for."""
        import torch

        name = self.dtype or "bfloat16"
        if name not in DTYPES:
            raise RequestError(f"--dtype must be one of {', '.join(DTYPES)}, got {name!r}")
        return getattr(torch, DTYPES[name])


def _load_torch(options: LoadOptions) -> TokenGenerator | None:
    from gpt_oss.torch.backend import TokenGenerator as TorchGenerator

    _check_world(options.tensor_parallel_size)
    given: dict[str, Any] = {} if options.weights is None else {"weights": options.weights}
    generator = TorchGenerator(
        options.folder,
        options.device,
        context_length=options.context_length,
        slots=options.slots,
        dtype=options.torch_dtype,
        **given,
    )
    if generator.leads:
        return generator
    generator.follow()
    return None


def _check_world(size: int | None) -> None:
    started = world_size()
    if size is not None and size != started:
        raise RequestError(
            f"--tensor-parallel-size {size} needs {size} processes and {started} were started; start them with: "
            f"torchrun --nproc-per-node {size} -m ..."
        )


def _load_triton(options: LoadOptions) -> TokenGenerator:
    options.refuse("triton", "dtype", "weights", "tensor_parallel_size")
    return _generator_class("gpt_oss.triton.model")(
        options.folder, options.context_length, options.device, slots=options.slots
    )


def _load_metal(options: LoadOptions) -> TokenGenerator:
    options.refuse("metal", "device", "dtype", "weights", "tensor_parallel_size")
    return _generator_class("gpt_oss.metal.backend")(
        options.folder, context_length=options.context_length, slots=options.slots
    )


def _load_vllm(options: LoadOptions) -> TokenGenerator:
    options.refuse("vllm", "device", "weights")
    return _generator_class("gpt_oss.vllm.token_generator")(
        options.folder,
        tensor_parallel_size=options.tensor_parallel_size or 1,
        context_length=options.context_length,
        slots=options.slots,
        dtype=options.torch_dtype,
    )


def _load_transformers(options: LoadOptions) -> TokenGenerator:
    options.refuse("transformers", "weights", "tensor_parallel_size")
    return _generator_class("gpt_oss.engines.transformers")(
        options.folder,
        options.device,
        context_length=options.context_length,
        slots=options.slots,
        dtype=options.torch_dtype,
    )


def _load_ollama(options: LoadOptions) -> TokenGenerator:
    options.refuse("ollama", "device", "dtype", "weights", "tensor_parallel_size")
    # For Ollama FILE is the name of a model that its own server has.
    name = () if options.checkpoint is None else (str(options.checkpoint),)
    return _generator_class("gpt_oss.engines.ollama")(*name, context_length=options.context_length, slots=options.slots)


def _generator_class(module: str) -> Any:
    return importlib.import_module(module).TokenGenerator


LOADERS: dict[str, Callable[[LoadOptions], TokenGenerator | None]] = {
    "torch": _load_torch,
    "triton": _load_triton,
    "metal": _load_metal,
    "vllm": _load_vllm,
    "transformers": _load_transformers,
    "ollama": _load_ollama,
}
"""Every backend by its name on the command line."""

# Optional dependencies by their top-level module: what installs them.
_EXTRAS = {"numpy": "torch", "psutil": "torch", "torch": "torch", "tqdm": "torch", "triton": "triton"}
_NO_EXTRA = ("transformers", "vllm")


def load_generator(
    backend: str | None = None,
    checkpoint: str | Path | None = None,
    *,
    context_length: int | None = None,
    slots: int = 1,
    device: str | None = None,
    dtype: str | None = None,
    weights: str | None = None,
    tensor_parallel_size: int | None = None,
) -> TokenGenerator | None:
    """Load a model; None on the follower ranks of `torchrun`, once rank 0 has closed it.

    backend: a name of LOADERS, None for the machine's best. checkpoint: a folder, None for the embedded demo model.
    context_length: most tokens of prompt and answer together. slots: requests that run at the same time.
    device, dtype, weights (one of WEIGHTS), tensor_parallel_size: None leaves them to the backend.
    Raises RequestError, BackendError, CheckpointError or MissingExtra, with nothing left loaded.
    """
    if backend is not None and backend not in LOADERS:
        raise RequestError(f"the backend must be one of {', '.join(LOADERS)}, got {backend!r}")
    for field, value in (("context length", context_length), ("slots", slots), ("size", tensor_parallel_size)):
        if value is not None and value < 1:
            raise RequestError(f"the {field} must be at least 1, got {value}")
    try:
        name = backend or default_backend(device)
        if name != "torch" and world_size() > 1:
            raise RequestError(
                f"torchrun has started {world_size()} processes and the {name} backend takes one; "
                "choose --backend torch or start it without torchrun"
            )
        options = LoadOptions(
            checkpoint=checkpoint,
            context_length=context_length,
            slots=slots,
            device=device,
            dtype=dtype,
            weights=weights,
            tensor_parallel_size=tensor_parallel_size,
        )
        logger.info("backend %s (%s)", name, "asked for" if backend else "the best for this machine")
        return LOADERS[name](options)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing in _EXTRAS:
            raise MissingExtra(missing, _EXTRAS[missing]) from error
        if missing in _NO_EXTRA:
            raise BackendUnavailable(f"{missing} is not installed; run: pip install {missing}") from error
        if missing == "gpt_oss":
            raise BackendUnavailable(
                f"the {name} backend is not part of this installation; choose another of {', '.join(LOADERS)}"
            ) from error
        raise


def default_backend(device: str | None = None) -> str:
    """The machine's best: triton with CUDA, metal where built, torch elsewhere, on another device or on several."""
    if world_size() > 1:
        return "torch"
    apple_silicon = (platform.system(), platform.machine()) == ("Darwin", "arm64")
    if device is None and apple_silicon and _is_present("gpt_oss.metal._metal"):
        return "metal"
    if (device is None or device.startswith("cuda")) and _is_present("gpt_oss.triton.model") and _is_present("triton"):
        import torch

        if torch.cuda.is_available() and torch.version.hip is None:
            return "triton"
    return "torch"


def _is_present(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it is missing
        return False


def add_backend_arguments(
    parser: argparse.ArgumentParser,
    *,
    context_length: int | None,
    backend_flags: Sequence[str] = ("--backend",),
    context_flags: Sequence[str] = ("--context-length",),
    checkpoint_flag: str | None = None,
) -> None:
    """Add the options that `load_from_arguments` reads; the flags differ from command to command, as users know them.

    checkpoint_flag: None makes the checkpoint the positional FILE. context_length: the command's default.
    """
    group = parser.add_argument_group("model")
    checkpoint: dict[str, Any] = {
        "metavar": "FILE",
        "help": "folder of a checkpoint (default: the embedded demo model)",
    }
    if checkpoint_flag is None:
        group.add_argument("checkpoint", nargs="?", **checkpoint)
    else:
        group.add_argument(checkpoint_flag, dest="checkpoint", **checkpoint)
    group.add_argument(
        *backend_flags,
        dest="backend",
        metavar="NAME",
        choices=tuple(LOADERS),
        help=f"{', '.join(LOADERS)} (default: triton with CUDA, metal where it is built, else torch)",
    )
    group.add_argument(
        *context_flags,
        dest="context_length",
        metavar="N",
        type=positive,
        default=context_length,
        help=f"most tokens of prompt and answer together (default: {context_length or 'the most there can be'})",
    )
    group.add_argument("--device", metavar="NAME", help="such as cpu, cuda or cuda:1 (default: the machine's best)")
    group.add_argument("--dtype", metavar="NAME", choices=tuple(DTYPES), help="bfloat16 (default) or float32")
    group.add_argument(
        "--weights",
        metavar="FORM",
        choices=WEIGHTS,
        help="experts in a CPU's memory: mxfp4 (packed as in the checkpoint), bf16 or auto (what fits; default)",
    )
    group.add_argument(
        "--tensor-parallel-size",
        metavar="N",
        type=positive,
        help="spread the model over N devices; with torch, start N processes by torchrun",
    )


def load_from_arguments(arguments: argparse.Namespace, *, slots: int = 1) -> TokenGenerator | None:
    """Load what the options of `add_backend_arguments` ask for; as `load_generator`."""
    return load_generator(
        arguments.backend,
        arguments.checkpoint,
        context_length=arguments.context_length,
        slots=slots,
        device=arguments.device,
        dtype=arguments.dtype,
        weights=arguments.weights,
        tensor_parallel_size=arguments.tensor_parallel_size,
    )

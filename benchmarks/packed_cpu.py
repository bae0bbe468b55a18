"""Packed experts on a CPU beside llama.cpp: `python -m benchmarks.packed_cpu` (method: benchmarks/README.md).

True shape, the first layers of gpt-oss-20b, random weights in MXFP4 and BF16, read from the memory map. A prefill of
512 tokens and decoding after it take turns with reading a gigabyte, which sets the bound, and with llama.cpp on a GGUF
file of the same weights, if there is an environment that has llama-cpp-python (`--llama-python`, or `.venv-llama`).
Writes `results/packed_cpu.json` and a picture of it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.cpu import decode_by_context
from benchmarks.gguf import bytes_per_token, gguf_tensors, write_gguf
from benchmarks.measure import RESULTS, interleaved, record, save
from gpt_oss import native
from gpt_oss.checkpoint import Checkpoint
from gpt_oss.synthetic import MODELS, write_synthetic
from gpt_oss.torch.model import Transformer

PREFILL = 512
DECODE = 8
READ = 1 << 30
DENSE = ("q8_0", "bf16")
LLAMA = Path(__file__).parents[1] / ".venv-llama" / "bin" / "python"


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.packed_cpu", description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=4, help="of the 24 (default 4)")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--llama-python",
        metavar="FILE",
        default=str(LLAMA) if LLAMA.exists() else None,
        help="interpreter of an environment with llama-cpp-python (default: .venv-llama's, if there is one)",
    )
    parser.add_argument("--dense", choices=DENSE, default="q8_0", help="llama.cpp's dense matrices (default q8_0)")
    parser.add_argument("--scratch", metavar="DIR", help="keeps checkpoint and GGUF file (7 GB at 4 layers)")
    options = parser.parse_args()
    with _folder(options.scratch) as folder:
        path = _checkpoint(folder, options.layers)
        gguf = _gguf(path, folder / f"{options.layers}-{options.dense}.gguf", options.dense)
        result = measure(path, gguf if options.llama_python else None, options)
    print(json.dumps(result, indent=2))
    print(f"written to {save('packed_cpu', result)} and {draw(result)}", file=sys.stderr)
    return 0


def measure(path: Path, gguf: Path | None, options: argparse.Namespace) -> dict[str, object]:
    """Run everything in turn; see the module."""
    model = Transformer.from_checkpoint(path, "cpu", weights="mxfp4")
    cache = model.new_cache(1, 2 * PREFILL)
    prompt = torch.randint(0, model.config.vocab_size, (PREFILL,), generator=torch.Generator().manual_seed(0))
    data = torch.ones(READ // 4)

    def prefill() -> None:
        cache.lengths = [0]
        model(prompt, cache, last_only=True)

    def decode() -> None:
        cache.lengths = [PREFILL]
        for _ in range(DECODE):
            model(prompt[:1], cache, last_only=True)

    read: dict[str, Callable[[], object]] = {"read": data.sum}
    prefills, decodes = {**read, "gpt_oss": prefill}, {**read, "gpt_oss": decode}
    library = native.load()
    machine = record() | {"kernels": "plain torch" if library is None else library.isa}
    result: dict[str, object] = {"machine": machine, "layers": options.layers}
    with torch.inference_mode(), Checkpoint(path) as checkpoint, _llama(options.llama_python, gguf) as ask:
        read_bytes = {"gpt_oss": bytes_per_token(list(gguf_tensors(checkpoint, "bf16")), model.config)}
        if ask is not None:
            read_bytes["llama.cpp"] = bytes_per_token(list(gguf_tensors(checkpoint, options.dense)), model.config)
            ours, theirs = model(prompt, last_only=True), torch.tensor(ask({"logits": prompt.tolist()})["logits"])
            result["llama.cpp"] = {
                "dense": options.dense,
                "difference_of_logits": float((ours - theirs).norm() / ours.norm()),
            }
            prefills["llama.cpp"] = lambda: ask({"prefill": prompt.tolist()})
            decodes["llama.cpp"] = lambda: ask({"decode": int(prompt[0]), "after": PREFILL, "count": DECODE})
        times = {"prefill": interleaved(prefills, options.repeats), "decode": interleaved(decodes, options.repeats)}
    result["times"] = times
    result["decode_by_context_s"] = decode_by_context(model, options.repeats)
    result["prefill_tokens_per_s"] = {name: PREFILL / times["prefill"][name]["median_s"] for name in read_bytes}
    bandwidth = READ / times["decode"]["read"]["median_s"]
    result["read_bandwidth_gb_s"] = {kind: READ / entry["read"]["median_s"] / 1e9 for kind, entry in times.items()}
    per_token = {name: times["decode"][name]["median_s"] / DECODE for name in read_bytes}
    result["decode"] = {
        name: {
            "tokens_per_s": 1 / taken,
            "bytes_per_token": read_bytes[name],
            "gb_per_s": read_bytes[name] / taken / 1e9,
            "share_of_read_bandwidth": read_bytes[name] / taken / bandwidth,
        }
        for name, taken in per_token.items()
    }
    return result


Ask = Callable[[dict[str, object]], dict[str, object]]


@contextmanager
def _llama(python: str | None, gguf: Path | None) -> Iterator[Ask | None]:
    """A running `peer_llama.py` as a function from request to answer; None without an interpreter for it."""
    if python is None:
        yield None
        return
    command = [python, str(Path(__file__).with_name("peer_llama.py")), str(gguf), str(torch.get_num_threads())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        requests, answers = process.stdin, process.stdout

        def receive() -> dict[str, object]:
            line = answers.readline()
            if not line:
                raise RuntimeError("llama.cpp ended; its messages are above")
            return dict(json.loads(line))

        def ask(request: dict[str, object]) -> dict[str, object]:
            requests.write(json.dumps(request) + "\n")
            requests.flush()
            return receive()

        receive()  # the greeting: the model is loaded
        yield ask
        requests.close()


@contextmanager
def _folder(scratch: str | None) -> Iterator[Path]:
    if scratch:
        Path(scratch).mkdir(parents=True, exist_ok=True)
        yield Path(scratch)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)


def _checkpoint(folder: Path, layers: int) -> Path:
    path = folder / f"20b-{layers}-layers"
    if not path.exists():
        write_synthetic(path, replace(MODELS["20b"], num_hidden_layers=layers), show_progress=True)
    return path


def _gguf(path: Path, target: Path, dense: str) -> Path:
    if not target.exists():
        unfinished = target.with_suffix(".part")
        with Checkpoint(path) as checkpoint:
            write_gguf(checkpoint, unfinished, dense)
        unfinished.rename(target)
    return target


def draw(result: dict[str, object]) -> Path:
    """Bars of both measurements as `results/packed_cpu.png`."""
    from matplotlib import pyplot

    prefill, decode = result["prefill_tokens_per_s"], result["decode"]
    assert isinstance(prefill, dict) and isinstance(decode, dict)
    bars = {
        "prefill of 512, tokens/s": prefill,
        "decode, tokens/s": {name: entry["tokens_per_s"] for name, entry in decode.items()},
        "decode, % of read bandwidth": {name: 100 * entry["share_of_read_bandwidth"] for name, entry in decode.items()},
    }
    figure, axes = pyplot.subplots(1, len(bars), figsize=(9, 3), layout="constrained")
    for axis, (title, values) in zip(axes, bars.items(), strict=True):
        axis.bar_label(
            axis.bar(list(values), list(values.values()), color=["#2a6f97", "#bcbcbc"][: len(values)]), fmt="%.3g"
        )
        axis.set_title(title, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    machine = result["machine"]
    assert isinstance(machine, dict)
    figure.suptitle(
        f"gpt-oss-20b, {result['layers']} of 24 layers; {machine['processor']}, {machine['threads']} threads, "
        f"{machine['kernels']}",
        fontsize=10,
    )
    path = RESULTS / "packed_cpu.png"
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return path


if __name__ == "__main__":
    raise SystemExit(main())

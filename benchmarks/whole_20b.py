"""All of gpt-oss-20b on this CPU, packed: `python -m benchmarks.whole_20b [CHECKPOINT]`.

Starts the command a user types, on a synthetic checkpoint of the true shape (13.8 GB; written first, unless one is
given), and watches the process from outside: seconds to the first token from a warm page cache, tokens per second,
memory in the mapped file and beside it. Then it times prefills of 512 tokens, in turn with products of matrices in
fp32 by torch: the speed of arithmetic that this machine gives. Writes `results/whole_20b.json`.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

from benchmarks.measure import interleaved, read_bandwidth, record, save
from gpt_oss.config import ModelConfig
from gpt_oss.synthetic import MODELS, write_synthetic
from gpt_oss.torch.model import Transformer

TOKENS = 64
PREFILL = 512
_SAMPLES_PER_SECOND = 50


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.whole_20b", description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", nargs="?", type=Path, help="written to --scratch where it is not given")
    parser.add_argument("--scratch", metavar="DIR", help="a place for 13.8 GB")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        checkpoint = options.checkpoint or write_synthetic(Path(scratch) / "20b", MODELS["20b"], show_progress=True)
        result = measure(checkpoint) | {"prefill": prefill(checkpoint)}
    print(json.dumps(result, indent=2))
    print(f"written to {save('whole_20b', result)}", file=sys.stderr)
    return 0


def measure(checkpoint: Path, tokens: int = TOKENS) -> dict[str, object]:
    """Generate `tokens` tokens in a process of its own. Bytes are decimal; memory is the highest seen."""
    files = list(checkpoint.glob("*.safetensors"))
    for file in files:
        _read(file)
    command = [sys.executable, "-m", "gpt_oss.generate", "--weights", "mxfp4", "--logprobs", "--limit", str(tokens)]
    before = read_bandwidth()
    start = time.perf_counter()
    process = subprocess.Popen(
        [*command, str(checkpoint)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    peaks: dict[str, int] = {}
    watcher = threading.Thread(target=_watch, args=(process, peaks))
    watcher.start()
    assert process.stdout is not None and process.stderr is not None
    times = [time.perf_counter() - start for _ in process.stdout]
    messages = process.stderr.read()
    process.wait()
    watcher.join()
    if process.returncode:
        raise RuntimeError(f"generation failed: {messages[-2000:]}")
    return {
        "machine": record(),
        "checkpoint_bytes": sum(file.stat().st_size for file in files),
        "tokens": len(times),
        "start_to_first_token_s": times[0],
        "tokens_per_s": (len(times) - 1) / (times[-1] - times[0]),
        "peak_resident_bytes": peaks["VmHWM"],
        "peak_resident_beyond_files_bytes": peaks["RssAnon"] + peaks["RssShmem"],
        "read_bandwidth_gb_s": [before, read_bandwidth()],
    }


def prefill(checkpoint: Path, tokens: int = PREFILL, repeats: int = 3) -> dict[str, object]:
    """A prompt of random tokens through all layers, in this process: seconds, and tokens per second of the median.

    `multiply_adds_per_s` counts the model's matrix products, without attention's; torch's product in fp32 has as many
    rows of activations and the size of an expert's first matrix, and is repeated for about a second.
    """
    model = Transformer.from_checkpoint(checkpoint, "cpu", weights="mxfp4")
    config = model.config
    prompt = torch.randint(0, config.vocab_size, (tokens,), generator=torch.Generator().manual_seed(0))
    cache = model.new_cache(1, tokens)
    x, w = torch.randn(tokens, config.hidden_size), torch.randn(config.hidden_size, 2 * config.intermediate_size)
    products = 10

    def run() -> None:
        cache.lengths = [0]
        model(prompt, cache, last_only=True)

    def multiply() -> None:
        for _ in range(products):
            x @ w

    with torch.inference_mode():
        times = interleaved({"prefill": run, "multiply": multiply}, repeats)
    median = times["prefill"]["median_s"]
    rates = {
        "prefill": _multiply_adds(config, tokens) / median,
        "torch_fp32": products * x.numel() * w.shape[1] / times["multiply"]["median_s"],
    }
    return {"tokens": tokens, **times["prefill"], "tokens_per_s": tokens / median, "multiply_adds_per_s": rates}


def _multiply_adds(config: ModelConfig, tokens: int) -> int:
    """Of all products with weights in a prefill that asks for the last logits only."""
    attention = config.qkv_rows + config.num_attention_heads * config.head_dim
    experts = config.num_experts + 3 * config.experts_per_token * config.intermediate_size
    layers = tokens * config.num_hidden_layers * (attention + experts)
    return config.hidden_size * (layers + config.vocab_size)


def _read(file: Path) -> None:
    """Fill the page cache."""
    with file.open("rb", buffering=0) as data:
        while data.read(1 << 24):
            pass


def _watch(process: subprocess.Popen[str], peaks: dict[str, int]) -> None:
    """The highest value of each line of the process's memory report, in bytes."""
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        for name, kilobytes in re.findall(r"^(VmHWM|RssAnon|RssShmem):\s+(\d+) kB$", status.read_text(), re.MULTILINE):
            peaks[name] = max(peaks.get(name, 0), int(kilobytes) * 1024)
        time.sleep(1 / _SAMPLES_PER_SECOND)


if __name__ == "__main__":
    raise SystemExit(main())

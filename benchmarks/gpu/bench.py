"""The GPU benchmark of spec/performance.md 8.1, in stages that each fit in ten minutes.

    python -m benchmarks.gpu.bench --stage card|kernels|20b|120b [--out FILE]

card: the denominators (copy bandwidth, matrix rate, cost of a graph node). kernels: the stages of a decode step, each
alone in a graph that walks over layers. 20b, 120b: the model end to end on random weights of true shapes.
NOT YET RUN ON A CARD: written for the first session that has one.
"""

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton

from benchmarks.gpu.random_weights import MODELS, RandomWeights
from gpt_oss.triton.backend import SampledRow, TritonBackend
from gpt_oss.triton.model import Transformer
from gpt_oss.triton.variants import mma_variant


def milliseconds(run: Callable[[], Any], repeats: int = 20, warmup: int = 3) -> dict[str, float]:
    """Median, minimum and maximum of device events."""
    for _ in range(warmup):
        run()
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return {"median": statistics.median(times), "min": min(times), "max": max(times)}


def graph_of(run: Callable[[], Any]) -> Callable[[], Any]:
    """`run`, recorded; it is called once before, to compile."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def card() -> dict[str, Any]:
    """Copy bandwidth in bytes/s (read and written), BF16 rate in FLOP/s on random data, microseconds per graph node."""
    source = torch.empty(2**32, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    copy = milliseconds(lambda: target.copy_(source))
    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    product = milliseconds(lambda: left @ right)
    tiny = torch.zeros(1, device="cuda")
    nodes = {n: milliseconds(graph_of(lambda n=n: [tiny.add_(1) for _ in range(n)])) for n in (100, 500)}
    return {
        "copy_bytes_per_second": 2 * 2**32 / copy["median"] * 1e3,
        "bf16_flops": 2 * 8192**3 / product["median"] * 1e3,
        "graph_node_us": (nodes[500]["median"] - nodes[100]["median"]) / 400 * 1e3,
    }


def kernels() -> dict[str, Any]:
    """Each stage over 8 layers' weights (20b widths), milliseconds and bytes of weights per second."""
    config = type(MODELS["20b"])(**MODELS["20b"].__dict__ | {"num_hidden_layers": 8})
    weights = RandomWeights(config, "cuda").model()
    result: dict[str, Any] = {}
    for batch in (1, 2, 4, 8, 16, 32):
        result |= _stages(Transformer(config, weights, mma_variant(), slots=batch, context_length=32768), batch)
        torch.cuda.empty_cache()
    return result


def _stages(model: Transformer, batch: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    weights, step = model.weights, model._decode_step(batch)
    step.slots.copy_(torch.arange(batch))
    step.tokens.random_(0, model.config.vocab_size)
    step.run()
    experts, count = int(step.item_count), len(weights.layers)
    first = weights.layers[0]
    sizes = {"qkv": first.qkv.nbytes, "out": first.out.nbytes}
    for name, packed in (("gate_up", first.mlp1), ("down", first.mlp2)):
        sizes[name] = experts * (packed.words[0].nbytes + packed.scales[0].nbytes)
    for name, size in sizes.items():
        stage = getattr(step, name)
        found = milliseconds(graph_of(lambda stage=stage: [stage(layer) for layer in weights.layers]), 50)
        result[f"{name} batch {batch}"] = found | {"bytes_per_second": count * size / found["median"] * 1e3}
    found = milliseconds(graph_of(step.unembed), 50)
    rate = weights.unembedding.nbytes / found["median"] * 1e3
    result[f"unembed batch {batch}"] = found | {"bytes_per_second": rate}
    for length in (128, 1024, 8192, 32000):
        model.cache.device_lengths.fill_(length)
        full = graph_of(lambda: [step.attention(layer, model.cache.layers[1], None) for layer in weights.layers])
        result[f"attention batch {batch} length {length}"] = milliseconds(full, 50)
    return result


def end_to_end(name: str) -> dict[str, Any]:
    """Decode and prefill rates, time to first token, memory peak; greedy, random tokens, no stop."""
    config = MODELS[name]
    weights = RandomWeights(config, "cuda").model()
    result = _one_sequence(Transformer(config, weights, mma_variant(), slots=1, context_length=131072))
    for batch in (4, 8, 32):
        torch.cuda.empty_cache()
        result |= _batch(Transformer(config, weights, mma_variant(), slots=batch, context_length=2048), batch)
    return result


def _one_sequence(model: Transformer) -> dict[str, Any]:
    backend, vocab, result = TritonBackend(model), model.config.vocab_size, {}
    for prompt in (128, 1024, 8192, 32768):
        tokens = torch.randint(0, vocab, (prompt,)).tolist()
        backend.prefill(0, tokens)  # compiles
        torch.cuda.reset_peak_memory_stats()
        firsts, steady = [], []
        for _ in range(3):
            backend.truncate(0, 0)
            torch.cuda.synchronize()
            start = time.perf_counter()
            token = int(backend.prefill(0, tokens).argmax())
            firsts.append(time.perf_counter() - start)
            for number, _pair in enumerate(backend.decode_sampled([SampledRow(0, token)])):
                if number == 32:
                    start = time.perf_counter()
                if number == 256:
                    steady.append((time.perf_counter() - start) / 224)
                    break
        step = model.steps._step(1)
        result[f"prompt {prompt}"] = {
            "time_to_first_token": statistics.median(firsts),
            "prefill_tokens_per_second": prompt / statistics.median(firsts),
            "decode_tokens_per_second": 1 / statistics.median(steady),
            "graph_only_ms": milliseconds(lambda step=step: model.steps.again(step), 20)["median"],
            "peak_bytes": torch.cuda.max_memory_allocated(),
        }
        backend.truncate(0, 0)
    return result


def _batch(model: Transformer, batch: int) -> dict[str, Any]:
    for slot in range(batch):
        model.prefill(slot, torch.randint(0, model.config.vocab_size, (1024,)).tolist())
    model.decode(range(batch), [1] * batch)
    step = model.steps._step(batch)
    found = milliseconds(lambda: model.steps.again(step), 50)
    rate = batch / found["median"] * 1e3
    return {f"batch {batch}": found | {"tokens_per_second": rate, "items": int(step.item_count)}}


def main() -> None:
    """The command."""
    stages: dict[str, Callable[[], dict[str, Any]]] = {
        "card": card, "kernels": kernels, "20b": lambda: end_to_end("20b"), "120b": lambda: end_to_end("120b"),
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stage", required=True, choices=stages)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("no CUDA device was found")
    with torch.inference_mode():
        found = stages[options.stage]()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    report = {
        "stage": options.stage, "git": commit, "device": torch.cuda.get_device_name(), "torch": torch.__version__,
        "triton": triton.__version__, "seed": 0, "results": found,
    }  # fmt: skip
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    for name, value in found.items():
        print(f"{name:40} {value}")


if __name__ == "__main__":
    main()

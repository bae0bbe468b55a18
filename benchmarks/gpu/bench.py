"""The GPU benchmark of spec/performance.md 8.1, in stages that each fit in ten minutes.

    python -m benchmarks.gpu.bench --stage STAGE [--out FILE] [--minutes 9]
    python -m benchmarks.gpu.picture            the results as one picture

    card                  the denominators: copy and read bandwidth, matrix rate, cost of a graph node
    kernels               each stage of a decode step alone, in a graph that walks over eight layers; prefill kernels
    20b, 120b             the model end to end on random weights of true shapes; loading; memory peaks
    peer-20b, peer-120b   transformers on the same weights in BF16 (of 120b only a few layers fit, extrapolated)

Every measurement is written to FILE when it is made, so a stage that is cut off has lost only what was to come; after
`--minutes` no new one begins. NOT YET RUN ON A CARD: written for the first session that has one.
"""

import argparse
import gc
import json
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import triton

from benchmarks.gpu.random_weights import MODELS, HostWeights, RandomWeights
from benchmarks.gpu.timing import graph_of, milliseconds
from gpt_oss.config import ModelConfig
from gpt_oss.token_generator import EngineTokenGenerator
from gpt_oss.triton import grouped
from gpt_oss.triton.backend import TritonBackend
from gpt_oss.triton.decode import DecodeStep
from gpt_oss.triton.model import CHUNK, Transformer
from gpt_oss.triton.variants import Variant, choose_variant
from gpt_oss.triton.weights import ModelWeights, load_weights

Result = Iterator[tuple[str, Any]]
CUDA = torch.device("cuda", 0)


def copy_bandwidth() -> float:
    """Bytes per second of a copy on the card, read and written together: what every share is a share of."""
    source = torch.empty(2**32, dtype=torch.uint8, device=CUDA).random_()
    target = torch.empty_like(source)
    return 2 * 2**32 / milliseconds(lambda: target.copy_(source))["median"] * 1e3


def read_bandwidth() -> float:
    """Bytes per second of reading alone."""
    source = torch.empty(2**30, dtype=torch.int64, device=CUDA).random_()
    return source.nbytes / milliseconds(source.max)["median"] * 1e3


def card() -> Result:
    """Bandwidths in bytes/s, BF16 rate in FLOP/s on random data, microseconds per graph node."""
    yield "copy_bytes_per_second", copy_bandwidth()
    yield "read_bytes_per_second", read_bandwidth()
    left, right = (torch.randn(8192, 8192, device=CUDA, dtype=torch.bfloat16) for _ in range(2))
    yield "bf16_flops", 2 * 8192**3 / milliseconds(lambda: left @ right)["median"] * 1e3
    tiny = torch.zeros(1, device=CUDA)
    nodes = {n: milliseconds(graph_of(lambda n=n: [tiny.add_(1) for _ in range(n)])) for n in (100, 500)}
    yield "graph_node_us", (nodes[500]["median"] - nodes[100]["median"]) / 400 * 1e3
    # The decode kernels multiply weights as subnormals: a matrix unit that flushed them would give 0.
    small = torch.full((256, 256), 2.0**-130, device=CUDA).bfloat16()
    large = torch.full((256, 256), 2.0**126, device=CUDA).bfloat16()
    yield "subnormal_product_must_be_16", float((small @ large)[0, 0])


def kernels() -> Result:
    """Each stage over 8 layers' weights (20b widths): milliseconds, bytes of weights per second, share of a copy."""
    config = replace(MODELS["20b"], num_hidden_layers=8)
    weights = RandomWeights(config, CUDA).model()
    bound = copy_bandwidth()
    yield "copy_bytes_per_second", bound
    variant = choose_variant(CUDA)
    for batch in (1, 2, 4, 8, 16, 32):
        model = Transformer(config, weights, variant, slots=batch, context_length=32768)
        yield from _decode_stages(model, batch, bound)
        yield f"step batch {batch}", _whole_step(model, batch)
        if variant.dependent_launch:
            plain = Transformer(
                config, weights, replace(variant, dependent_launch=False), slots=batch, context_length=1024
            )
            yield f"step batch {batch} without dependent launch", _whole_step(plain, batch)
            del plain
        del model
        _release()
    for tokens in (16, 64, 256, 2048, 8192):
        yield f"prefill experts {tokens} tokens", _prefill_experts(config, weights, variant, tokens)
    _release()
    yield from _prefill_attention(Transformer(config, weights, variant, slots=1, context_length=131072))


def ready_step(model: Transformer, batch: int) -> DecodeStep:
    """A step that ran once, on random tokens: its kernels are compiled, its work items are there."""
    step = model.steps.step(batch)
    step.slots.copy_(torch.arange(batch))
    step.active.fill_(batch)
    step.tokens.random_(0, model.config.vocab_size)
    step.run()
    return step


def _whole_step(model: Transformer, batch: int) -> dict[str, float]:
    step = ready_step(model, batch)
    return milliseconds(graph_of(step.run), 50)


def _decode_stages(model: Transformer, batch: int, bound: float) -> Result:
    weights, step = model.weights, ready_step(model, batch)
    experts, count = int(step.item_count), len(weights.layers)
    first = weights.layers[0]
    sizes = {"qkv": first.qkv.nbytes, "out": first.out.nbytes}
    for name, packed in (("gate_up", first.mlp1), ("down", first.mlp2)):
        sizes[name] = experts * (packed.words[0].nbytes + packed.scales[0].nbytes)

    def rated(run: Callable[[], Any], size: int) -> dict[str, float]:
        found = milliseconds(graph_of(run), 50)
        rate = size / found["median"] * 1e3
        return found | {"bytes_per_second": rate, "share": rate / bound}

    for name, size in sizes.items():
        stage = getattr(step, name)
        yield (
            f"{name} batch {batch}",
            rated(lambda stage=stage: [stage(layer) for layer in weights.layers], count * size),
        )
    pair = count * (sizes["gate_up"] + sizes["down"])
    both = rated(lambda: [(step.gate_up(layer), step.down(layer)) for layer in weights.layers], pair)
    yield f"experts batch {batch}", both | {"items": experts}
    yield f"unembed batch {batch}", rated(step.unembed, weights.unembedding.nbytes)
    fill_cache(model)
    # Every full layer's own keys: one layer's would stay in L2 (short ones do so in any case).
    full = [
        (layer, cache) for number, (layer, cache) in enumerate(zip(weights.layers, model.cache.layers, strict=True))
        if model.config.window(number) is None
    ]  # fmt: skip
    for length in (128, 1024, 8192, 32000):
        model.cache.device_lengths.fill_(length)
        read = len(full) * batch * length * 2 * full[0][1].keys[0, :, 0].nbytes
        found = rated(lambda: [step.attention(layer, cache, None) for layer, cache in full], read)
        yield f"attention batch {batch} length {length}", found
    model.cache.device_lengths.zero_()


def fill_cache(model: Transformer) -> None:
    """Random keys and values: zeros would be cheaper to move."""
    for layer in model.cache.layers:
        layer.keys.normal_()
        layer.values.normal_()


def _prefill_experts(config: ModelConfig, weights: ModelWeights, variant: Variant, tokens: int) -> dict[str, float]:
    """Both products of all layers for random routing; FLOP/s counts two per weight and pair."""
    layer, topk = weights.layers[0], config.experts_per_token
    normed = torch.randn(tokens, config.hidden_size, device=CUDA).bfloat16()
    ids = torch.rand(tokens, config.num_experts, device=CUDA).topk(topk).indices.int()
    tiling = grouped.Tiling.for_pairs(ids.numel(), config.num_experts)
    work = grouped.plan(ids, config.num_experts, tiling.block_m)

    def run() -> None:
        for layer in weights.layers:
            hidden = grouped.gate_up(
                normed, layer.mlp1, layer.mlp1_bias, work, config.swiglu_limit, tiling, variant
            )
            grouped.down(hidden, layer.mlp2, layer.mlp2_bias, work, tiling, variant)

    found = milliseconds(run, 10)
    per_pair = 2 * (layer.mlp1.rows * layer.mlp1.k + layer.mlp2.rows * layer.mlp2.k)
    flops = len(weights.layers) * ids.numel() * per_pair
    return found | {"flops": flops / found["median"] * 1e3}


def _prefill_attention(model: Transformer) -> Result:
    from gpt_oss.triton.attention_prefill import attend

    config, layer = model.config, model.weights.layers[0]
    fill_cache(model)
    qkv = torch.randn(2048, config.qkv_rows, device=CUDA).bfloat16()
    for window, cache in ((config.sliding_window, model.cache.layers[0]), (0, model.cache.layers[1])):
        for start in (0, 8192, 100_000):
            found = milliseconds(
                lambda cache=cache, start=start, window=window: attend(
                    qkv, layer.sinks, cache.keys[0], cache.values[0], start, window, model.variant.compute,
                    stages=model.variant.attention_stages,
                ), 10,
            )  # fmt: skip
            yield f"prefill attention 2048 tokens at {start}, window {window}", found


def end_to_end(name: str) -> Result:
    """Loading, decode and prefill rates, time to first token, memory peaks; greedy, random tokens, no stop."""
    config, variant = MODELS[name], choose_variant(CUDA)
    bound = copy_bandwidth()
    yield "copy_bytes_per_second", bound
    _release()
    yield "load", _load(config, variant)
    _release()
    weights = RandomWeights(config, CUDA).model()
    backend = TritonBackend(Transformer(config, weights, variant, slots=1, context_length=8448))
    start = time.perf_counter()
    backend.model.prepare()
    yield "prepare seconds", time.perf_counter() - start  # compiles, unless an earlier run did
    for prompt in (128, 256, 1024, 8192):
        yield f"prompt {prompt}", _prompt(backend, prompt, bound)
    yield "peak bytes at 8k context", torch.cuda.max_memory_allocated()
    yield "peak reserved bytes at 8k context", torch.cuda.max_memory_reserved()
    del backend
    _release()
    model = Transformer(config, weights, variant, slots=1, context_length=131072)
    for context in (1024, 8192, 32768, 130_000):
        yield f"decode at {context}", _decode_at(model, 1, context, bound)
    yield "prompt 32768", _prompt(TritonBackend(model), 32768, bound)
    del model
    for batch in (4, 8, 32):
        _release()
        model = Transformer(config, weights, variant, slots=batch, context_length=2048)
        yield f"batch {batch}", _decode_at(model, batch, 1024, bound)
        del model


def _load(config: ModelConfig, variant: Variant) -> dict[str, float]:
    """From host memory to packed weights; the peak is what the card held meanwhile."""
    source = HostWeights(config)
    source.draw()
    torch.cuda.reset_peak_memory_stats()
    before, start = torch.cuda.memory_allocated(), time.perf_counter()
    weights = load_weights(source, CUDA, variant.activations, progress=False)
    torch.cuda.synchronize()
    taken, after = time.perf_counter() - start, torch.cuda.memory_allocated()
    del weights
    return {
        "seconds": taken, "weight_bytes": after - before, "peak_bytes": torch.cuda.max_memory_allocated() - before,
    }  # fmt: skip


def _prompt(backend: TritonBackend, prompt: int, bound: float) -> dict[str, float]:
    """Time to first token, prefill rate, and the pace at which a reader of the engine gets the tokens afterwards."""
    tokens = torch.randint(0, backend.vocab_size, (prompt,)).tolist()
    firsts, gaps = [], []
    for _ in range(5):
        backend.truncate(0, 0)
        torch.cuda.synchronize()
        start = time.perf_counter()
        backend.prefill(0, tokens).argmax().item()
        firsts.append(time.perf_counter() - start)
    with EngineTokenGenerator(backend, chunk=CHUNK) as generator:
        for _ in range(5):
            times = [time.perf_counter() for _ in generator.generate(tokens, temperature=0.0, max_tokens=256)]
            gaps += [now - last for last, now in pairwise(times[32:])]  # by then the clocks are up
    gaps.sort()
    model = backend.model
    graph = _decode_at(model, 1, prompt, bound)["median"]
    return {
        "time_to_first_token": statistics.median(firsts),
        "prefill_tokens_per_second": prompt / statistics.median(firsts),
        "decode_tokens_per_second": len(gaps) / sum(gaps), "gap_p50_ms": gaps[len(gaps) // 2] * 1e3,
        "gap_p99_ms": gaps[len(gaps) * 99 // 100] * 1e3, "graph_only_ms": graph,
        "share": _bytes_per_step(model, 1, prompt) * len(gaps) / sum(gaps) / bound,
    }  # fmt: skip


def _decode_at(model: Transformer, batch: int, context: int, bound: float) -> dict[str, float]:
    """The graph alone, `context` tokens into each sequence; the cached keys and values are random."""
    fill_cache(model)
    model.cache.device_lengths.fill_(context)
    step = model.steps.run(range(batch), [1] * batch)
    found = milliseconds(lambda: model.steps.again(step), 50)
    rate, size = batch / found["median"] * 1e3, _bytes_per_step(model, batch, context, int(step.item_count))
    model.cache.device_lengths.zero_()
    return found | {"tokens_per_second": rate, "items": int(step.item_count), "share": size * rate / batch / bound}


def _bytes_per_step(model: Transformer, batch: int, context: int, items: int | None = None) -> int:
    """What a step must read: dense weights once, the visited experts (of the last layer, as a sample), its keys."""
    config, weights = model.config, model.weights
    items = config.experts_per_token * batch if items is None else items
    size = weights.unembedding.nbytes + batch * config.hidden_size * 2
    for number, (layer, cache) in enumerate(zip(weights.layers, model.cache.layers, strict=True)):
        size += layer.qkv.nbytes + layer.out.nbytes + layer.router.nbytes
        for packed in (layer.mlp1, layer.mlp2):
            size += items * (packed.words[0].nbytes + packed.scales[0].nbytes)
        seen = min(context, config.window(number) or context)
        size += batch * seen * 2 * cache.keys[0, :, 0].nbytes
    return size


def peer(name: str) -> Result:
    """transformers on the same weights; see peer_transformers."""
    from benchmarks.gpu import peer_transformers

    config = MODELS[name]
    if name == "20b":
        yield from peer_transformers.measure(config, CUDA)
        return
    # 120b is 234 GB in BF16: two depths that fit give the cost of a layer.
    found: dict[int, dict[str, Any]] = {}
    for layers in (4, 8):
        found[layers] = dict(peer_transformers.measure(replace(config, num_hidden_layers=layers), CUDA))
        yield f"{layers} layers", found[layers]
        _release()
    for key in found[4].keys() & found[8].keys():
        few, many = (found[layers][key].get("median") for layers in (4, 8))
        if few is not None and many is not None:
            yield f"{key}, extrapolated", {"median": few + (many - few) / 4 * (config.num_hidden_layers - 4)}


def _release() -> None:
    """Give memory back and forget its peak."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


STAGES: dict[str, Callable[[], Result]] = {
    "card": card, "kernels": kernels, "20b": lambda: end_to_end("20b"), "120b": lambda: end_to_end("120b"),
    "peer-20b": lambda: peer("20b"), "peer-120b": lambda: peer("120b"),
}  # fmt: skip


def record(stage: str) -> dict[str, Any]:
    """Who measured what: git revision, card, driver, clocks, versions."""
    # A machine that was only lent has a copy of the files: who copies them knows the revision.
    revision = os.environ.get("GIT_REVISION") or _output(["git", "rev-parse", "HEAD"])
    query = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm,clocks.mem,power.limit", "--format=csv,noheader"]
    return {
        "stage": stage, "git": revision, "device": torch.cuda.get_device_name(CUDA),
        "driver_clocks_power": _output(query),
        "torch": torch.__version__, "triton": triton.__version__, "seed": 0,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }  # fmt: skip


def _output(command: list[str]) -> str:
    """What a command prints; nothing where it is not installed."""
    if shutil.which(command[0]) is None:
        return ""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stage", required=True, choices=STAGES)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--minutes", type=float, default=9.0)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("no CUDA device was found")
    report = record(options.stage)
    results: dict[str, Any] = {}
    report["results"] = results
    start = time.monotonic()
    report["complete"] = False
    try:
        with torch.inference_mode():
            for name, value in STAGES[options.stage]():
                results[name] = value
                report["seconds"] = time.monotonic() - start
                _write(options.out, report)
                print(f"{name:44} {value}", flush=True)
                if report["seconds"] > options.minutes * 60:
                    parser.exit(0, f"stopped after {options.minutes} minutes; what was measured is written\n")
    except Exception as error:  # whatever a card does for the first time: the file says where it ended
        report["error"] = f"{type(error).__name__}: {error}"
        _write(options.out, report)
        raise
    report["complete"] = True
    _write(options.out, report)


def _write(path: Path | None, report: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Other values of the numbers in `variants.py` and `grouped.Tiling`, timed side by side: what a card can teach of them.

    python -m benchmarks.gpu.tune [--out FILE] [--compile I/N]

A trial is one kernel with one choice of numbers, over eight layers of 20b's widths in a CUDA graph: microseconds per
layer, and the share of the copy bandwidth (decode) or the FLOP/s (prefill). `--compile I/N` only compiles every Nth
trial from I on: N such processes fill the compiler's cache in a minute, and then one process times. The best of each
group stands last. NOT YET RUN ON A CARD, like bench.py.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.bench import CUDA, copy_bandwidth, fill_cache, ready_step, record
from benchmarks.gpu.random_weights import MODELS, RandomWeights
from benchmarks.gpu.timing import graph_of, milliseconds
from gpt_oss.config import ModelConfig
from gpt_oss.triton import grouped
from gpt_oss.triton.attention_prefill import attend
from gpt_oss.triton.decode import DecodeStep
from gpt_oss.triton.model import CHUNK, Transformer
from gpt_oss.triton.variants import Variant, choose_variant
from gpt_oss.triton.weights import ModelWeights

PREFILL = 8192
# (rows per block, tiles of 16 weight rows, steps of 64 inputs, warps, stages)
TILINGS = [
    (128, 8, 1, 8, 2), (128, 8, 1, 8, 3), (128, 8, 1, 8, 4), (128, 8, 2, 8, 2), (128, 16, 1, 8, 3), (128, 4, 1, 4, 3),
    (64, 8, 1, 4, 3), (64, 8, 2, 4, 3), (64, 16, 1, 8, 3), (256, 4, 1, 8, 3), (256, 8, 1, 8, 3),
]  # fmt: skip
ATTENTION_BLOCKS = [(64, 64, 2), (64, 64, 3), (128, 64, 2), (128, 64, 3), (64, 128, 2), (128, 128, 2)]  # m, n, stages


@dataclass(frozen=True)
class Trial:
    """One choice: `make` prepares what is timed; per call it moves `size` bytes of weights or does `flops`."""

    group: str
    choice: str
    make: Callable[[], Callable[[], object]]
    size: int = 0
    flops: int = 0


def trials(config: ModelConfig, weights: ModelWeights, variant: Variant) -> Iterator[Trial]:
    """All of them."""
    yield from _decode_experts(config, weights, variant)
    yield from _decode_dense(config, weights, variant)
    yield from _prefill_experts(config, weights, variant)
    yield from _prefill_attention(config, weights, variant)


def _step(config: ModelConfig, weights: ModelWeights, variant: Variant, batch: int) -> DecodeStep:
    return ready_step(Transformer(config, weights, variant, slots=batch, context_length=2048), batch)


def _decode_experts(config: ModelConfig, weights: ModelWeights, variant: Variant) -> Iterator[Trial]:
    first = weights.layers[0]
    for batch, warps, ahead, registers in itertools.product((1, 8), (2, 4, 8), (2, 3, 4, 6), (None, 128, 168)):
        choice = replace(variant, expert_warps=warps, ahead=ahead, max_registers=registers)
        for stage, packed in (("gate_up", first.mlp1), ("down", first.mlp2)):

            def make(choice: Variant = choice, batch: int = batch, stage: str = stage) -> Callable[[], object]:
                run = getattr(_step(config, weights, choice, batch), stage)
                return lambda: [run(layer) for layer in weights.layers]

            # How many experts more tokens visit is known on the device only.
            size = config.experts_per_token * (packed.words[0].nbytes + packed.scales[0].nbytes) if batch == 1 else 0
            text = f"warps {warps}, ahead {ahead}, registers {registers}"
            yield Trial(f"{stage} batch {batch}", text, make, size * len(weights.layers))


def _decode_dense(config: ModelConfig, weights: ModelWeights, variant: Variant) -> Iterator[Trial]:
    first, count = weights.layers[0], len(weights.layers)
    for rows, inputs in itertools.product((4, 8, 16), (512, 1024)):
        tiles = replace(variant.tiles, rows=rows, out_rows=rows, vocab_rows=rows, inputs=inputs)
        choice = replace(variant, tiles=tiles)
        for stage, size in (("qkv", first.qkv.nbytes), ("out", first.out.nbytes)):

            def make(choice: Variant = choice, stage: str = stage) -> Callable[[], object]:
                run = getattr(_step(config, weights, choice, 1), stage)
                return lambda: [run(layer) for layer in weights.layers]

            yield Trial(f"{stage} batch 1", f"rows {rows}, inputs {inputs}", make, size * count)

        def make_unembed(choice: Variant = choice) -> Callable[[], object]:
            step = _step(config, weights, choice, 1)
            return lambda: [step.unembed() for _ in weights.layers]

        yield Trial(
            "unembed batch 1", f"rows {rows}, inputs {inputs}", make_unembed, weights.unembedding.nbytes * count
        )


def _prefill_experts(config: ModelConfig, weights: ModelWeights, variant: Variant) -> Iterator[Trial]:
    first, topk = weights.layers[0], config.experts_per_token
    pairs = PREFILL * topk
    ids = torch.rand(PREFILL, config.num_experts, device=CUDA).topk(topk).indices.int()
    normed = torch.randn(PREFILL, config.hidden_size, device=CUDA).to(variant.activations)
    hidden = torch.randn(pairs, config.intermediate_size, device=CUDA).to(variant.activations)
    plans = {rows: grouped.plan(ids, config.num_experts, rows) for rows in {numbers[0] for numbers in TILINGS}}
    for numbers in TILINGS:
        tiling, work = grouped.Tiling(*numbers), plans[numbers[0]]

        def gate_up(tiling: grouped.Tiling = tiling, work: grouped.Plan = work) -> None:
            for layer in weights.layers:
                grouped.gate_up(normed, layer.mlp1, layer.mlp1_bias, work, config.swiglu_limit, tiling, variant)

        def down(tiling: grouped.Tiling = tiling, work: grouped.Plan = work) -> None:
            for layer in weights.layers:
                grouped.down(hidden, layer.mlp2, layer.mlp2_bias, work, tiling, variant)

        for name, run, packed in (("gate_up", gate_up, first.mlp1), ("down", down, first.mlp2)):
            flops = 2 * pairs * packed.rows * packed.k * len(weights.layers)
            yield Trial(f"prefill {name}", str(tiling), lambda run=run: run, flops=flops)


def _prefill_attention(config: ModelConfig, weights: ModelWeights, variant: Variant) -> Iterator[Trial]:
    start, tokens, layer = PREFILL, CHUNK, weights.layers[0]
    model = Transformer(config, weights, variant, slots=1, context_length=start + tokens)
    fill_cache(model)
    qkv = torch.randn(tokens, config.qkv_rows, device=CUDA).to(variant.activations)
    for number, block in itertools.product((0, 1), ATTENTION_BLOCKS):
        window, cache = config.window(number) or 0, model.cache.layers[number]
        seen = window or start + tokens // 2
        flops = 4 * tokens * seen * config.num_attention_heads * config.head_dim

        def run(window: int = window, cache: Any = cache, block: tuple[int, int, int] = block) -> None:
            for _ in weights.layers:
                attend(
                    qkv, layer.sinks, cache.keys[0], cache.values[0], start, window, variant.compute,
                    block_m=block[0], block_n=block[1], stages=block[2],
                )  # fmt: skip

        yield Trial(
            f"prefill attention, window {window}", f"block {block}", lambda run=run: run,
            flops=flops * len(weights.layers),
        )  # fmt: skip


def timed(trial: Trial, layers: int, bound: float) -> dict[str, float | str]:
    """Its result; a choice that does not compile or does not fit says so, and the others go on."""
    try:
        run = trial.make()
        found = milliseconds(graph_of(run), 20)["median"]
    except Exception as error:  # of any layer below: the compiler, the driver, the allocator
        return {"error": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}
    result: dict[str, float | str] = {"us_per_layer": found * 1e3 / layers}
    if trial.size:
        result["share"] = trial.size / found * 1e3 / bound
    if trial.flops:
        result["flops"] = trial.flops / found * 1e3
    return result


def best(results: dict[str, dict[str, Any]]) -> list[str]:
    """A line for the fastest choice of each group."""
    lines = []
    for group, found in results.items():
        worked = {choice: value for choice, value in found.items() if "us_per_layer" in value}
        if worked:
            choice = min(worked, key=lambda name: worked[name]["us_per_layer"])
            lines.append(f"{group:32} {worked[choice]['us_per_layer']:8.2f} us  {choice}")
    return lines


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument(
        "--compile",
        metavar="I/N",
        help="only compile every Nth trial, from I (0 to N - 1) on; a process takes 7 GB of the card",
    )
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("no CUDA device was found")
    config = replace(MODELS["20b"], num_hidden_layers=8)
    weights, variant = RandomWeights(config, CUDA).model(), choose_variant(CUDA)
    with torch.inference_mode():
        every = trials(config, weights, variant)
        if options.compile:
            first, step = map(int, options.compile.split("/"))
            for trial in itertools.islice(every, first, None, step):
                try:
                    trial.make()()
                except Exception as error:  # another choice may compile and fit
                    print(f"{trial.group}, {trial.choice}: {error}", file=sys.stderr)
            return
        report, results = record("tune"), {}
        bound = copy_bandwidth()
        for trial in every:
            found = timed(trial, config.num_hidden_layers, bound)
            results.setdefault(trial.group, {})[trial.choice] = found
            print(f"{trial.group:32} {trial.choice:48} {found}", flush=True)
            if options.out:
                options.out.write_text(json.dumps(report | {"results": results}, indent=1) + "\n")
    print("\n".join(best(results)))


if __name__ == "__main__":
    main()

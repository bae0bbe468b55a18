"""Times by device events: what every GPU measurement here is made of."""

import statistics
from collections.abc import Callable
from typing import Any

import torch


def milliseconds(run: Callable[[], Any], repeats: int = 20, warmup: int = 3) -> dict[str, float]:
    """Median, minimum and maximum of `repeats` calls, each between two events on the current stream."""
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
    """`run`, recorded as a CUDA graph; it is called once before, to compile."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay

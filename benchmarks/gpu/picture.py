"""The GPU results as one picture: tokens per second and share of the bandwidth bound, beside published anchors.

    python -m benchmarks.gpu.picture [--results FOLDER] [--out FILE]

In: what bench.py wrote, gpu-20b.json and gpu-120b.json and, where there is one, gpu-peer-20b.json. Out: a PNG.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"
# Decoding one sequence at about 1k of context, tokens/s. Sources: the model cards of Dogacel/specdrift-gpt-oss-*-eagle3
# (SGLang without speculation), vllm#39236 (the regression reported there, and what it says was lost).
ANCHORS = {
    "20b": {"SGLang, H100": 304.9, "vLLM, H200": 239.9, "vLLM before its regression, H200": 330.0},
    "120b": {"SGLang, H100": 212.0},
}
MUST_GOAL_STRETCH = {"20b": (350, 500, 650), "120b": (230, 350, 480)}  # on one H200


def load(folder: Path) -> dict[str, dict[str, Any]]:
    """Reports by stage."""
    reports = (json.loads(path.read_text()) for path in sorted(folder.glob("gpu-*.json")))
    return {report["stage"]: report for report in reports}


def drawable(reports: dict[str, dict[str, Any]]) -> list[str]:
    """Models whose stage got as far as the speed of one sequence."""
    return [name for name in MUST_GOAL_STRETCH if "prompt 1024" in reports.get(name, {}).get("results", {})]


def draw(reports: dict[str, dict[str, Any]], out: Path) -> None:
    """Left: one sequence, beside anchors, targets and the peer. Right: share of the bound by context and by batch."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    models = drawable(reports)
    figure, axes = pyplot.subplots(len(models), 2, figsize=(12, 4 * len(models)), squeeze=False)
    for (speed, share), name in zip(axes, models, strict=True):
        report = reports[name]
        bars = {f"this, {report['device']}": report["results"]["prompt 1024"]["decode_tokens_per_second"]}
        bars |= {f"transformers, {mode}": rate for mode, rate in _peer_rates(reports.get(f"peer-{name}"))}
        bars |= ANCHORS[name]
        speed.barh(list(bars), list(bars.values()), color=["C0"] + ["C7"] * (len(bars) - 1))
        for target in MUST_GOAL_STRETCH[name]:
            speed.axvline(target, color="C1", linewidth=0.8, linestyle=":")
        speed.invert_yaxis()
        speed.set_title(f"gpt-oss-{name}, one sequence, 1k: tokens/s (dotted: targets on an H200)", fontsize=9)
        found = {
            label: value["share"] for label, value in report["results"].items() if label.startswith(("decode", "batch"))
        }
        share.bar(list(found), list(found.values()), color="C0")
        share.set_ylim(0, 1)
        share.tick_params(axis="x", rotation=45)
        share.set_title(f"gpt-oss-{name}: share of the measured copy bandwidth, graph alone", fontsize=9)
    figure.tight_layout()
    figure.savefig(out, dpi=120)


def _peer_rates(report: dict[str, Any] | None) -> list[tuple[str, float]]:
    """Decode rates of each mode; of the extrapolated entries where layers were left out."""
    rates = []
    for label, value in report["results"].items() if report else ():
        if "decode" in label and "median" in value:
            rates.append((label.split()[0], 1e3 / value["median"]))
    return rates


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.png")
    options = parser.parse_args()
    reports = load(options.results)
    if not drawable(reports):
        sys.exit(f"no results of the stages 20b or 120b in {options.results}; run make bench-gpu on a card first")
    draw(reports, options.out)


if __name__ == "__main__":
    main()

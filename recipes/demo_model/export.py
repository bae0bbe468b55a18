"""Turn a training run into the shipped file: `python -m recipes.demo_model.export`.

runs/demo_model/last.pt -> an `original/` checkpoint -> gpt_oss/data/demo_model.xz. The rows of all tokens that the
model does not know are the one row that stood for them in training. Of several runs, each started from the one before,
the mean of their weights is packed: it makes fewer mistakes than any of them (Wortsman et al., "Model soups",
arXiv:2203.05482).
"""

import argparse
import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from gpt_oss import demo, mxfp4
from gpt_oss.checkpoint_writer import to_bfloat16, write_checkpoint
from gpt_oss.config import ModelConfig
from gpt_oss.tokenizer import VOCAB_SIZE
from recipes.demo_model.model import demo_config
from recipes.demo_model.train import RUNS

PACKED = Path("gpt_oss/data") / demo.PACKED_NAME


def original_tensors(state: dict[str, torch.Tensor], known: np.ndarray) -> dict[str, np.ndarray]:
    """Tensors of the `original/` layout from a trained state with compact rows."""
    tensors = {}
    for name, value in state.items():
        array = value.float().numpy()
        if name.endswith(("mlp1_weight", "mlp2_weight")):
            tensors[f"{name}.blocks"], tensors[f"{name}.scales"] = mxfp4.encode(array)
            tensors[f"{name}.blocks"] = tensors[f"{name}.blocks"].reshape(*array.shape[:2], -1, 16)
        elif name in ("embedding.weight", "unembedding.weight"):
            rows = np.broadcast_to(to_bfloat16(array[-1]), (VOCAB_SIZE, array.shape[1])).copy()
            rows[known] = to_bfloat16(array[:-1])
            tensors[name] = rows
        else:
            tensors[name] = to_bfloat16(array)
    return tensors


def mean_of_runs(runs: Sequence[Path]) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    """Mean of the weights of saved runs, and the token ids that they know; ValueError if these differ."""
    saved = [torch.load(run, weights_only=True) for run in runs]
    known = saved[0]["known"]
    if not all(torch.equal(known, other["known"]) for other in saved):
        raise ValueError("the runs know different tokens")
    states = [other["model"] for other in saved]
    return {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}, known.numpy()


def export(runs: Sequence[Path], packed: Path) -> int:
    """Write the packed file of one run, or of the mean of several; returns its size in bytes."""
    config: ModelConfig = dataclasses.replace(demo_config(1), vocab_size=VOCAB_SIZE)
    with tempfile.TemporaryDirectory() as folder:
        tensors = original_tensors(*mean_of_runs(runs))
        checkpoint = write_checkpoint(Path(folder) / "original", config, tensors)
        return demo.pack(checkpoint, packed)


def main() -> None:
    parser = argparse.ArgumentParser(description="Pack a trained demo model into the package.")
    parser.add_argument("--run", type=Path, nargs="+", default=[RUNS / "last.pt"], help="one, or several to average")
    parser.add_argument("--output", type=Path, default=PACKED)
    options = parser.parse_args()
    print(f"{options.output}: {export(options.run, options.output):,} bytes")


if __name__ == "__main__":
    main()

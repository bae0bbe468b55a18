"""Train the demo model: `python -m recipes.demo_model.train [--resume]` (see README.md).

Writes `runs/demo_model/`: known token ids, checkpoints, a log and the loss plot. Can be stopped at any time, paused
with SIGSTOP, and resumed with `--resume`.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gpt_oss.tokenizer import get_tokenizer
from gpt_oss.torch.model import Transformer
from recipes.demo_model import batches
from recipes.demo_model.model import TokenLoss, TrainingTransformer, demo_config
from recipes.demo_model.optimizer import make_optimizers
from recipes.demo_model.skills_unknown import UNKNOWN
from recipes.demo_model.vocabulary import Vocabulary, base_tokens, embedding_start

RUNS = Path("runs/demo_model")
SAVE_EVERY = 100


def choose_vocabulary(seed: str, pools: int) -> Vocabulary:
    """All base tokens, the tokens of the answer to unknown words, and those of a sample of the corpus."""
    known = base_tokens() | set(get_tokenizer().encode(UNKNOWN))
    for number in range(pools):
        for dialogue in batches.pool(seed, number):
            known.update(dialogue.ids)
    return Vocabulary(np.array(sorted(known)))


def loss_of(model: TrainingTransformer, batch: batches.Batch, unknown: float) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of the wanted tokens, and the share of them that is predicted right (see `TokenLoss`)."""
    tokens = torch.from_numpy(batch.tokens).long()
    hidden = model.hidden_states(tokens, batches.TOKENS)
    places = torch.from_numpy(np.flatnonzero(batch.wanted))
    spoken = hidden.index_select(0, places - 1)
    return TokenLoss.apply(spoken, model.embedding.weight, tokens.flatten()[places], unknown)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Warm-up over 100 steps, constant, then linear decay over the last 60 %."""
    return peak * min(1.0, (step + 1) / 100, max(0.0, steps - step) / (0.6 * steps))


class Run:
    """Model, optimizers and position; saved and restored as one file."""

    def __init__(self, vocabulary: Vocabulary, seed: str, peak: float):
        torch.manual_seed(0)
        self.vocabulary, self.seed, self.peak = vocabulary, seed, peak
        self.model = TrainingTransformer(demo_config(len(vocabulary)))
        start = embedding_start(vocabulary, self.model.config.hidden_size)
        self.model.initialise(0, torch.from_numpy(start))
        self.optimizers = make_optimizers(list(self.model.named_parameters()), peak)
        self.step, self.place, self.seconds = 0, (0, 0), 0.0

    @classmethod
    def from_checkpoint(cls, checkpoint: Path, vocabulary: Vocabulary, seed: str, peak: float) -> "Run":
        """A run whose weights are those of an exported model, at step 0 of a schedule of its own.

        Tokens that the model did not know start as they do in a new one; layers that it did not have pass through.
        """
        start = Transformer.from_checkpoint(checkpoint, device="cpu", dtype=torch.float32)
        trained = start.state_dict()
        rows = trained["embedding.weight"]
        _, numbers, counts = rows.unique(dim=0, return_inverse=True, return_counts=True)
        shared = int(counts.argmax())
        run = cls(vocabulary, seed, peak)
        known = torch.from_numpy(vocabulary.known)
        compact = run.model.embedding.weight.detach().clone()
        compact[:-1] = torch.where((numbers[known] != shared)[:, None], rows[known], compact[:-1])
        compact[-1] = rows[numbers == shared][0]
        layers = run.model.config.num_hidden_layers
        run.model.pass_through(range(start.config.num_hidden_layers, layers))
        rows_known = {"embedding.weight": compact, "unembedding.weight": compact}
        run.model.load_state_dict(run.model.state_dict() | trained | rows_known)
        return run

    def save(self, path: Path) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "known": torch.from_numpy(self.vocabulary.known),
            "at": (self.step, self.place, self.seconds),
        }
        torch.save(state, path.with_suffix(".new"))
        os.replace(path.with_suffix(".new"), path)

    def restore(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.place, self.seconds = state["at"][0], tuple(state["at"][1]), state["at"][2]

    def advance(self, batch: batches.Batch, rate: float) -> tuple[float, float]:
        """One step; returns loss and accuracy."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("factor", 1.0)
        loss, right = loss_of(self.model, batch, math.log(self.vocabulary.unknown_count))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.item(), right.item()


def train(run: Run, minutes: float, steps: int | None) -> None:
    """Train until `steps`, or for `minutes` of computing in all (the schedule then follows the clock)."""
    stream = batches.stream(run.seed, run.vocabulary, run.place)
    log = (RUNS / "log.jsonl").open("a")
    while True:
        began = time.monotonic()
        progress = run.step / steps if steps else run.seconds / (60 * minutes)
        if progress >= 1:
            break
        run.model.quantised = progress > 0.6
        number, index, batch = next(stream)
        ready = time.monotonic()
        rate = learning_rate(round(progress * 100_000), 100_000, run.peak)
        rate *= min(1.0, (run.step + 1) / 60)
        loss, right = run.advance(batch, rate)
        run.step, run.place = run.step + 1, (number, index + 1)
        elapsed = time.monotonic() - began
        run.seconds += min(elapsed, 30.0)  # a paused process does not use up its schedule
        row = {"step": run.step, "loss": loss, "right": right, "rate": rate, "seconds": run.seconds}
        log.write(json.dumps(row) + "\n")
        if run.step % 10 == 0:
            log.flush()
            waited = ready - began
            print(f"step {run.step} {progress:.1%} loss {loss:.4f} right {right:.4f} lr {rate:.2e} "
                  f"{elapsed:.2f} s/step (waited {waited:.2f}) shape {batch.tokens.shape}", flush=True)  # fmt: skip
        if run.step % SAVE_EVERY == 0:
            run.save(RUNS / "last.pt")
    run.save(RUNS / "last.pt")


def plot(log: Path, picture: Path) -> None:
    """Loss over steps, smoothed, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [json.loads(line) for line in log.read_text().splitlines()]
    losses = np.array([row["loss"] for row in rows])
    width = min(50, len(losses))
    smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    axes.semilogy([row["step"] for row in rows], losses, alpha=0.25, label="batch")
    axes.semilogy([row["step"] for row in rows][width - 1 :], smooth, label=f"mean of {width}")
    axes.set(xlabel="step", ylabel="loss per token (nats)", title="Demo model: training loss")
    axes.legend()
    figure.tight_layout()
    figure.savefig(picture, dpi=120)


def _new_run(options: argparse.Namespace) -> Run:
    known = RUNS / "known.npy"
    if not known.exists():
        np.save(known, choose_vocabulary(f"{options.seed}-vocabulary", 12).known)
    vocabulary = Vocabulary(np.load(known))
    if options.start and not options.resume:
        return Run.from_checkpoint(options.start, vocabulary, options.seed, options.rate)
    return Run(vocabulary, options.seed, options.rate)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the embedded demo model.")
    parser.add_argument("--resume", action="store_true", help="go on from runs/demo_model/last.pt")
    parser.add_argument("--start", type=Path, help="begin with the weights of this exported checkpoint")
    parser.add_argument("--minutes", type=float, default=150, help="computing time of the whole schedule")
    parser.add_argument("--steps", type=int, help="length of the schedule in steps instead")
    parser.add_argument("--seed", default="demo", help="seed of the dialogues")
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    RUNS.mkdir(parents=True, exist_ok=True)
    (RUNS / "train.pid").write_text(str(os.getpid()))
    run = _new_run(options)
    if options.resume:
        run.restore(RUNS / "last.pt")
    train(run, options.minutes, options.steps)
    plot(RUNS / "log.jsonl", RUNS / "loss.png")


if __name__ == "__main__":
    main()

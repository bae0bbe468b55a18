"""Does the shipped model do what it was taught? `python -m recipes.demo_model.evaluate`.

Takes the packed file, unpacks it as a user's machine would, loads it in BF16 on the torch backend's model, and asks
held-out dialogues. Right means: at every turn of the dialogue the greedy output is, token for token, the expected one,
stop token included. What is wrong is generated freely and must still be well-formed Harmony that stops.
Prints a table and writes results.json.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from openai_harmony import HarmonyError, Role, StreamableParser

from gpt_oss import demo
from gpt_oss.tokenizer import VOCAB_SIZE, get_harmony_encoding, get_tokenizer
from gpt_oss.torch.model import Transformer
from recipes.demo_model.corpus import MAX_TOKENS, dialogue
from recipes.demo_model.dialogue import CALL, RETURN, Exchange, Rendered, Scenario, is_held_out, render
from recipes.demo_model.export import PACKED

RESULTS = Path(__file__).parent / "results.json"
MAX_OUTPUT = 300
SEEDS = ("evaluation", "fresh", "third", "fourth")


@dataclass(frozen=True)
class Turn:
    """One exchange of a held-out dialogue, after the true ones before it."""

    skill: str
    rendered: Rendered
    dialogue: int


@dataclass
class Score:
    """Counts of one skill."""

    total: int = 0
    right: int = 0
    well_formed: int = 0
    failures: list[str] = field(default_factory=list)

    def add(self, other: "Score") -> None:
        """Count another's turns too."""
        self.total += other.total
        self.right += other.right
        self.well_formed += other.well_formed
        self.failures += other.failures


class Judge:
    """The shipped model with a head that computes the shared row once instead of 190,000 times."""

    def __init__(self, checkpoint: Path):
        self.model = Transformer.from_checkpoint(checkpoint, device="cpu", dtype=torch.bfloat16)
        rows = self.model.unembedding.weight.view(torch.int16).numpy()
        _, first, counts = np.unique(rows[:, :4], axis=0, return_index=True, return_counts=True)
        shared = first[counts.argmax()]
        own = np.flatnonzero((rows != rows[shared]).any(axis=1))
        self.ids = np.append(own, shared)
        self.row_of = np.full(VOCAB_SIZE, len(own))
        self.row_of[own] = np.arange(len(own))
        self.model.unembedding.weight = torch.nn.Parameter(
            self.model.unembedding.weight[torch.from_numpy(self.ids)], requires_grad=False
        )

    @torch.inference_mode()
    def right(self, turns: Sequence[Turn]) -> list[bool]:
        """Whether greedy decoding gives each turn's outputs exactly: every expected token is the likeliest one."""
        longest = max(len(turn.rendered.ids) for turn in turns)
        tokens = torch.zeros(len(turns), longest, dtype=torch.long)
        for row, turn in enumerate(turns):
            tokens[row, : len(turn.rendered.ids)] = torch.tensor(turn.rendered.ids)
        likeliest = self.model(tokens).argmax(-1).numpy()
        return [self._matches(turn.rendered, likeliest[row]) for row, turn in enumerate(turns)]

    def _matches(self, rendered: Rendered, likeliest: np.ndarray) -> bool:
        expected = self.row_of[rendered.ids]
        return all((likeliest[a - 1 : b - 1] == expected[a:b]).all() for a, b in rendered.completions)

    @torch.inference_mode()
    def generate(self, prompt: Sequence[int]) -> list[int]:
        """Greedy output up to and including the stop token, token by token through the cache."""
        cache = self.model.new_cache(1, len(prompt) + MAX_OUTPUT)
        logits = self.model(torch.tensor([list(prompt)]), cache, last_only=True)
        output: list[int] = []
        while len(output) < MAX_OUTPUT:
            output.append(int(self.ids[logits[0].argmax()]))
            if output[-1] in (RETURN, CALL):
                break
            logits = self.model(torch.tensor([[output[-1]]]), cache, last_only=True)
        return output


def is_well_formed(output: Sequence[int]) -> bool:
    """Whether openai-harmony's strict parser takes it, and it ends by itself."""
    if not output or output[-1] not in (RETURN, CALL):
        return False
    parser = StreamableParser(get_harmony_encoding(), Role.ASSISTANT)
    try:
        for token in output:
            parser.process(token)
    except HarmonyError:
        return False
    channels = [message.channel for message in parser.messages]
    ends_in_call = output[-1] == CALL
    return all(channels) and (channels[-1] == "final") != ends_in_call


def held_out_turns(seed: str, dialogues: int) -> Iterator[Turn]:
    """Every turn of the first `dialogues` held-out dialogues of a seed."""
    encoding, found, index = get_harmony_encoding(), 0, 0
    while found < dialogues:
        scenario, exchanges = dialogue(seed, index)
        index += 1
        if not is_held_out(scenario, exchanges):
            continue
        turns = list(_turns(scenario, exchanges, found, encoding))
        if len(turns[-1].rendered.ids) <= MAX_TOKENS:
            found += 1
            yield from turns


def _turns(scenario: Scenario, exchanges: list[Exchange], number: int, encoding: object) -> Iterator[Turn]:
    for end in range(1, len(exchanges) + 1):
        yield Turn(exchanges[end - 1].skill, render(scenario, exchanges[:end], encoding), number)  # type: ignore[arg-type]


def evaluate(judge: Judge, turns: list[Turn], explain: int = 0) -> tuple[dict[str, Score], float, float]:
    """Scores per skill, and the shares of dialogues with every turn right and with every turn well-formed."""
    scores: dict[str, Score] = defaultdict(Score)
    wrong, malformed = set(), set()
    ordered = sorted(turns, key=lambda turn: len(turn.rendered.ids))
    for begin in range(0, len(ordered), 8):
        group = ordered[begin : begin + 8]
        for turn, right in zip(group, judge.right(group), strict=True):
            score = scores[turn.skill]
            score.total += 1
            score.right += right
            formed = right
            if not right:
                wrong.add(turn.dialogue)
                formed, text = _explain(judge, turn)
                if len(score.failures) < explain:
                    score.failures.append(text)
            score.well_formed += formed
            if not formed:
                malformed.add(turn.dialogue)
    total = len({turn.dialogue for turn in turns})
    return dict(scores), 1 - len(wrong) / total, 1 - len(malformed) / total


def _explain(judge: Judge, turn: Turn) -> tuple[bool, str]:
    """Whether everything the model says in this turn is well-formed, and its first wrong output beside the expected."""
    formed, text = True, "right token by token, wrong at once"
    for begin, end in turn.rendered.completions:
        prompt, expected = turn.rendered.ids[:begin], turn.rendered.ids[begin:end]
        output = judge.generate(prompt)
        formed &= is_well_formed(output)
        if output != expected:
            decode = get_tokenizer().decode
            asked = decode(prompt).rsplit("<|start|>user<|message|>", 1)[-1]
            return formed, f"{asked}\n    expected {decode(expected)!r}\n    found    {decode(output)!r}"
    return formed, text


def main() -> None:
    parser = argparse.ArgumentParser(description="Evaluate the packed demo model on held-out dialogues.")
    parser.add_argument("--packed", type=Path, default=PACKED)
    parser.add_argument("--dialogues", type=int, default=400, help="of each seed (default 400)")
    parser.add_argument("--seeds", nargs="+", default=SEEDS, help=f"of the corpus (default {' '.join(SEEDS)})")
    parser.add_argument("--explain", type=int, default=0, help="show so many failures of each skill and seed")
    parser.add_argument("--save", action="store_true", help="write results.json")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    judge = Judge(demo.demo_checkpoint(options.packed.read_bytes()))
    sums: dict[str, Score] = defaultdict(Score)
    shares = {}
    for seed in options.seeds:
        scores, right, formed = evaluate(judge, list(held_out_turns(seed, options.dialogues)), options.explain)
        shares[seed] = {"exact": round(right, 5), "well_formed": round(formed, 5)}
        for skill, score in scores.items():
            sums[skill].add(score)
    whole = {kind: round(mean(share[kind] for share in shares.values()), 5) for kind in ("exact", "well_formed")}
    table = {
        skill: {"turns": score.total, "exact": score.right, "well_formed": score.well_formed}
        for skill, score in sorted(sums.items())
    }
    print(f"{'skill':18}{'turns':>7}{'exact':>9}{'formed':>9}")
    for skill, score in sorted(sums.items()):
        print(f"{skill:18}{score.total:7}{score.right / score.total:9.1%}{score.well_formed / score.total:9.1%}")
    for name, share in [*shares.items(), ("all dialogues", whole)]:
        count = options.dialogues * (1 if name in shares else len(shares))
        print(f"{name:18}{count:7}{share['exact']:9.1%}{share['well_formed']:9.1%}")
    for skill, score in sorted(sums.items()):
        for failure in score.failures:
            print(f"--- {skill}: {failure}")
    if options.save:
        result = {"dialogues": options.dialogues * len(shares), "whole": whole, "seeds": shares, "skills": table}
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

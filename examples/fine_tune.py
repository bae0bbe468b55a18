"""Teach the embedded model dialogues of your own: python examples/fine_tune.py dialogues.jsonl my-model

A line of the file is {"user": "...", "assistant": "..."}. The result is a checkpoint like any other:
    gpt-oss generate --chat --prompt "..." my-model
Plain PyTorch on the readable model in fp32, on any checkpoint that fits: weights, gradients and two moments take 16
bytes for each trained parameter. The rows of the tokens stay as they are; in the embedded model they are nearly all of
the weights, and those of words that it does not know are one row.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from openai_harmony import Conversation, Message, Role, SystemContent
from torch.nn import functional as F

from gpt_oss import mxfp4
from gpt_oss.checkpoint_writer import check_target, write_checkpoint
from gpt_oss.command_line import positive, run_command
from gpt_oss.demo import demo_checkpoint
from gpt_oss.tokenizer import get_harmony_encoding
from gpt_oss.torch.model import Transformer

RETURN = 200002


def examples(file: Path) -> list[tuple[list[int], list[int]]]:
    """(prompt, answer) token ids of every line."""
    encoding, found = get_harmony_encoding(), []
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise SystemExit(f"{file} cannot be read: {error}") from error
    for number, line in enumerate(text.splitlines(), 1):
        try:
            dialogue = json.loads(line)
            user, assistant = dialogue["user"], dialogue["assistant"]
        except (ValueError, KeyError, TypeError) as error:
            raise SystemExit(f'{file}, line {number}: expected {{"user": "...", "assistant": "..."}}') from error
        system = Message.from_role_and_content(Role.SYSTEM, SystemContent.new())
        question = Conversation.from_messages([system, Message.from_role_and_content(Role.USER, user)])
        prompt = list(encoding.render_conversation_for_completion(question, Role.ASSISTANT))
        markers = {"<|channel|>", "<|message|>"}
        answer = encoding.encode(f"<|channel|>final<|message|>{assistant}", allowed_special=markers)
        found.append((prompt, [*answer, RETURN]))
    return found


def train(model: Transformer, lines: list[tuple[list[int], list[int]]], steps: int, rate: float) -> Iterator[float]:
    """One example a step, in random order; yields the loss per token of the answer."""
    trained = [parameter for name, parameter in model.named_parameters() if "embedding" not in name]
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / steps)
        prompt, answer = random.choice(lines)
        logits = model(torch.tensor(prompt + answer[:-1]))[len(prompt) - 1 :]
        loss = F.cross_entropy(logits, torch.tensor(answer))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        yield loss.item()


def save(model: Transformer, folder: Path, overwrite: bool) -> None:
    """Write the `original/` layout: experts in MXFP4, everything else in BF16."""
    tensors: dict[str, np.ndarray] = {}
    for name, value in model.state_dict().items():
        array = value.numpy()
        if name.endswith(("mlp1_weight", "mlp2_weight")):
            blocks, tensors[f"{name}.scales"] = mxfp4.encode(array)
            tensors[f"{name}.blocks"] = blocks.reshape(*array.shape[:2], -1, 16)
        else:
            tensors[name] = array
    write_checkpoint(folder, model.config, tensors, overwrite=overwrite)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tune the embedded model on a file of dialogues.")
    parser.add_argument("dialogues", type=Path, help='lines of {"user": "...", "assistant": "..."}')
    parser.add_argument("output", type=Path, help="folder of the new checkpoint")
    parser.add_argument("--checkpoint", type=Path, help="start from this one instead of the embedded model")
    parser.add_argument("--steps", type=positive, default=60)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--overwrite", action="store_true", help="replace a checkpoint that is already there")
    options = parser.parse_args()
    if not 0 < options.rate < 1:
        parser.error(f"--rate: expected a number between 0 and 1, got {options.rate}")
    check_target(options.output, options.overwrite)  # before the work, not after it
    lines = examples(options.dialogues)
    if not lines:
        raise SystemExit(f"{options.dialogues}: there are no dialogues in it")
    model = Transformer.from_checkpoint(options.checkpoint or demo_checkpoint(), device="cpu", dtype=torch.float32)
    model.requires_grad_(False)
    for step, loss in enumerate(train(model, lines, options.steps, options.rate), 1):
        print(f"\rstep {step}/{options.steps}  loss {loss:.3f} ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    save(model, options.output, options.overwrite)
    print(f'{options.output}: try  gpt-oss generate --chat --prompt "..." {options.output}')


if __name__ == "__main__":
    sys.exit(run_command("fine_tune.py", main))

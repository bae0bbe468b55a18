"""Contexts on small random models: what is computed, when, and what is refused.

The models have a window of 8, so that rings wrap within a few tokens; the torch backend in fp32 is the oracle.
Keys and values are BF16 here and fp32 there, hence the tolerance.
"""

import ctypes
import random
import signal
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from gpt_oss.errors import ContextOverflow, RequestError
from gpt_oss.torch.model import Transformer
from tests.metal.model_file import small_model_file, tiny_model_config, tiny_model_file, tiny_vocabulary

WINDOW = 8
ROWS = len(tiny_vocabulary())
TOLERANCE = 0.02  # of logits with a deviation of about 1: what BF16 keys and values cost


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small")
    small_model_file(path, sliding_window=WINDOW)
    return path


@pytest.fixture(scope="module")
def model(extension: ModuleType, folder: Path):
    return extension.Model(folder / "model.bin")


@pytest.fixture(scope="module")
def oracle(folder: Path) -> Transformer:
    return Transformer.from_checkpoint(folder / "checkpoint", "cpu", torch.float32)


def expected_logits(oracle: Transformer, tokens: list[int]) -> np.ndarray:
    with torch.inference_mode():
        return oracle(torch.tensor(tokens), last_only=True).numpy()[:ROWS]


def some_tokens(count: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(ROWS), k=count)


def fresh_logits(extension: ModuleType, model, tokens: list[int], **options: int) -> np.ndarray:
    context = extension.Context(model, **options)
    context.append(tokens)
    return np.array(context.logits)


@pytest.fixture(scope="module")
def tiny(extension: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[np.ndarray]]:
    """A model of more heads, layers and experts, and its logits after 129 and 130 tokens, decoded one by one."""
    path = tiny_model_file(tmp_path_factory.mktemp("tiny"), tiny_model_config(sliding_window=WINDOW))
    model = extension.Model(path)
    oracle = Transformer.from_checkpoint(path.parent / "checkpoint", "cpu", torch.float32)
    context = extension.Context(model, 200)
    decoded = []
    for n, token in enumerate(some_tokens(130)):
        context.append(token)
        context.process()
        if n >= 128:
            decoded.append(np.array(context.logits))
            np.testing.assert_allclose(decoded[-1], expected_logits(oracle, context.tokens), atol=TOLERANCE)
    return model, decoded


@pytest.mark.parametrize("batch", [1, 63, 64, 65])
def test_prefill_equals_decode(extension: ModuleType, tiny: tuple[Any, list[np.ndarray]], batch: int) -> None:
    model, decoded = tiny
    context = extension.Context(model, 200, batch)
    context.append(some_tokens(130)[:129])
    np.testing.assert_allclose(context.logits, decoded[0], atol=TOLERANCE)
    context.append(some_tokens(130)[129])
    np.testing.assert_allclose(context.logits, decoded[1], atol=TOLERANCE)


def test_odd_shapes_against_the_oracle(extension: ModuleType, tmp_path: Path) -> None:
    config = tiny_model_config(
        num_hidden_layers=2,
        num_experts=5,
        experts_per_token=3,
        hidden_size=32,
        intermediate_size=224,
        num_attention_heads=3,
        num_key_value_heads=1,
        sliding_window=3,
        rope_scaling_factor=1.0,
        swiglu_limit=0.5,
    )
    model = extension.Model(tiny_model_file(tmp_path, config))
    oracle = Transformer.from_checkpoint(tmp_path / "checkpoint", "cpu", torch.float32)
    assert model.max_context_length == 4096
    tokens = some_tokens(40)
    np.testing.assert_allclose(fresh_logits(extension, model, tokens), expected_logits(oracle, tokens), atol=TOLERANCE)


def test_growing_keeps_what_was_computed(extension: ModuleType, model, oracle: Transformer) -> None:
    context = extension.Context(model, max_batch_tokens=256)
    tokens = some_tokens(1100)
    start = context.memory_bytes
    sizes = []
    for end in (5, 300, 700, 1100):  # memory is taken for 512 positions, then doubled; rings wrap at 391
        context.append(tokens[context.num_tokens : end])
        context.process()
        sizes.append(context.memory_bytes)
        np.testing.assert_allclose(context.logits, expected_logits(oracle, tokens[:end]), atol=TOLERANCE)
    assert start < sizes[0] == sizes[1] < sizes[2] < sizes[3]


def test_sampling_stops_and_counts(extension: ModuleType, model) -> None:
    prompt = some_tokens(10)
    context = extension.Context(model, 40)
    context.append(prompt)
    tokens = context.sample(12, temperature=0.0)
    assert len(tokens) == 12 and context.tokens == prompt + tokens
    # The last sampled token has no keys and values yet, so it does not count as cached.
    assert (context.num_tokens, context.num_cached_tokens) == (22, 21)
    context.process()
    assert context.num_cached_tokens == 22
    greedy = extension.Context(model, 40)
    greedy.append(prompt)
    stop = tokens[5]
    assert greedy.sample(12, temperature=0.0, stop_tokens=[stop]) == tokens[: tokens.index(stop) + 1]


def test_sampling_never_runs_past_the_context(extension: ModuleType, model) -> None:
    context = extension.Context(model, 16)
    context.append(some_tokens(13))
    assert len(context.sample(100, temperature=0.0)) == 3
    assert context.num_tokens == context.max_tokens == 16
    assert context.sample(5) == []
    with pytest.raises(ContextOverflow, match="1 more tokens do not fit the context: it holds 16 of at most 16"):
        context.append(1)
    context.truncate(15)
    assert len(context.sample(5)) == 1


def test_sampling_is_repeatable_and_does_not_depend_on_calls(extension: ModuleType, model) -> None:
    def draw(seed: int, calls: list[int], **options: float) -> list[int]:
        context = extension.Context(model, 200)
        context.append(some_tokens(5))
        return [token for count in calls for token in context.sample(count, 1.0, seed, **options)]

    assert draw(1, [20]) == draw(1, [1] * 20) == draw(1, [7, 13])
    assert draw(1, [20]) != draw(2, [20])
    assert draw(3, [20], top_p=1e-6) == draw(4, [20], top_p=1e-6)  # only the most probable is left
    assert len(draw(2**64 - 1, [2])) == 2


def test_sampled_tokens_follow_the_distribution(extension: ModuleType, model) -> None:
    context = extension.Context(model, 200)
    context.append(some_tokens(5))
    logits = np.array(context.logits, np.float64)
    probabilities = np.exp(logits / 0.5 - (logits / 0.5).max())
    probabilities /= probabilities.sum()
    counts = np.zeros(ROWS)
    for seed in range(600):
        counts[context.sample(1, temperature=0.5, seed=seed)] += 1
        context.truncate(5)
    # Pearson's statistic of ten groups of tokens; 35 is beyond its 99.99 % quantile.
    groups = np.array_split(np.argsort(probabilities), 10)
    expected = np.array([probabilities[group].sum() for group in groups]) * 600
    found = np.array([counts[group].sum() for group in groups])
    assert ((found - expected) ** 2 / expected).sum() < 35


@pytest.mark.parametrize("seed", range(2))
def test_any_history_of_edits_gives_the_same_logits(
    extension: ModuleType, model, oracle: Transformer, seed: int
) -> None:
    """Appending, sampling, truncating, resetting and returning to earlier tokens, around the rings' ends."""
    source = random.Random(seed)
    context = extension.Context(model, 400, 16)  # rings hold 7 + 16 + 128 positions
    shadow: list[int] = []
    remembered = [some_tokens(330, seed)]
    reused = recomputed = 0
    for _ in range(20):
        action = source.choice(["append", "append", "sample", "truncate", "return"])
        if action == "append":
            added = some_tokens(source.choice([1, 2, 15, 17, 90]), source.randrange(1000))[: 400 - len(shadow)]
            context.append(added)
            shadow += added
        elif action == "sample" and shadow:
            shadow += context.sample(source.randrange(1, 4), seed=source.randrange(100))
        elif action == "truncate":
            length = max(0, len(shadow) - source.choice([1, 5, 100, 143, 144, 145, 200]))
            context.truncate(length)
            del shadow[length:]
        elif action == "return":
            context.reset()
            shadow = source.choice(remembered)[: source.randrange(1, 330)]
            context.append(shadow)
        assert context.tokens == shadow
        if shadow:
            cached = context.num_cached_tokens
            reused += 0 < cached < len(shadow)
            recomputed += cached == 0
            np.testing.assert_allclose(context.logits, expected_logits(oracle, shadow), atol=TOLERANCE)
            remembered.append(list(shadow))
    assert reused and recomputed


def test_a_common_prefix_is_not_computed_again(extension: ModuleType, model) -> None:
    context = extension.Context(model, 200)
    tokens = some_tokens(100)
    context.append(tokens)
    context.process()
    context.reset()
    assert (context.num_tokens, context.num_cached_tokens) == (0, 0)
    context.append([*tokens[:60], (tokens[60] + 1) % ROWS, 5])
    assert context.num_cached_tokens == 60
    context.append(tokens[:3])
    np.testing.assert_allclose(context.logits, fresh_logits(extension, model, context.tokens), atol=TOLERANCE)


def test_logits_are_not_those_of_a_sequence_that_was_left(extension: ModuleType, model) -> None:
    context = extension.Context(model, 200)
    context.append(some_tokens(9))
    first = np.array(context.logits)
    context.truncate(8)
    context.append((some_tokens(9)[8] + 1) % ROWS)
    assert np.abs(np.array(context.logits) - first).max() > 0.1
    context.truncate(8)
    context.append(some_tokens(9)[8])
    np.testing.assert_allclose(context.logits, first, atol=TOLERANCE)


def test_text_is_appended_as_the_tokenizer_encodes_it(extension: ModuleType, model) -> None:
    context = extension.Context(model, 200)
    context.append("the thing é")
    context.append(b"\xff abc")
    context.append(7)
    encode = model.tokenizer.encode
    assert context.tokens == [*encode("the thing é"), *encode(b"\xff abc"), 7]
    context.append("")
    assert context.num_tokens == len(context.tokens)


def test_what_is_refused_changes_nothing(extension: ModuleType, model) -> None:
    context = extension.Context(model, 20)
    context.append([1, 2, 3])
    refused = [
        (ContextOverflow, "18 more tokens", lambda: context.append([1] * 18)),
        (ContextOverflow, "do not fit", lambda: context.append("x" * 30)),
        (RequestError, f"token {ROWS} is not among the model's {ROWS}", lambda: context.append([1, ROWS])),
        (RequestError, "a token is -1", lambda: context.append(-1)),
        (RequestError, "truncated to 4 tokens: it holds 3", lambda: context.truncate(4)),
        (RequestError, "temperature is -1", lambda: context.sample(1, temperature=-1)),
        (RequestError, "temperature is nan", lambda: context.sample(1, temperature=float("nan"))),
        (RequestError, "top_p is 0", lambda: context.sample(1, top_p=0)),
        (RequestError, "top_p is 1.5", lambda: context.sample(1, top_p=1.5)),
        (RequestError, "a number of tokens is -1", lambda: context.sample(-1)),
        (TypeError, "sequence of token ids", lambda: context.append(None)),
        (TypeError, None, lambda: context.append(["a"])),
        (RequestError, "has at most 131072", lambda: extension.Context(model, 131073)),
        (TypeError, None, lambda: extension.Context(None)),
    ]
    for error, message, call in refused:
        with pytest.raises(error, match=message):
            call()
        assert context.tokens == [1, 2, 3]
    empty = extension.Context(model)
    empty.process()
    with pytest.raises(RequestError, match="the context is empty"):
        empty.sample(1)
    with pytest.raises(RequestError, match="the context is empty"):
        _ = empty.logits


def test_the_interpreter_runs_while_the_device_works(extension: ModuleType, model) -> None:
    context = extension.Context(model, 100, 1)
    context.append(some_tokens(100))
    worker = threading.Thread(target=context.process)
    worker.start()
    refused = 0
    while worker.is_alive():
        time.sleep(0.001)
        try:
            context.append(1)
        except RuntimeError as error:
            assert "another thread" in str(error)
            refused += 1
        except ContextOverflow:
            pass  # between the end of the work and that of the thread
    assert refused > 5
    assert context.num_cached_tokens == 100


def test_a_signal_ends_a_computation_and_it_can_go_on(extension: ModuleType, model) -> None:
    class Interrupted(Exception):
        pass

    def handler(_number: int, _frame: object) -> None:
        raise Interrupted

    context = extension.Context(model, 1000, 1)
    context.append(some_tokens(1000))
    before = signal.signal(signal.SIGVTALRM, handler)  # after 0.1 s of this process's own time
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.1)
        with pytest.raises(Interrupted):
            context.process()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    done = context.num_cached_tokens
    assert 0 < done < 1000
    context.truncate(done + 3)
    tokens = context.tokens
    np.testing.assert_allclose(context.logits, fresh_logits(extension, model, tokens), atol=TOLERANCE)


def test_everything_is_released(extension: ModuleType, kernel_library: Path, folder: Path) -> None:
    live = ctypes.CDLL(str(kernel_library)).emulator_live_objects
    live.restype = ctypes.c_uint32
    before = live()
    for _ in range(3):
        model = extension.Model(folder / "model.bin")
        context = extension.Context(model, 70)
        context.append(some_tokens(60))
        context.sample(2)
        assert live() > before
        del model, context
    assert live() == before

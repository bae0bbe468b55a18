"""The engine on the real model with random weights, in fp32: who else is served changes no text."""

from pathlib import Path

import numpy as np
import pytest

from gpt_oss.backends import load_generator
from gpt_oss.token_generator import TokenGenerator
from tests.helpers.checkpoints import tiny_checkpoint, tiny_config

VOCAB = 211


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("random") / "checkpoint", tiny_config(vocab_size=VOCAB))


def load(checkpoint: Path, slots: int) -> TokenGenerator:
    generator = load_generator("torch", checkpoint, context_length=400, slots=slots, dtype="float32", device="cpu")
    assert generator is not None
    return generator


def requests() -> list[dict]:
    """32 requests: prompts of 1 to 200 tokens, half of them sharing a beginning, greedy and sampled."""
    random = np.random.default_rng(8)
    shared = random.integers(0, VOCAB, 150).tolist()
    made = []
    for n in range(32):
        own = random.integers(0, VOCAB, random.integers(1, 50)).tolist()
        prompt = shared[: random.integers(150)] + own if n % 2 else own
        temperature = [0.0, 1.0, 0.7, 1.0][n % 4]
        made.append({"prompt_tokens": prompt, "temperature": temperature, "top_p": 0.95, "seed": n, "max_tokens": 12})
    return made


def test_32_concurrent_requests_give_the_texts_of_32_sequential_ones(checkpoint) -> None:
    with load(checkpoint, slots=1) as generator:
        alone = [[token.id for token in generator.stream(**request)] for request in requests()]
    with load(checkpoint, slots=8) as generator:
        started = [generator.stream(**request) for request in requests()]
        together = [[token.id for token in generation] for generation in started]
        assert generator.stats.requests == 32
    assert together == alone


def test_a_conversation_reuses_its_cache_and_says_what_it_would_without(checkpoint) -> None:
    turns = [np.random.default_rng(n).integers(0, VOCAB, 40).tolist() for n in range(3)]

    def converse(generator: TokenGenerator, disturb: bool) -> list[list[int]]:
        history: list[int] = []
        answers = []
        for turn in turns:
            history += turn
            if disturb:  # the only slot is used by someone else between two turns
                list(generator.generate([5, 6, 7], max_tokens=3))
            answers.append(list(generator.generate(history, temperature=0, max_tokens=20)))
            history += answers[-1]
        return answers

    with load(checkpoint, slots=1) as generator:
        answers = converse(generator, disturb=False)
        # Turn 2 finds turn 1 and its answer but for the last token; turn 3 likewise.
        assert generator.stats.cached_tokens == (40 + 19) + (2 * 40 + 20 + 19)
    with load(checkpoint, slots=1) as generator:
        assert converse(generator, disturb=True) == answers
        assert generator.stats.cached_tokens == 0

"""Sampling against the distributions computed by NumPy in float64, and its independence from the batch."""

import math
import time

import numpy as np
import pytest
import torch

from gpt_oss.sampling import INVALID, RowSettings, log_probabilities, sample, token_logprobs, uniform

VOCAB = 201_088


def distribution(logits, settings: RowSettings) -> np.ndarray:
    """What the settings ask for, by the definition: mask, top-k, temperature, top-p; ties to the lower id."""
    logits = np.asarray(logits, np.float64).copy()
    if settings.allowed is not None:
        logits[~settings.allowed.numpy()] = -np.inf
    ranked = np.argsort(-logits, kind="stable")
    if settings.top_k:
        logits[ranked[settings.top_k :]] = -np.inf
    weights = np.exp((logits - logits.max()) / settings.temperature)
    probabilities = weights / weights.sum()
    before = np.concatenate([[0.0], np.cumsum(probabilities[ranked])[:-1]])
    probabilities[ranked[before >= settings.top_p]] = 0.0
    return probabilities / probabilities.sum()


def draw(logits, count: int, **settings) -> np.ndarray:
    """`count` samples of one distribution, by consecutive steps of one seed, in batches of 1,000."""
    logits = torch.as_tensor(logits, dtype=torch.float32)
    rows = [RowSettings(step=step, seed=4, **settings) for step in range(count)]
    batches = [rows[start : start + 1000] for start in range(0, count, 1000)]
    return torch.cat([sample(logits.expand(len(batch), -1), batch) for batch in batches]).numpy()


def chi_square_exceeds(observed: np.ndarray, expected: np.ndarray) -> bool:
    """Whether the counts deviate more than one true sample in a million would."""
    possible = expected > 0
    assert observed[~possible].sum() == 0, "an impossible token was drawn"
    statistic = ((observed - expected)[possible] ** 2 / expected[possible]).sum()
    freedom = possible.sum() - 1
    # Wilson and Hilferty: the cube root of chi-square over its freedom is nearly normal. 4.75 sigma: 1e-6.
    z = ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))
    return z > 4.75


LOGITS = np.random.default_rng(3).normal(scale=1.5, size=40)
ODD = torch.arange(40) % 2 == 1


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.6},
        {"temperature": 2.5},
        {"top_p": 0.8},
        {"top_k": 7},
        {"top_k": 12, "top_p": 0.7, "temperature": 1.7},
        {"allowed": ODD},
        {"allowed": ODD, "top_k": 8, "top_p": 0.9},
    ],
    ids=str,
)
def test_chi_square_of_100_000_samples(settings) -> None:
    expected = 100_000 * distribution(LOGITS, RowSettings(**settings))
    observed = np.bincount(draw(LOGITS, 100_000, **settings), minlength=40)
    assert not chi_square_exceeds(observed, expected)


def test_the_chi_square_test_can_fail() -> None:
    wrong = 100_000 * distribution(LOGITS, RowSettings(temperature=1.03))
    assert chi_square_exceeds(np.bincount(draw(LOGITS, 100_000), minlength=40), wrong)


def test_random_settings_never_leave_the_support_and_reach_all_of_it() -> None:
    random = np.random.default_rng()
    for _ in range(30):
        vocab = int(random.integers(2, 30))
        # Coarse logits make ties, also at the cut of top-k and top-p.
        logits = np.round(random.normal(scale=1.0, size=vocab) * 2) / 2
        settings = {
            "temperature": float(random.uniform(0.5, 2)),
            "top_k": int(random.integers(0, vocab + 3)),
            "top_p": float(random.choice([1.0, random.uniform(0.01, 1)])),
        }
        # Where a sum of probabilities lies on top_p, fp32 may take one token more or less than fp64.
        least, most = (
            distribution(logits, RowSettings(**settings | {"top_p": settings["top_p"] * share}))
            for share in (1 - 1e-5, 1 + 1e-5)
        )
        observed = np.bincount(draw(logits, 2000, **settings), minlength=vocab)
        assert observed[most == 0].sum() == 0, (logits, settings)
        assert (observed[least > 0.01] > 0).all(), (logits, settings)


def test_rows_do_not_depend_on_their_batch() -> None:
    random = np.random.default_rng()
    logits = torch.from_numpy(random.normal(scale=2.0, size=(40, 1000)).astype(np.float32))
    rows = [
        RowSettings(
            temperature=float(random.choice([0.0, 0.7, 1.0, 1.5])),
            top_p=float(random.choice([1.0, 0.9, 0.5])),
            top_k=int(random.choice([0, 1, 5, 100, 5000])),
            seed=int(random.integers(2**63)),
            step=n,
            allowed=torch.from_numpy(random.random(1000) < 0.5) if n % 3 == 0 else None,
        )
        for n in range(40)
    ]
    before = logits.clone()
    together = sample(logits, rows).tolist()
    alone = [sample(logits[n : n + 1], rows[n : n + 1]).item() for n in range(40)]
    order = random.permutation(40)
    shuffled = sample(logits[order], [rows[n] for n in order]).tolist()
    assert together == alone
    assert shuffled == [together[n] for n in order]
    assert torch.equal(logits, before), "the caller's logits were changed"


class TestGreedy:
    def test_ties_go_to_the_lowest_id(self) -> None:
        logits = torch.tensor([[0.0, 3.0, 1.0, 3.0, 3.0]])
        assert sample(logits, [RowSettings(temperature=0)]).tolist() == [1]
        assert sample(logits, [RowSettings(top_k=1, seed=9)]).tolist() == [1]
        masked = RowSettings(temperature=0, allowed=torch.tensor([True, False, True, True, True]))
        assert sample(logits, [masked]).tolist() == [3]

    def test_a_tiny_top_p_is_argmax(self) -> None:
        logits = torch.randn(50, 300).round()
        rows = [RowSettings(top_p=1e-9, seed=seed) for seed in range(50)]
        assert torch.equal(sample(logits, rows), logits.argmax(dim=-1))

    @pytest.mark.parametrize("temperature", [1e-3, 1e-30, 5e-324])
    def test_tiny_temperatures_become_argmax(self, temperature: float) -> None:
        logits = torch.randperm(300)[None].float()
        assert sample(logits, [RowSettings(temperature=temperature)]).item() == logits.argmax().item()

    def test_huge_temperatures_become_uniform_over_what_is_allowed(self) -> None:
        drawn = draw(LOGITS, 20_000, temperature=1e300, allowed=ODD)
        assert not chi_square_exceeds(np.bincount(drawn, minlength=40), 1000.0 * ODD.numpy())


class TestInvalidRows:
    @pytest.mark.parametrize("temperature", [0.0, 1.0])
    @pytest.mark.parametrize("top_p", [1.0, 0.5])
    @pytest.mark.parametrize("top_k", [0, 3])
    def test_no_distribution(self, temperature: float, top_p: float, top_k: int) -> None:
        good = torch.tensor([1.0, -math.inf, -math.inf, -math.inf])
        bad = [
            torch.full((4,), -math.inf),
            torch.full((4,), math.nan),
            torch.tensor([1.0, math.nan, 0.0, 0.0]),
            torch.tensor([1.0, math.inf, 0.0, 0.0]),
        ]
        settings = RowSettings(temperature=temperature, top_p=top_p, top_k=top_k)
        assert sample(torch.stack([*bad, good]), [settings] * 5).tolist() == [INVALID] * 4 + [0]


class TestUniform:
    def test_known_values(self) -> None:
        """SplitMix64 of seed 0 begins with these numbers (Vigna's splitmix64.c); seed 0 hashes to 0."""
        published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]
        assert [uniform(0, step) for step in range(4)] == [(value >> 11) / 2**53 for value in published]

    def test_neighbouring_seeds_and_steps_are_unrelated(self) -> None:
        table = np.array([[uniform(seed, step) for step in range(300)] for seed in range(300)])
        assert table.min() >= 0 and table.max() < 1
        assert len(np.unique(table)) == table.size
        for shift in ((0, 1), (1, 0), (1, 1), (1, -1), (2, 0)):
            assert abs(np.corrcoef(table.ravel(), np.roll(table, shift, (0, 1)).ravel())[0, 1]) < 0.02
        assert not chi_square_exceeds(np.histogram(table, 100, (0, 1))[0], np.full(100, table.size / 100))


class TestLogprobs:
    @pytest.mark.parametrize("scale", [0.0, 1.0, 3.0, 5.0, 10.0, 100.0])
    @pytest.mark.parametrize("equal", [False, True], ids=["", "many equal"])
    def test_probabilities_sum_to_one(self, scale: float, equal: bool) -> None:
        logits = torch.randn(3, VOCAB) * scale
        if equal:  # as the embedded model's unknown tokens; what one loses by rounding, all lose
            logits[:, 1_000:] = torch.randn(3, 1)
        total = np.exp(log_probabilities(logits).numpy().astype(np.float64)).sum(-1)
        assert np.abs(total - 1).max() <= 1e-5

    def test_chosen_and_most_probable(self) -> None:
        logits = np.random.default_rng().normal(size=(3, 500)).astype(np.float32)
        exact = logits - np.log(np.exp(logits.astype(np.float64)).sum(-1, keepdims=True))
        for row, chosen, (logprob, top) in zip(
            exact, [4, 0, 499], token_logprobs(torch.from_numpy(logits), [4, 0, 499], 20), strict=True
        ):
            assert logprob == pytest.approx(row[chosen], abs=1e-5)
            # By value: of two that are equal in fp32 either may come first.
            ids, values = ([pair[n] for pair in top] for n in (0, 1))
            assert values == pytest.approx(np.sort(row)[::-1][:20], abs=1e-5)
            assert values == pytest.approx(row[ids], abs=1e-5) and len(set(ids)) == 20

    def test_more_alternatives_than_tokens(self) -> None:
        ((_, top),) = token_logprobs(torch.zeros(1, 3), [0], 20)
        assert sorted(id for id, _ in top) == [0, 1, 2]


def test_one_row_of_the_real_vocabulary_costs_a_few_times_its_sums() -> None:
    """1 ms where exponentials and their sums take 0.45; multinomial would take 5 ms and a sort 20.

    This thread's processor time, the best of many runs: what it costs without the noise of a shared machine.
    """
    logits, rows = torch.randn(1, VOCAB) * 3, [RowSettings(seed=1)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    best = {"sample": math.inf, "sums": math.inf}
    try:
        for _ in range(40):
            for name in best:
                start = time.thread_time()
                if name == "sample":
                    sample(logits, rows)
                else:
                    logits.exp().double().cumsum(-1)
                best[name] = min(best[name], time.thread_time() - start)
    finally:
        torch.set_num_threads(threads)
    assert best["sample"] < 5 * best["sums"], best

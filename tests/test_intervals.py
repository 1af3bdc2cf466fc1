"""Bootstrap intervals: against NumPy, against theory, and on clustered samples."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchmarks import intervals

pytestmark = pytest.mark.once


def test_the_value_is_numpys_quantile_of_all_samples() -> None:
    rounds = [np.array([3.0, 1.0, 2.0]), np.array([10.0]), np.array([4.0, 5.0])]
    every = [1, 2, 3, 4, 5, 10]
    for q in (0.5, 0.9):
        assert intervals.quantile(rounds, q).value == np.quantile(every, q)


def test_the_interval_is_that_of_all_resamples() -> None:
    """With three rounds there are 27 resamples: the ends are the quantiles of their medians, in the
    limit of many draws.
    """
    rounds = [np.array([1.0, 2.0]), np.array([5.0, 7.0]), np.array([20.0, 30.0])]
    medians = [
        np.median(np.concatenate([rounds[i] for i in row])) for row in itertools.product(range(3), repeat=3)
    ]
    found = intervals.quantile(rounds, draws=20_000)
    every = np.repeat(medians, 1000)  # as often as each comes up in very many draws
    assert found.low == np.quantile(every, 0.025)
    assert found.high == np.quantile(every, 0.975)


def test_the_same_samples_give_the_same_interval() -> None:
    rounds = list(np.random.default_rng(1).normal(10, 1, (20, 5)))
    assert intervals.quantile(rounds) == intervals.quantile(rounds)
    assert intervals.quantile(rounds, seed=1) != intervals.quantile(rounds, seed=2)


def test_it_covers_the_true_median_as_often_as_it_says() -> None:
    """Rounds with a level of their own, as a drifting clock makes them: single samples drawn as if they were
    independent would give intervals a third as wide.
    """
    rng = np.random.default_rng(7)
    covered = naive = 0
    trials = 60
    for _ in range(trials):
        rounds = [rng.normal(level, 0.1, 20) for level in rng.normal(10, 1, 30)]
        one = intervals.quantile(rounds, draws=300)
        covered += one.low <= 10 <= one.high
        two = intervals.quantile([np.array([x]) for x in np.concatenate(rounds)], draws=300)
        naive += two.low <= 10 <= two.high
    assert covered / trials > 0.85
    assert naive / trials < 0.6


def test_pairing_cancels_what_disturbed_both() -> None:
    rng = np.random.default_rng(3)
    levels = rng.uniform(1, 3, 40)  # a machine that is now fast, now slow
    slow = [level * 1.2 * rng.normal(1, 0.01, 5) for level in levels]
    fast = [level * rng.normal(1, 0.01, 5) for level in levels]
    paired = intervals.ratio(slow, fast, paired=True)
    alone = intervals.ratio(slow, fast, paired=False)
    assert 1.1 < paired.low < 1.2 < paired.high < 1.3
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)


def test_rounds_that_do_not_match_are_not_paired() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        intervals.ratio([np.ones(2)], [np.ones(2)] * 2, paired=True)


@pytest.mark.parametrize(("samples", "expected"), [(100, 30), (30, 30), (7, 7), (1, 1)])
def test_blocks_keep_the_order_and_every_sample(samples: int, expected: int) -> None:
    parts = intervals.blocks(list(range(samples)))
    assert len(parts) == expected
    assert np.concatenate(parts).tolist() == list(range(samples))

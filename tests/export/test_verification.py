"""Figures of face verification, against cases that can be counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.evaluate_identity import read_pairs
from export.verification import best_threshold, ten_folds, threshold_at, true_accepts


@pytest.mark.parametrize("rate", [0.0, 0.001, 0.01, 0.5])
def test_no_more_false_accepts_than_asked(rate):
    others = np.random.default_rng(0).normal(size=4321)
    accepted = np.mean(others > threshold_at(others, rate))
    assert accepted <= rate
    assert accepted > rate - 1 / others.size - 1e-12  # and as many as that allows


def test_equal_scores_are_all_refused_or_all_accepted():
    others = np.array([0.1, 0.5, 0.5, 0.5])
    assert threshold_at(others, 0.25) == 0.5
    assert threshold_at(others, 0.75) == 0.1
    assert threshold_at(others, 1.0) == -np.inf


def test_too_few_pairs_accept_none():
    assert threshold_at(np.array([0.3, 0.7]), 0.01) == 0.7


@pytest.mark.parametrize(("others", "rate"), [([], 0.1), ([0.5], -0.1), ([0.5], 1.5)])
def test_impossible_rates(others, rate):
    with pytest.raises(ValueError, match=r"false accept rate|no pairs"):
        threshold_at(np.array(others), rate)


def test_true_accepts_are_those_above():
    same, others = np.array([0.9, 0.8, 0.6, 0.2]), np.array([0.7, 0.3, 0.1, 0.0])
    assert true_accepts(same, others, (0.0, 0.25)) == {0.0: 0.5, 0.25: 0.75}


def test_best_threshold_is_the_best_of_all():
    rng = np.random.default_rng(1)
    for _ in range(20):
        same = rng.random(60) < 0.5
        scores = np.round(rng.normal(size=60) + same, 1)  # with ties
        found = np.mean((scores > best_threshold(scores, same)) == same)
        tried = [np.mean((scores > t) == same) for t in [*np.unique(scores), scores.min() - 1]]
        assert found == pytest.approx(max(tried))


def test_each_fold_is_judged_by_the_others():
    same = np.array([True, False] * 4)
    scores = np.array([0.9, 0.1, 0.9, 0.1, 0.9, 0.1, 0.2, 0.8])
    fold = np.repeat(np.arange(4), 2)
    # The last fold is the wrong way round: its own best threshold would have saved half of it.
    accuracy, spread = ten_folds(scores, same, fold)
    assert accuracy == pytest.approx(0.75)
    assert spread == pytest.approx(np.std([1, 1, 1, 0]))


def test_pairs_of_lfw_and_their_folds(tmp_path: Path):
    path = tmp_path / "pairs.txt"
    path.write_text("2\t1\nAda_L\t1\t4\nAda_L\t2\tBob_B\t3\nCy_C\t1\t2\nCy_C\t1\tAda_L\t1\n")
    assert read_pairs(path) == [
        ("Ada_L/Ada_L_0001", "Ada_L/Ada_L_0004", True, 0),
        ("Ada_L/Ada_L_0002", "Bob_B/Bob_B_0003", False, 0),
        ("Cy_C/Cy_C_0001", "Cy_C/Cy_C_0002", True, 1),
        ("Cy_C/Cy_C_0001", "Ada_L/Ada_L_0001", False, 1),
    ]
    path.write_text("2\t1\nAda_L\t1\t4\n")
    with pytest.raises(ValueError, match="1 pairs, the first line says 4"):
        read_pairs(path)

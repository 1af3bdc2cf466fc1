"""Scores of face verification: true and false accepts, thresholds, and the ten folds of the LFW pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def threshold_at(others: np.ndarray, rate: float) -> float:
    """The lowest score above which at most a share `rate` of the scores between different people lie.

    Args:
        others: scores of pairs of different people, any order.
        rate: false accept rate, 0..1. With fewer than 1/rate pairs no pair at all is accepted.

    Raises:
        ValueError: no pairs, or a rate outside 0..1.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"a false accept rate of {rate} is not possible: give 0 to 1")
    if not others.size:
        raise ValueError("no pairs of different people")
    accepted = int(np.floor(rate * others.size + 1e-9))
    if accepted >= others.size:
        return -np.inf
    # The score that has `accepted` others above it must itself be refused: accept what is greater.
    return float(np.partition(others, others.size - 1 - accepted)[others.size - 1 - accepted])


def true_accepts(same: np.ndarray, others: np.ndarray, rates: Sequence[float]) -> dict[float, float]:
    """TAR@FAR: share of pairs of one person above the threshold of each false accept rate."""
    return {rate: float(np.mean(same > threshold_at(others, rate))) for rate in rates}


def best_threshold(scores: np.ndarray, same: np.ndarray) -> float:
    """The threshold with the most pairs right: the middle between two scores.

    Args:
        scores: n.
        same: n bool, pairs of one person.
    """
    order = np.argsort(-scores, kind="stable")
    # Accepting the k highest: right are the same pairs among them and the others behind.
    right = np.concatenate([[0], np.cumsum(np.where(same[order], 1, -1))]) + int((~same).sum())
    edges = np.concatenate([[scores.max() + 1], scores[order], [scores.min() - 1]])
    gaps = edges[:-1] > edges[1:]  # between equal scores there is no threshold
    k = int(np.argmax(np.where(gaps, right, -1)))
    return float((edges[k] + edges[k + 1]) / 2)


def ten_folds(scores: np.ndarray, same: np.ndarray, fold: np.ndarray) -> tuple[float, float]:
    """Accuracy where each fold has the threshold that is best on the others (LFW, Huang et al. 2007).

    Args:
        scores: n, of pairs.
        same: n bool.
        fold: n int, the fold of each pair.

    Returns:
        Mean and standard deviation over the folds.
    """
    right = []
    for number in np.unique(fold):
        held = fold == number
        threshold = best_threshold(scores[~held], same[~held])
        right.append(float(np.mean((scores[held] > threshold) == same[held])))
    return float(np.mean(right)), float(np.std(right))

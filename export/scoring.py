"""Scores of detectors: average precision, false alarms, landmark error. One scorer for every detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.geometry import iou_matrix


@dataclass(slots=True, frozen=True)
class Detections:
    """What a detector says of one picture: boxes n x 4 (x, y, w, h) and scores n, in picture pixels."""

    boxes: np.ndarray
    scores: np.ndarray


@dataclass(slots=True, frozen=True)
class Score:
    """Average precision and what it was taken over.

    Attributes:
        ap: area under the interpolated precision-recall curve (all points, PASCAL VOC 2010), 0..1.
        recall: at the lowest score given, 0..1.
        faces: number of true faces counted.
        precision, recalls, scores: the curve, for plots, by falling score.
    """

    ap: float
    recall: float
    faces: int
    precision: np.ndarray
    recalls: np.ndarray
    scores: np.ndarray


def average_precision(
    truth: Sequence[np.ndarray],
    found: Sequence[Detections],
    *,
    iou: float = 0.4,
    side: tuple[float, float] = (0.0, np.inf),
    scales: Sequence[float] | None = None,
) -> Score:
    """Average precision of one class over a set of pictures.

    Detections are matched to truth by falling score, each to the best free face with at least `iou`.
    Faces whose side is outside the range are neither demanded nor a mistake when found, and an
    unmatched detection outside the range does not count as a false alarm (COCO's rule for sizes).

    Args:
        truth: per picture n x 4 boxes x, y, w, h.
        found: per picture detections.
        iou: smallest overlap of a match.
        side: [low, high) of the square root of a box's area, in scaled pixels.
        scales: per picture, scaled pixels per picture pixel; None = 1.
    """
    rows: list[tuple[float, int]] = []  # score, 1 hit / 0 false alarm
    total = 0
    for i, (boxes, result) in enumerate(zip(truth, found, strict=True)):
        k = 1.0 if scales is None else scales[i]
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        sides = np.sqrt(boxes[:, 2] * boxes[:, 3]) * k
        wanted = (sides >= side[0]) & (sides < side[1])
        total += int(wanted.sum())
        overlap = iou_matrix(result.boxes, boxes)
        free = np.ones(len(boxes), bool)
        for j in np.argsort(-result.scores, kind="stable"):
            # Faces that count are preferred; those that do not swallow what is left.
            hit = -1
            for group in (wanted, ~wanted):
                candidates = np.where(free & group, overlap[j], 0) if len(boxes) else np.zeros(0)
                if len(candidates) and candidates.max() >= iou:
                    hit = int(candidates.argmax())
                    break
            if hit >= 0:
                free[hit] = False
                if wanted[hit]:
                    rows.append((float(result.scores[j]), 1))
                continue
            own = float(np.sqrt(max(0.0, float(result.boxes[j, 2] * result.boxes[j, 3])))) * k
            if side[0] <= own < side[1]:
                rows.append((float(result.scores[j]), 0))
    rows.sort(key=lambda row: -row[0])
    hits = np.cumsum([hit for _, hit in rows]) if rows else np.zeros(0)
    precision = hits / np.arange(1, len(rows) + 1) if rows else np.zeros(0)
    recall = hits / max(total, 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    ap = float(np.sum(np.diff(np.concatenate([[0.0], recall])) * envelope))
    return Score(
        ap,
        float(recall[-1]) if len(recall) else 0.0,
        total,
        precision,
        recall,
        np.array([s for s, _ in rows]),
    )


def landmark_error(predicted: np.ndarray, teacher: np.ndarray) -> float:
    """Mean distance of five landmarks over the distance between the teacher's eyes.

    Args:
        predicted, teacher: 5 x 2, same pixels.
    """
    eyes = float(np.linalg.norm(teacher[0] - teacher[1]))
    return float(np.linalg.norm(predicted - teacher, axis=1).mean() / max(eyes, 1e-6))

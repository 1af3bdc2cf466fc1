"""The scorer: average precision against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from export.scoring import Detections, average_precision, landmark_error

A, B, TINY = [0, 0, 40, 40], [100, 0, 40, 40], [200, 0, 8, 8]


def found(*rows: tuple[list[float], float]) -> Detections:
    return Detections(
        np.array([box for box, _ in rows]).reshape(-1, 4), np.array([score for _, score in rows])
    )


@pytest.mark.parametrize(
    ("truth", "detections", "ap", "recall"),
    [
        ([[]], [found()], 0.0, 0.0),
        ([[A]], [found()], 0.0, 0.0),
        ([[]], [found((A, 0.9))], 0.0, 0.0),
        ([[A]], [found((A, 0.9))], 1.0, 1.0),
        ([[A, B]], [found((A, 0.9))], 0.5, 0.5),
        # A false alarm above the hit halves the precision, one below it costs nothing.
        ([[A]], [found((B, 0.95), (A, 0.9))], 0.5, 1.0),
        ([[A]], [found((B, 0.5), (A, 0.9))], 1.0, 1.0),
        # Twice the same face: the second one is a false alarm.
        ([[A, B]], [found((A, 0.9), (A, 0.8), (B, 0.7))], 0.5 + 0.5 * 2 / 3, 1.0),
        # Matches stay inside their picture.
        ([[A], []], [found(), found((A, 0.9))], 0.0, 0.0),
        ([[A]], [found(([30, 0, 40, 40], 0.9))], 0.0, 0.0),
    ],
)
def test_average_precision(truth, detections, ap, recall):
    score = average_precision([np.array(t).reshape(-1, 4) for t in truth], detections, iou=0.4)
    assert score.ap == pytest.approx(ap)
    assert score.recall == pytest.approx(recall)


def test_faces_outside_the_range_are_neither_demanded_nor_a_mistake():
    truth = [np.array([A, TINY])]
    for detections in (
        found((A, 0.9)),
        found((TINY, 0.95), (A, 0.9)),
        found(([300, 0, 9, 9], 0.95), (A, 0.9)),
    ):
        score = average_precision(truth, [detections], side=(16, np.inf))
        assert (score.ap, score.faces) == (1.0, 1)
    # The same small face counts where the picture is shown larger.
    assert average_precision(truth, [found((A, 0.9))], side=(16, np.inf), scales=[4.0]).faces == 2


def test_landmark_error_is_over_the_distance_between_the_eyes():
    teacher = np.array([[0, 0], [10, 0], [5, 5], [2, 10], [8, 10]], np.float32)
    assert landmark_error(teacher, teacher) == 0
    assert landmark_error(teacher + [1, 0], teacher) == pytest.approx(0.1)

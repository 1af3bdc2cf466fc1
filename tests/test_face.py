"""The face task on tiny models with fixed outputs: decoding, thresholds, order, clipping."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge.tasks.face import FaceDetector, cells
from edge.tflite import Model
from tests.tiny_models import constant_model

SIZE = 64
COUNT = 8 * 8 + 4 * 4 + 2 * 2


def detector(faces: list[tuple[int, float, tuple[float, ...]]], **options) -> FaceDetector:
    """A detector whose model says: at cell i, a logit and a raw box; landmarks are all one stride right."""
    scores = np.full((1, COUNT, 1), -20, np.float32)
    boxes = np.zeros((1, COUNT, 4), np.float32)
    landmarks = np.zeros((1, COUNT, 10), np.float32)
    landmarks[..., 0::2] = 1.0
    for i, logit, box in faces:
        scores[0, i, 0] = logit
        boxes[0, i] = box
    data = constant_model((1, SIZE, SIZE, 3), {"landmarks": landmarks, "scores": scores, "boxes": boxes})
    return FaceDetector(Model(data), **options)


def picture(width: int = SIZE, height: int = SIZE) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


def test_cells_are_ordered_by_stride_then_row_then_column():
    centres, strides = cells((SIZE, SIZE))
    assert len(centres) == COUNT
    assert centres[0].tolist() == [4, 4]
    assert centres[1].tolist() == [12, 4]
    assert centres[8].tolist() == [4, 12]
    assert centres[64].tolist() == [8, 8]
    assert centres[-1].tolist() == [48, 48]
    assert strides[[0, 63, 64, 80, 83]].tolist() == [8, 8, 16, 32, 32]


def test_no_face():
    assert detector([]).detect(picture()) == ()


def test_decodes_box_and_landmarks_into_pixels_of_the_picture():
    # Cell (2, 3) of stride 8: centre (20, 28); box centre half a stride right; 16 x 8 model pixels.
    i = 3 * 8 + 2
    found = detector([(i, 3.0, (0.5, 0, math.log(2), 0))]).detect(picture(SIZE * 2, SIZE * 2))
    assert len(found) == 1
    face = found[0]
    assert face.box == pytest.approx((2 * (24 - 8), 2 * (28 - 4), 32, 16), abs=1e-3)
    assert face.score == pytest.approx(1 / (1 + math.exp(-3)))
    assert face.landmarks.shape == (5, 2)
    # One stride to the right of the cell centre.
    assert face.landmarks == pytest.approx(np.tile([2 * 28.0, 2 * 28.0], (5, 1)))
    assert face.track is None


def test_letterboxed_pictures_lead_back_to_their_own_pixels():
    found = detector([(0, 3.0, (0, 0, 0, 0))]).detect(picture(128, 32))
    assert found[0].box == pytest.approx((0, 0, 16, 16), abs=1e-3)


def test_boxes_are_clipped_and_those_in_the_padding_dropped():
    big = math.log(8)
    found = detector([(0, 3.0, (0, 0, big, big))]).detect(picture())
    assert found[0].box == pytest.approx((0, 0, 36, 36), abs=1e-3)
    # A wide picture fills only the upper quarter of the input; the last cell lies in the black below.
    assert detector([(COUNT - 1, 3.0, (0, 0, 0, 0))]).detect(picture(64, 16)) == ()


@pytest.mark.parametrize(("threshold", "expected"), [(0.5, 2), (0.9, 1), (0.999, 0), (0.0, 2)])
def test_threshold_and_order(threshold, expected):
    faces = [(0, 1.0, (0, 0, 0, 0)), (20, 4.0, (0, 0, 0, 0))]
    found = detector(faces, score_threshold=threshold, nms_iou=0.45).detect(picture())
    if threshold == 0.0:  # the other cells speak up too, at next to nothing
        found = tuple(face for face in found if face.score > 0.01)
    assert len(found) == expected
    assert [face.score for face in found] == sorted((face.score for face in found), reverse=True)


def test_fifty_faces_and_one_per_place():
    faces = [(i, 2.0 + i / 100, (0, 0, -1, -1)) for i in range(50)]
    assert len(detector(faces).detect(picture())) == 50
    twice = [(0, 2.0, (0.5, 0, 1, 1)), (1, 3.0, (-0.5, 0, 1, 1))]
    assert len(detector(twice).detect(picture())) == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (7, 5)])
def test_odd_pictures(shape):
    for face in detector([(0, 3.0, (0, 0, 0, 0))]).detect(picture(shape[1], shape[0])):
        x, y, w, h = face.box
        assert x >= 0
        assert y >= 0
        assert x + w <= shape[1] + 1e-3
        assert y + h <= shape[0] + 1e-3


def test_empty_picture_is_an_error():
    with pytest.raises(ValueError, match="empty"):
        detector([]).detect(picture(0, 0))


def test_cells_that_agree_vote_by_score_and_weak_ones_do_not_report():
    # Cells 0 and 1 see nearly the same 24 px box; their centres are 8 px apart.
    large = math.log(3)
    strong, weak = 3.0, 0.0
    found = detector([(0, strong, (0.4, 0, large, large)), (1, weak, (-0.4, 0, large, large))]).detect(
        picture()
    )
    assert len(found) == 1
    share = 1 / (1 + math.exp(-strong))
    weight = share / (share + 0.5)
    middle = weight * (4 + 3.2) + (1 - weight) * (12 - 3.2)
    x, _, w, _ = found[0].box
    assert x + w == pytest.approx(middle + 12, abs=1e-3)
    assert found[0].score == pytest.approx(share)
    assert found[0].landmarks[0, 0] == pytest.approx(weight * 12 + (1 - weight) * 20, abs=1e-3)
    assert detector([(1, weak, (-0.4, 0, large, large))], score_threshold=0.6).detect(picture()) == ()

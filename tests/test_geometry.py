"""Letterbox, IoU and NMS, by tables of cases that include the empty one."""

from __future__ import annotations

import numpy as np
import pytest

from edge.geometry import iou, iou_matrix, letterbox, nms


@pytest.mark.parametrize(
    ("picture", "size", "scale", "part"),
    [
        ((480, 640), (384, 384), 0.6, (384, 288)),
        ((640, 480), (384, 384), 0.6, (288, 384)),
        ((100, 100), (384, 384), 3.84, (384, 384)),
        ((1, 1), (64, 32), 32.0, (32, 32)),
        ((3000, 4000), (320, 320), 0.08, (320, 240)),
        ((1, 5000), (320, 320), 0.064, (320, 1)),
        ((5000, 1), (320, 320), 0.064, (1, 320)),
    ],
)
def test_letterbox_keeps_the_shape_and_fills_with_black(picture, size, scale, part):
    out = np.full((size[1], size[0], 3), 7, np.uint8)
    fit = letterbox(np.full((*picture, 3), 200, np.uint8), size, out)
    assert fit.scale == pytest.approx(scale)
    assert (fit.width, fit.height) == part
    assert (out[: part[1], : part[0]] == 200).all()
    assert not out[part[1] :].any()
    assert not out[:, part[0] :].any()


def test_letterbox_leaves_its_input_alone_and_does_not_alias_fine_patterns():
    image = np.zeros((1000, 1000, 3), np.uint8)
    image[::2] = 254
    before = image.copy()
    out = np.empty((100, 100, 3), np.uint8)
    letterbox(image, (100, 100), out)
    assert (image == before).all()
    assert abs(int(out.mean()) - 127) < 3
    assert int(out.max()) - int(out.min()) < 10


@pytest.mark.parametrize(
    ("image", "out"),
    [
        (np.zeros((0, 5, 3), np.uint8), np.zeros((32, 32, 3), np.uint8)),
        (np.zeros((5, 0, 3), np.uint8), np.zeros((32, 32, 3), np.uint8)),
        (np.zeros((5, 5, 3), np.uint8), np.zeros((32, 64, 3), np.uint8)),
        (np.zeros((5, 5, 3), np.uint8), None),
    ],
)
def test_letterbox_refuses_what_it_cannot_fit(image, out):
    with pytest.raises(ValueError, match=r"empty|output"):
        letterbox(image, (32, 32), out)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (5, 0, 10, 10), 1 / 3),
        ((0, 0, 10, 10), (10, 0, 10, 10), 0.0),
        ((0, 0, 10, 10), (2, 2, 5, 5), 0.25),
        ((0, 0, 0, 0), (0, 0, 0, 0), 0.0),
        ((-5, -5, 10, 10), (-5, -5, 10, 5), 0.5),
    ],
)
def test_iou(a, b, expected):
    assert iou(a, b) == pytest.approx(expected)
    assert iou(b, a) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (3, 0), (2, 5)])
def test_iou_matrix_shape(n, m):
    assert iou_matrix(np.zeros((n, 4)), np.ones((m, 4))).shape == (n, m)


@pytest.mark.parametrize(
    ("boxes", "scores", "threshold", "kept"),
    [
        ([], [], 0.5, []),
        ([[0, 0, 9, 9]], [0.1], 0.5, [0]),
        ([[0, 0, 9, 9], [0, 0, 9, 9]], [0.1, 0.2], 0.5, [1]),
        ([[0, 0, 9, 9], [20, 0, 9, 9]], [0.1, 0.2], 0.5, [1, 0]),
        # 1 overlaps 0 and 2; 0 and 2 stay, since the loser suppresses nobody.
        ([[0, 0, 10, 10], [4, 0, 10, 10], [8, 0, 10, 10]], [0.9, 0.8, 0.7], 0.3, [0, 2]),
        ([[0, 0, 9, 9], [0, 0, 9, 9]], [0.5, 0.5], 0.5, [0]),
    ],
)
def test_nms(boxes, scores, threshold, kept):
    assert nms(np.array(boxes).reshape(-1, 4), np.array(scores), threshold).tolist() == kept

"""Letterbox, alignment, IoU and NMS, by tables of cases that include the empty one."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from edge.geometry import align, iou, iou_matrix, letterbox, nms, similarity


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


POINTS = np.array([[0.37, 0.37], [0.63, 0.37], [0.5, 0.51], [0.4, 0.66], [0.6, 0.66]])


@pytest.mark.parametrize("angle", [0, 0.3, -2, math.pi])
@pytest.mark.parametrize("scale", [1e-4, 0.5, 1, 1e4])
@pytest.mark.parametrize("shift", [(0, 0), (-31, 17.5), (1e5, -1e5)])
@pytest.mark.parametrize("count", [2, 5])
def test_similarity_finds_turn_scale_and_shift(angle, scale, shift, count):
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    turn = np.array([[c, -s], [s, c]])
    found = similarity(POINTS[:count], POINTS[:count] @ turn.T + shift)
    assert found.shape == (2, 3)
    assert found[:, :2] == pytest.approx(turn, rel=1e-6, abs=1e-6)
    assert found[:, 2] == pytest.approx(shift, rel=1e-6, abs=1e-6)


def test_similarity_is_the_least_squares_fit_and_never_mirrors():
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    x, y = source.T
    one, zero = np.ones(5), np.zeros(5)
    system = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
    a, b, dx, dy = np.linalg.lstsq(system, np.concatenate([target[:, 0], target[:, 1]]), rcond=None)[0]
    assert similarity(source, target) == pytest.approx(np.array([[a, -b, dx], [b, a, dy]]))
    mirrored = similarity(POINTS, POINTS * [-1, 1])
    assert np.linalg.det(mirrored[:, :2]) > 0


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((5, 2)),
        np.full((5, 2), 1e6),
        np.full((5, 2), np.nan),
        np.full((5, 2), np.inf),
        [[0, 0], [1, np.inf]],
    ],
)
def test_similarity_refuses_points_that_tell_nothing(points):
    with pytest.raises(ValueError, match="coincide or are not finite"):
        similarity(points, POINTS[: len(points)])
    with pytest.raises(ValueError, match="coincide or are not finite"):
        align(np.zeros((9, 9, 3), np.uint8), points, POINTS[: len(points)], 32)


def dotted(points, width=640, height=480, radius=3.0):
    """A black picture with soft white dots at these points (pixels, from the corner of the first one)."""
    ys, xs = np.mgrid[0:height, 0:width] + 0.5
    grey = sum(np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * radius**2)) for x, y in points)
    return np.repeat((255 * np.minimum(grey, 1))[..., None].astype(np.uint8), 3, axis=2)


def centre_near(crop, point, reach):
    """Centre of what is bright within `reach` of a point of a crop; points as in `dotted`."""
    ys, xs = np.mgrid[0 : crop.shape[0], 0 : crop.shape[1]] + 0.5
    weight = crop[..., 0] * (np.hypot(xs - point[0], ys - point[1]) < reach)
    return np.array([(xs * weight).sum(), (ys * weight).sum()]) / weight.sum()


def test_align_is_exact_to_the_half_pixel():
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (40, 50, 3), np.uint8)
    before = image.copy()
    # Corners of a 16 px crop at 7, 5: a plain cut; then twice its size, and a half-turn.
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    at = corners * 16 + [7, 5]
    assert np.array_equal(align(image, at, corners, 16), image[5:21, 7:23])
    assert np.array_equal(align(image, at[::-1], corners, 16), image[5:21, 7:23][::-1, ::-1])
    twice = cv2.resize(image[5:21, 7:23], (32, 32), interpolation=cv2.INTER_LINEAR)
    difference = align(image, at, corners, 32)[1:-1, 1:-1].astype(int) - twice[1:-1, 1:-1]
    assert np.abs(difference).max() <= 2  # their weights are rounded
    assert np.array_equal(image, before)


@pytest.mark.parametrize("angle", [0, 0.4, -1.2])
@pytest.mark.parametrize("side", [40, 90, 190, 193, 300, 390, 520, 1100])
def test_align_brings_landmarks_to_the_template_at_every_reduction(side, angle):
    size = 96
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    marks = ((POINTS - 0.5) * side) @ turn.T + [621.3, 540.8]
    image = dotted(marks, 1241, 1111, radius=max(1.0, side / 50))
    crop = align(image, marks.astype(np.float32), POINTS, size)
    for point in POINTS * size:
        assert np.hypot(*(centre_near(crop, point, 6) - point)) < 0.6


@pytest.mark.parametrize("side", [200, 420, 900])
@pytest.mark.parametrize("middle", [(0, 0), (640, 0), (3, 480), (637, 477), (320, 240)])
def test_align_stays_exact_at_the_edges_of_the_picture_and_is_black_beyond(side, middle):
    marks = (POINTS - 0.5) * side + middle
    # A ramp from left to right and from top to bottom tells where each pixel of the crop came from.
    ys, xs = np.mgrid[0:480, 0:640] + 0.5
    image = np.stack([xs / 640 * 255, ys / 480 * 255, np.full(xs.shape, 255)], axis=2).astype(np.uint8)
    crop = align(image, marks, POINTS, 96).astype(float)
    ys, xs = np.mgrid[0:96, 0:96] + 0.5
    there_x, there_y = (xs - 48) * side / 96 + middle[0], (ys - 48) * side / 96 + middle[1]
    pixel = side / 96
    margin = 2.5 * pixel
    inside = (margin < there_x) & (there_x < 640 - margin) & (margin < there_y) & (there_y < 480 - margin)
    outside = (there_x < -margin) | (there_x > 640 + margin) | (there_y < -margin) | (there_y > 480 + margin)
    assert inside.sum() > 100
    assert np.abs(crop[..., 0] / 255 * 640 - there_x)[inside].max() < 0.6 * pixel + 3
    assert np.abs(crop[..., 1] / 255 * 480 - there_y)[inside].max() < 0.6 * pixel + 3
    assert not crop[outside].any()
    assert crop[inside][:, 2].min() == 255


def test_align_does_not_alias_fine_patterns():
    image = np.zeros((1000, 1000, 3), np.uint8)
    image[::2] = 254
    crop = align(image, (POINTS - 0.5) * 700 + 500, POINTS, 64)
    assert abs(float(crop.mean()) - 127) < 3
    assert int(crop.max()) - int(crop.min()) < 10


@pytest.mark.parametrize(
    ("picture", "marks"),
    [
        ((1, 1), POINTS),
        ((1, 1), POINTS * 1e4),
        ((1, 900), POINTS * 700),
        ((900, 1), POINTS * 700),
        ((7, 5), POINTS * 5000),
        ((48, 64), POINTS - 1e6),
        ((48, 64), POINTS * 1e-3 + 20),
        ((48, 64), POINTS * 1e7),
        ((33000, 2), POINTS * 20 + [0, 32000]),
        ((2, 33000), POINTS * 400 + [32000, 0]),
    ],
)
def test_align_takes_any_picture_and_place(picture, marks):
    image = np.full((*picture, 3), 200, np.uint8)
    crop = align(image, marks, POINTS, 48)
    assert crop.shape == (48, 48, 3)
    assert crop.dtype == np.uint8
    assert crop.max() <= 200


@pytest.mark.parametrize(
    ("picture", "marks", "message"),
    [
        ((0, 5), POINTS, "empty picture"),
        ((5, 0), POINTS, "empty picture"),
        ((5, 5), POINTS * 1e12, "millions of pixels"),
    ],
)
def test_align_refuses_what_it_cannot_cut(picture, marks, message):
    with pytest.raises(ValueError, match=message):
        align(np.zeros((*picture, 3), np.uint8), marks, POINTS, 32)


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

"""Boxes and pictures: letterbox, alignment by landmarks, IoU, NMS. NumPy and OpenCV only."""

from __future__ import annotations

import cmath
import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(slots=True, frozen=True)
class Letterbox:
    """How a picture was fitted into the model's input: `model = picture * scale`, top left aligned.

    Attributes:
        scale: model pixels per picture pixel.
        width, height: of the part of the input that holds the picture, model pixels.
    """

    scale: float
    width: int
    height: int


def letterbox(image: np.ndarray, size: tuple[int, int], out: np.ndarray | None = None) -> Letterbox:
    """Fits a picture into `out` without changing its shape, black to the right and below.

    Top-left alignment (rather than centring) keeps the way back one division, and black is what
    the model's own zero padding looks like.

    Args:
        image: H x W x 3 uint8, any channel order; not changed.
        size: (width, height) of the model input, pixels.
        out: height x width x 3 uint8 to write into.

    Returns:
        The `Letterbox` that leads back: `picture = model / scale`.

    Raises:
        ValueError: if the picture is empty or `out` has another shape.
    """
    height, width = image.shape[:2]
    if height == 0 or width == 0:
        raise ValueError(f"empty picture: {width}x{height}")
    if out is None or out.shape != (size[1], size[0], 3):
        raise ValueError(f"letterbox needs an output of {size[1]}x{size[0]}x3")
    scale = min(size[0] / width, size[1] / height)
    new_w = min(size[0], max(1, round(width * scale)))
    new_h = min(size[1], max(1, round(height * scale)))
    if scale < 0.5:
        # INTER_LINEAR skips pixels below one half, which makes small faces flicker;
        # whole-number reductions first (INTER_AREA is fast for them), the rest after.
        factor = int(1 / scale)
        image = cv2.resize(
            image, (max(1, width // factor), max(1, height // factor)), interpolation=cv2.INTER_AREA
        )
    part = out[:new_h, :new_w]
    if image.shape[1] == new_w and image.shape[0] == new_h:
        part[...] = image
    else:
        # Straight into its place: a picture of its own would be new memory from the system on every frame.
        cv2.resize(image, (new_w, new_h), dst=part, interpolation=cv2.INTER_LINEAR)
    out[new_h:] = 0
    out[:new_h, new_w:] = 0
    return Letterbox(scale, new_w, new_h)


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rotation, scale and shift that brings `source` closest to `target` (least squares, no mirroring).

    Closed form of Umeyama (1991), "Least-squares estimation of transformation parameters between two point
    patterns", for two dimensions, where a point is a complex number and the map is z -> a z + b.

    Args:
        source: n x 2 points, n >= 2.
        target: n x 2.

    Returns:
        2 x 3 float64 matrix, as `cv2.warpAffine` takes it.

    Raises:
        ValueError: the points are not finite, or all of `source` coincide.
    """
    # Plain complex numbers: for points this few NumPy's overhead is most of the work.
    p, q = (
        [complex(x, y) for x, y in np.asarray(points, np.float64).reshape(-1, 2).tolist()]
        for points in (source, target)
    )
    centre, goal = sum(p) / len(p), sum(q) / len(q)
    p = [point - centre for point in p]
    spread = sum(point.real * point.real + point.imag * point.imag for point in p)
    if not (cmath.isfinite(goal) and 1e-9 <= spread < math.inf):
        raise ValueError("the points coincide or are not finite")
    # The mean of the target drops out, since the source's is zero now.
    a = sum(point.conjugate() * other for point, other in zip(p, q, strict=True)) / spread
    b = goal - a * centre
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def align(image: np.ndarray, landmarks: np.ndarray, template: np.ndarray, size: int) -> np.ndarray:
    """Cuts a face out so that its landmarks come to lie as close as possible to those of a template.

    Args:
        image: H x W x 3 uint8, any channel order; not changed.
        landmarks: 5 x 2 pixels of the picture, in `LANDMARK_NAMES` order; may lie outside of it.
        template: 5 x 2, where they should be, in sides of the crop (0..1).
        size: side of the crop, pixels.

    Returns:
        size x size x 3 uint8; black where the picture ends.

    Raises:
        ValueError: the picture is empty, or the landmarks coincide, are not finite, or lie millions of pixels
            apart.
    """
    height, width = image.shape[:2]
    if height == 0 or width == 0:
        raise ValueError(f"empty picture: {width}x{height}")
    # Plain floats from here on: NumPy's overhead on numbers this few would cost as much as the warp.
    (a, b, dx), (c, d, dy) = similarity(landmarks, np.asarray(template, np.float64) * size).tolist()
    # Half a pixel: points are measured from the corner of the first pixel, cv2 counts from its middle.
    dx += 0.5 * (a + b) - 0.5
    dy += 0.5 * (c + d) - 0.5
    scale = math.hypot(a, c)
    if scale < 1e-6:
        raise ValueError("the landmarks are millions of pixels apart")
    # Only the part under the crop: warpAffine refuses pictures of more than 32767 pixels a side.
    middle = (size - 1) / 2
    u, v = (middle - dx) / scale**2, (middle - dy) / scale**2
    x, y = a * u + c * v, a * v - c * u
    reach = (size + 1) / 2 * (abs(a) + abs(c)) / scale**2 + 2
    # warpAffine looks at four pixels only, which flickers below one half. Halving is several times as fast as
    # other reductions, as long as it comes out even.
    halvings = max(0, math.ceil(math.log2(0.5 / scale)))
    x0, x1 = _part(x - reach, x + reach, width, 1 << halvings)
    y0, y1 = _part(y - reach, y + reach, height, 1 << halvings)
    part = image[y0:y1, x0:x1]
    for _ in range(halvings):
        small = max(1, part.shape[1] // 2), max(1, part.shape[0] // 2)
        part = cv2.resize(part, small, interpolation=cv2.INTER_AREA)
    step_x, step_y = (x1 - x0) / part.shape[1], (y1 - y0) / part.shape[0]
    x, y = x0 + (step_x - 1) / 2, y0 + (step_y - 1) / 2  # of the middle of the part's first pixel
    matrix = [[a * step_x, b * step_y, dx + a * x + b * y], [c * step_x, d * step_y, dy + c * x + d * y]]
    return cv2.warpAffine(part, np.array(matrix), (size, size), flags=cv2.INTER_LINEAR)


def _part(low: float, high: float, limit: int, multiple: int) -> tuple[int, int]:
    """The pixels from `low` to `high` along one side, in a number that is a multiple where possible.

    At least one pixel, also where the picture does not reach. A picture whose side is no multiple loses its
    last pixels when all of them are asked for: fewer than one of the reduced picture.
    """
    first = min(max(math.floor(low), 0), limit - 1)
    last = max(min(math.ceil(high), limit), first + 1)
    last = min(last + -(last - first) % multiple, limit)
    first = max(first - -(last - first) % multiple, 0)
    if last - first > multiple:
        last -= (last - first) % multiple
    return first, last


def iou_matrix(a_xywh: np.ndarray, b_xywh: np.ndarray) -> np.ndarray:
    """Intersection over union of every box of `a` with every box of `b`.

    Args:
        a_xywh: n x 4 boxes x, y, w, h.
        b_xywh: m x 4.

    Returns:
        n x m float32, 0..1; boxes without area have an IoU of 0.
    """
    a = np.asarray(a_xywh, np.float32).reshape(-1, 4)
    b = np.asarray(b_xywh, np.float32).reshape(-1, 4)
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum((a[:, :2] + a[:, 2:])[:, None], (b[:, :2] + b[:, 2:])[None])
    # Plain products and maxima: np.prod and np.clip cost more than the arithmetic at these sizes.
    side = np.maximum(bottom_right - top_left, 0)
    inter = side[..., 0] * side[..., 1]
    union = (a[:, 2] * a[:, 3])[:, None] + (b[:, 2] * b[:, 3])[None] - inter
    return inter / np.maximum(union, np.float32(1e-9))


def iou(a_xywh: tuple[float, ...], b_xywh: tuple[float, ...]) -> float:
    """Intersection over union of two boxes x, y, w, h; 0..1."""
    return float(iou_matrix(np.asarray(a_xywh), np.asarray(b_xywh))[0, 0])


def nms(boxes_xywh: np.ndarray, scores: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Greedy non-maximum suppression.

    Args:
        boxes_xywh: n x 4 boxes x, y, w, h.
        scores: n.
        iou_threshold: a box is dropped when a better one overlaps it by more than this, 0..1.

    Returns:
        Indices of the boxes that stay, by falling score (ties: the earlier box first).
    """
    return np.array([index for index, _ in suppress(boxes_xywh, scores, iou_threshold)], np.intp)


def suppress(
    boxes_xywh: np.ndarray, scores: np.ndarray, iou_threshold: float
) -> Iterator[tuple[int, np.ndarray]]:
    """Greedy non-maximum suppression, one box that stays at a time.

    Args:
        boxes_xywh, scores, iou_threshold: as `nms` takes them.

    Yields:
        What `nms` returns, each with the IoU of that box with all boxes: n float32.
    """
    boxes = np.asarray(boxes_xywh, np.float32)
    left = (-np.asarray(scores)).argsort(kind="stable")
    if not left.size:
        return
    start, end = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    area = boxes[:, 2] * boxes[:, 3]
    while left.size:
        best = int(left[0])
        side = np.maximum(np.minimum(end[best], end) - np.maximum(start[best], start), 0)
        inter = side[:, 0] * side[:, 1]
        overlap = inter / np.maximum(area[best] + area - inter, np.float32(1e-9))
        yield best, overlap
        left = left[1:]
        left = left[overlap.take(left) <= iou_threshold]

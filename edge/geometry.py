"""Boxes and pictures: letterbox, IoU, NMS. NumPy and OpenCV only."""

from __future__ import annotations

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
        part[...] = cv2.resize(image, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
    out[new_h:] = 0
    out[:new_h, new_w:] = 0
    return Letterbox(scale, new_w, new_h)


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
    order = np.argsort(-np.asarray(scores), kind="stable")
    if len(order) <= 1:
        return order
    boxes = np.asarray(boxes_xywh, np.float32)[order]
    overlap = iou_matrix(boxes, boxes) > iou_threshold
    alive = np.ones(len(order), bool)
    for i in range(len(order)):
        if alive[i]:
            alive[i + 1 :] &= ~overlap[i, i + 1 :]
    return order[alive]

"""Face detectors to measure ours against, each with its own pre- and postprocessing, behind one signature.

Anchors, scales and thresholds are those their authors publish; where, each function says. Model files are not
part of this project.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge.geometry import iou_matrix, letterbox, nms
from edge.tasks.attributes import AttributesEstimator
from edge.tasks.face import MAX_CANDIDATES, FaceDetector
from edge.tflite import Model
from edge.types import MASK_STATES


@dataclass(slots=True, frozen=True)
class Found:
    """The faces of one picture.

    Attributes:
        boxes: n x 4 x, y, w, h in pixels of the picture.
        scores: n, 0..1, by falling score.
        worn: n bool, whether a mask is worn, in whatever way; None of a detector that does not tell.
    """

    boxes: np.ndarray
    scores: np.ndarray
    worn: np.ndarray | None = None


Detector = Callable[[np.ndarray], Found]
"""Finds the faces of a picture: H x W x 3 uint8, BGR."""


def ours(detector: FaceDetector, estimator: AttributesEstimator | None = None) -> Detector:
    """Our face model, and with an estimator how each face wears its mask (forced: never unknown)."""

    def run(image: np.ndarray) -> Found:
        faces = detector.detect(image)
        worn = None
        if estimator is not None:
            faces = estimator.label(image, faces)
            worn = np.array([_worn(face.mask) for face in faces], bool)
        boxes = np.array([face.box for face in faces], np.float32).reshape(-1, 4)
        return Found(boxes, np.array([face.score for face in faces], np.float32), worn)

    return run


def _worn(mask: dict[str, dict[str, float]] | None) -> bool:
    # None: landmarks that cannot be those of a face. It counts as bare, which is the commonest answer.
    return mask is not None and max(mask["scores"], key=lambda name: mask["scores"][name]) != MASK_STATES[0]


def yunet(path: Path, *, size: int = 320, score: float = 0.9) -> Detector:
    """YuNet through OpenCV, the picture letterboxed into size x size.

    Score and NMS thresholds are the defaults of `cv2.FaceDetectorYN`.
    """
    detector = cv2.FaceDetectorYN.create(str(path), "", (size, size), score, 0.3)
    pixels = np.zeros((size, size, 3), np.uint8)

    def run(image: np.ndarray) -> Found:
        fit = letterbox(image, (size, size), pixels)
        rows = detector.detect(pixels)[1]
        if rows is None:
            rows = np.zeros((0, 15), np.float32)
        return Found(rows[:, :4] / fit.scale, rows[:, 14])

    return run


# ---------------------------------------------------------------------------------------------- BlazeFace


def blazeface_anchors(size: int, strides: tuple[int, ...], per_layer: int) -> np.ndarray:
    """Anchor centres of MediaPipe's `SsdAnchorsCalculator` with `fixed_anchor_size` and an offset of 0.5.

    With fixed size all anchors are squares of side one, so that scales and aspect ratios only say how many
    there are: `per_layer` for each of the layers, and layers of one stride in a row share a grid.

    Args:
        size: side of the input, pixels.
        strides: of the layers, in order.
        per_layer: 2 with the interpolated aspect ratio that is the calculator's default, else 1.

    Returns:
        n x 2 float32 x, y in sides of the input, by stride, row, column.
    """
    centres = []
    for stride in dict.fromkeys(strides):
        cells = size // stride
        ys, xs = np.mgrid[0:cells, 0:cells]
        grid = np.stack([xs.ravel(), ys.ravel()], axis=1) + 0.5
        centres.append(np.repeat(grid / cells, per_layer * strides.count(stride), axis=0))
    return np.concatenate(centres).astype(np.float32)


def blazeface(model: Model, *, score: float | None = None) -> Detector:
    """MediaPipe's BlazeFace: short range (128 px, 896 anchors) or full range (192 px, 2304), by its input.

    Options as in MediaPipe's graphs `face_detection_short_range` and `face_detection_full_range`: the picture
    keeps its shape, centred on black, pixels -1..1 (`ImageToTensorCalculator`); scores are clipped to +-100
    before the sigmoid, and boxes are offsets in input pixels (`TensorsToDetectionsCalculator`); overlaps of
    more than 0.3 are merged, weighted by score (`NonMaxSuppressionCalculator`, WEIGHTED).

    Args:
        model: float32, outputs of 16 numbers and of one for each anchor.
        score: of the faces to report; by default MediaPipe's, 0.5 short and 0.6 full range.

    Raises:
        ValueError: the model is neither.
    """
    size = int(model.inputs[0].shape[1])
    kinds = {128: ((8, 16, 16, 16), 2, 0.5), 192: ((4,), 1, 0.6)}
    if size not in kinds:
        raise ValueError(f"BlazeFace takes 128 or 192 pixels, not {size}")
    strides, per_layer, default = kinds[size]
    anchors = blazeface_anchors(size, strides, per_layer)
    order = {spec.shape[-1]: i for i, spec in enumerate(model.outputs)}
    if model.outputs[order[1]].shape[1] != len(anchors):
        raise ValueError(f"{model.name} has another number of anchors than {len(anchors)}")
    threshold = default if score is None else score
    pixels = np.zeros((size, size, 3), np.uint8)

    def run(image: np.ndarray) -> Found:
        height, width = image.shape[:2]
        scale = size / max(width, height)
        w, h = max(1, round(width * scale)), max(1, round(height * scale))
        left, top = (size - w) // 2, (size - h) // 2
        pixels[...] = 0
        pixels[top : top + h, left : left + w] = cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)
        rgb = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.float32)
        outputs = model.run((rgb / 127.5 - 1.0)[None])
        raw, logits = outputs[order[16]][0], outputs[order[1]][0, :, 0]
        scores = 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -100, 100)))
        keep = np.flatnonzero(scores >= threshold)
        keep = keep[np.argsort(-scores[keep], kind="stable")[:MAX_CANDIDATES]]
        centres = anchors[keep] * size + raw[keep, :2]
        sides = raw[keep, 2:4]
        boxes = np.concatenate([centres - sides / 2 - [left, top], sides], axis=1) / scale
        return merged(boxes, scores[keep])

    return run


def merged(boxes: np.ndarray, scores: np.ndarray, overlap: float = 0.3) -> Found:
    """Weighted non-maximum suppression as MediaPipe does it: each best box takes in those that overlap it.

    Args:
        boxes: n x 4 x, y, w, h.
        scores: n, falling.
        overlap: IoU above which a box belongs to a better one.
    """
    table = iou_matrix(boxes, boxes) > overlap
    alive = np.ones(len(boxes), bool)
    out, best = [], []
    for i in range(len(boxes)):
        if not alive[i]:
            continue
        group = np.flatnonzero(alive & table[i])
        group = group if i in group else np.append(group, i)  # a box without area does not overlap itself
        out.append(np.average(boxes[group], axis=0, weights=scores[group]))
        best.append(scores[i])
        alive[group] = False
    return Found(np.array(out).reshape(-1, 4), np.array(best))


# -------------------------------------------------------------------------------------------------- AIZOO


def aizoo_anchors() -> np.ndarray:
    """Anchors of AIZOO's 260 px SSD as its authors publish them: n x 4 centre x, y, width, height, 0..1."""
    anchors = []
    levels = zip(
        (33, 17, 9, 5, 3),
        ((0.04, 0.056), (0.08, 0.11), (0.16, 0.22), (0.32, 0.45), (0.64, 0.72)),
        strict=True,
    )
    for cells, scales in levels:
        middle = (np.arange(cells) + 0.5) / cells
        xs, ys = np.meshgrid(middle, middle)
        sides = [(scales[0], scales[0]), (scales[1], scales[1])]
        sides += [(scales[0] * r**0.5, scales[0] / r**0.5) for r in (0.62, 0.42)]
        level = [np.stack([xs, ys, np.full_like(xs, w), np.full_like(ys, h)], axis=-1) for w, h in sides]
        anchors.append(np.stack(level, axis=2).reshape(-1, 4))
    return np.concatenate(anchors)


def aizoo(model: Model, *, score: float = 0.5) -> Detector:
    """AIZOO's SSD for faces with and without masks; thresholds and variances of its authors' own script."""
    size = int(model.inputs[0].shape[1])
    anchors = aizoo_anchors()
    order = {spec.shape[-1]: i for i, spec in enumerate(model.outputs)}

    def run(image: np.ndarray) -> Found:
        rgb = cv2.cvtColor(cv2.resize(image, (size, size)), cv2.COLOR_BGR2RGB)
        outputs = model.run(rgb.astype(np.float32)[None] / 255)
        classes = outputs[order[2]][0]  # with a mask, without
        scores = classes.max(axis=1)
        keep = np.flatnonzero(scores >= score)
        keep = keep[np.argsort(-scores[keep], kind="stable")[:MAX_CANDIDATES]]
        offsets, anchor = outputs[order[4]][0][keep] * [0.1, 0.1, 0.2, 0.2], anchors[keep]
        sides = anchor[:, 2:] * np.exp(offsets[:, 2:])
        corners = anchor[:, :2] + anchor[:, 2:] * offsets[:, :2] - sides / 2
        boxes = np.concatenate([corners, sides], axis=1) * np.tile(image.shape[1::-1], 2)
        best = nms(boxes, scores[keep], 0.4)
        chosen = keep[best]
        return Found(boxes[best], scores[chosen], classes[chosen, 0] > classes[chosen, 1])

    return run

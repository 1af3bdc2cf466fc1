"""Finds faces, masked or bare, with five landmarks: letterbox, invoke, decode, NMS."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edge.geometry import letterbox, suppress
from edge.types import Face

if TYPE_CHECKING:
    from edge.tflite import Model, ModelEntry

STRIDES = (8, 16, 32)
DEFAULT_SCORE = 0.5
DEFAULT_NMS_IOU = 0.45
MAX_CANDIDATES = 400
# Boxes and landmarks are the mean over the cells that agree on a face, weighted by score, which trembles less
# than the best cell alone (BlazeFace, Bazarevsky et al. 2019, sec. 3.4 "Post-processing").
VOTER_IOU = 0.6
VOTER_SCORE = 0.25


def cells(size: tuple[int, int], strides: tuple[int, ...] = STRIDES) -> tuple[np.ndarray, np.ndarray]:
    """Cell centres and strides in the model's output order: by stride, then row, then column.

    Args:
        size: (width, height) of the model input, pixels.
        strides: of the feature maps, pixels.

    Returns:
        n x 2 float32 centres x, y in input pixels, and n float32 strides.
    """
    centres, steps = [], []
    for s in strides:
        ys, xs = np.mgrid[0 : size[1] // s, 0 : size[0] // s]
        centres.append(np.stack([xs.ravel(), ys.ravel()], axis=1) * s + s / 2)
        steps.append(np.full(xs.size, s))
    return np.concatenate(centres).astype(np.float32), np.concatenate(steps).astype(np.float32)


@dataclass(slots=True, frozen=True)
class Prepared:
    """A picture as the model wants it.

    Attributes:
        pixels: height x width x 3 uint8, RGB, of the model's input size.
        scale: model pixels per picture pixel.
        width, height: of the picture, pixels.
    """

    pixels: np.ndarray
    scale: float
    width: int
    height: int


class FaceDetector:
    """Finds the faces of one picture at a time.

    Raw outputs of the model mean, for a cell with centre c and stride s (input pixels): box centre
    `c + s * box[:2]`, box size `s * exp(box[2:])`, landmark k `c + s * landmarks[k]`; scores are logits.

    Attributes:
        size: (width, height) of the model input, pixels.
        score_threshold: faces below it are not reported, 0..1.
        last_invoke_ms: duration of the last bare model run, milliseconds.
    """

    def __init__(
        self,
        model: Model,
        entry: ModelEntry | None = None,
        *,
        score_threshold: float | None = None,
        nms_iou: float | None = None,
    ) -> None:
        """Args:
        model: a face model of this project, input 1 x height x width x 3 uint8 RGB.
        entry: its manifest entry, for thresholds; None takes this module's defaults.
        score_threshold: overrides the manifest's, 0..1.
        nms_iou: overrides the manifest's, 0..1.
        """
        _, height, width, _ = model.inputs[0].shape
        self.model = model
        self.size = (int(width), int(height))
        if score_threshold is None:
            score_threshold = entry.threshold("score") if entry else DEFAULT_SCORE
        if nms_iou is None:
            nms_iou = entry.threshold("nms_iou") if entry else DEFAULT_NMS_IOU
        self.score_threshold, self.nms_iou = score_threshold, nms_iou
        self.last_invoke_ms = 0.0
        self._centres, strides = cells(self.size)
        self._strides = strides[:, None]
        # Told apart by shape: converters keep neither order nor names of outputs.
        order = {spec.shape[-1]: i for i, spec in enumerate(model.outputs)}
        self._order = order[1], order[4], order[10]

    def detect(self, image: np.ndarray) -> tuple[Face, ...]:
        """Finds the faces of a picture.

        Args:
            image: H x W x 3 uint8, BGR.

        Returns:
            Faces by falling score, in pixels of `image`; boxes are clipped to it.
        """
        return self.detect_prepared(self.prepare(image))

    def prepare(self, image: np.ndarray) -> Prepared:
        """The picture as the model wants it; the first step of `detect`, from any thread.

        Args:
            image: H x W x 3 uint8, BGR.
        """
        pixels = np.empty((self.size[1], self.size[0], 3), np.uint8)
        fit = letterbox(image, self.size, pixels)
        cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
        return Prepared(pixels, fit.scale, image.shape[1], image.shape[0])

    def detect_prepared(self, picture: Prepared) -> tuple[Face, ...]:
        """The rest of `detect`."""
        start = time.perf_counter()
        outputs = self.model.run(picture.pixels)
        self.last_invoke_ms = (time.perf_counter() - start) * 1e3
        return self._decode(outputs, picture.scale, picture.width, picture.height)

    def _decode(self, outputs: list[np.ndarray], scale: float, width: int, height: int) -> tuple[Face, ...]:
        logits, boxes, landmarks = (outputs[i][0] for i in self._order)
        logits = logits.ravel()
        # Weaker cells of a face do not report it, but they vote on where it is.
        floor = min(max(min(self.score_threshold, VOTER_SCORE), 1e-6), 1 - 1e-6)
        keep = (logits >= math.log(floor / (1 - floor))).nonzero()[0]
        if not keep.size:
            return ()
        # From here on for few cells: what counts is the number of NumPy's calls. `take` copies, so that what
        # follows may work in place.
        logits = logits.take(keep)
        if keep.size > MAX_CANDIDATES:
            best = np.argsort(-logits, kind="stable")[:MAX_CANDIDATES]
            keep, logits = keep[best], logits[best]
        centre, s = self._centres.take(keep, 0), self._strides.take(keep, 0)
        xywh = boxes.take(keep, 0)
        xy, wh = xywh[:, :2], xywh[:, 2:]
        np.minimum(wh, 6.0, out=wh)
        np.exp(wh, out=wh)
        wh *= s
        xy *= s
        xy += centre
        xy -= wh / 2
        xywh /= scale
        points = landmarks.take(keep, 0).reshape(-1, 5, 2)
        points *= s[:, None]
        points += centre[:, None]
        points /= scale
        points = points.reshape(-1, 10)
        scores = 1 / (1 + np.exp(-logits))
        faces = []
        for i, overlap in suppress(xywh, scores, self.nms_iou):
            if scores[i] < self.score_threshold:
                break
            voters = (overlap >= VOTER_IOU).nonzero()[0]
            votes = scores.take(voters)
            votes /= votes.sum()
            x, y, w, h = (votes @ xywh.take(voters, 0)).tolist()
            marks = (votes @ points.take(voters, 0)).reshape(5, 2)
            x0, y0, x1, y1 = max(0.0, x), max(0.0, y), min(float(width), x + w), min(float(height), y + h)
            if x1 - x0 < 1 or y1 - y0 < 1:
                continue
            faces.append(Face((x0, y0, x1 - x0, y1 - y0), float(scores[i]), marks))
        return tuple(faces)

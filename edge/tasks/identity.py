"""Embeddings of faces: vectors whose cosine tells whether two views are of one person, masked or not."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edge.geometry import align

if TYPE_CHECKING:
    from edge.tflite import Model, ModelEntry

ARCFACE = (
    (0.3419, 0.4616),
    (0.6565, 0.4598),
    (0.5002, 0.6405),
    (0.3710, 0.8247),
    (0.6315, 0.8233),
)
"""Where the landmarks lie in the 112 px template of ArcFace (Deng et al. 2019), in its sides."""
ZOOM, CLOSER = 1.04, 9 / 8
"""How much larger than in training faces are shown, and how many times as large as that their mirror images.

A network that learnt from crops moved and scaled at random knows faces best that are a little larger than
their mean there (Touvron et al. 2019, "Fixing the train-test resolution discrepancy"), and of two views that
are less alike more can be told. Chosen on people of celeba held out, see docs/training.md."""
TEMPLATE = tuple((round((x - 0.5) * ZOOM + 0.5, 4), round((y - 0.5) * ZOOM + 0.5, 4)) for x, y in ARCFACE)
"""Where the landmarks lie in the crop, in its sides."""


@dataclass(slots=True, frozen=True)
class Embedding:
    """Who one view of a face shows.

    Attributes:
        vector: d float32 of length 1; the dot product of two is their cosine, 1 for the same view.
        quality: 0..1, the cosine to be expected with the same face seen bare and clear; low for what is
            blurred, dark, turned away, or no face.
    """

    vector: np.ndarray
    quality: float


def side_of_crop(size: int) -> int:
    """Side of the crop of which a model is shown `views` of `size` pixels."""
    return round(size * CLOSER)


def views(crop: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """What the model is shown of a face: all of its crop, and its middle mirrored, which is closer.

    Args:
        crop: S x S x 3 uint8 of `side_of_crop`, any channel order.
        size: side of both views, pixels.
    """
    edge = (crop.shape[0] - size) // 2
    middle = crop[edge : edge + size, edge : edge + size]
    return cv2.resize(crop, (size, size), interpolation=cv2.INTER_LINEAR), cv2.flip(middle, 1)


class Embedder:
    """Runs the identity model on faces.

    Args:
        model: the identity model.
        entry: its manifest entry, for the alignment; None takes `TEMPLATE`.

    Attributes:
        model: as given.
        last_invoke_ms: time of the bare model in the last call, both runs, milliseconds.
    """

    def __init__(self, model: Model, entry: ModelEntry | None = None) -> None:
        self.model = model
        self._size = int(model.inputs[0].shape[1])
        self._template = entry.template(TEMPLATE) if entry else np.array(TEMPLATE)
        self.last_invoke_ms = 0.0

    def crop(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """The aligned face, S x S x 3 uint8 BGR; S is `side_of_crop`.

        Args:
            image: H x W x 3 uint8 BGR.
            landmarks: 5 x 2 pixels of the picture, in `LANDMARK_NAMES` order.

        Raises:
            ValueError: the landmarks coincide or the picture is empty, see `edge.geometry.align`.
        """
        return align(image, landmarks, self._template, side_of_crop(self._size))

    def look(self, crop: np.ndarray) -> Embedding:
        """A face, cut by `crop`: the mean of what the model says of both its `views`."""
        shown = views(cv2.cvtColor(crop, cv2.COLOR_BGR2RGB), self._size)
        begun = time.perf_counter()
        answers = [self.model.run(view[None]) for view in shown]
        self.last_invoke_ms = (time.perf_counter() - begun) * 1e3
        # Told apart by size: converters keep no order of outputs.
        vectors, logits = zip(
            *((a[0], b[0]) if a.size > b.size else (b[0], a[0]) for a, b in answers), strict=True
        )
        quality = sum(1 / (1 + math.exp(-float(logit[0]))) for logit in logits) / len(logits)
        return Embedding(_unit(np.sum([_unit(vector) for vector in vectors], axis=0)), quality)

    def embed(self, image: np.ndarray, landmarks: np.ndarray) -> Embedding:
        """`crop` and `look`; arguments and errors as in `crop`."""
        return self.look(self.crop(image, landmarks))


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-6)

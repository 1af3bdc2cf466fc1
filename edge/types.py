"""The values that flow through the loop. All are immutable; arrays inside them are not to be written to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

ANALYSIS_VERSION = 1

LANDMARK_NAMES = ("right_eye", "left_eye", "nose", "right_mouth_corner", "left_mouth_corner")
"""Order of the five landmarks; right and left are the person's own."""

LANDMARKS_MIRRORED = (1, 0, 2, 4, 3)
"""The order that brings landmarks of a mirrored picture back into `LANDMARK_NAMES` order."""

MASK_STATES = ("none", "chin", "nose_out", "correct")
"""How a mask is worn, in the model's order: not at all, under the mouth, under the nose, over both."""

GENDERS = ("female", "male")
"""What a face looks like to the model, in its order; a guess by appearance, not identity."""


@dataclass(slots=True, frozen=True)
class Frame:
    """One picture from a source.

    Attributes:
        image: H x W x 3 uint8, BGR (OpenCV's order), contiguous.
        id: number of the frame in its source, from 0; live sources skip numbers of dropped frames.
        time: capture time, seconds on the monotonic clock (`time.monotonic`).
        name: path or URL of the picture when the source is a set of pictures, else None.
        small: the same view in fewer pixels, h x w x 3 uint8, BGR, where the camera's own hardware gives it
            besides; faces are then found in it, which saves scaling `image` down. Everything else, and every
            pixel in an `Analysis`, refers to `image`. None from most sources.
        prepared: what the detector needs of the picture, made by its `prepare` in the reader thread, or None.
    """

    image: np.ndarray
    id: int
    time: float
    name: str | None = None
    small: np.ndarray | None = None
    prepared: Any = None


@dataclass(slots=True, frozen=True)
class Face:
    """One face in a picture.

    Attributes:
        box: x, y, w, h in pixels of the original picture, origin top left; may reach past the edge.
        score: detector confidence, 0..1.
        landmarks: 5 x 2 float32, pixels of the original picture, in `LANDMARK_NAMES` order.
        track: id that stays with the face from frame to frame, or None outside a loop.
        mask: `{"state", "score", "scores"}`: the state of `MASK_STATES`, or None where it is not clear; its
            probability, or where it is not clear the highest one; the probabilities of all states.
        gender: `{"label", "score"}`: of `GENDERS`, or None where it is not clear; its probability, likewise.
        identity: the result of that task. All three are JSON-ready, and None when the task did not run.
        unmasked: `edge.tasks.unmask.Patch`, what may be under the mask, for whatever draws the picture; None
            where nothing is. It is not part of the JSON: what it shows is made up.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: np.ndarray
    track: int | None = None
    mask: dict[str, Any] | None = None
    gender: dict[str, Any] | None = None
    identity: dict[str, Any] | None = None
    unmasked: Any = None

    def scaled(self, x: float, y: float) -> Face:
        """The same face in a picture that is `x` times as wide and `y` times as high."""
        left, top, width, height = self.box
        return replace(
            self,
            box=(left * x, top * y, width * x, height * y),
            landmarks=self.landmarks * np.array((x, y), np.float32),
        )

    def to_json(self) -> dict[str, Any]:
        """The `faces` item of the analysis contract; keys of tasks that did not run are left out."""
        out: dict[str, Any] = {
            "box": [round(float(v), 2) for v in self.box],
            "score": round(float(self.score), 4),
            "track": self.track,
            "landmarks": [[round(float(x), 2), round(float(y), 2)] for x, y in self.landmarks],
        }
        for key in ("mask", "gender", "identity"):
            value = getattr(self, key)
            if value is not None:
                out[key] = value
        return out


@dataclass(slots=True, frozen=True)
class Analysis:
    """What was found in one picture: the analysis contract, version 1.

    Attributes:
        image: name of the picture, or None for a frame of a video or camera.
        frame: frame id.
        time: capture time in seconds since the source was opened.
        width, height: of the original picture, pixels.
        faces: by falling score.
        timing_ms: stage name to milliseconds (`capture`, `face`, `attributes`, `total`, `frame_age`).
    """

    image: str | None
    frame: int
    time: float
    width: int
    height: int
    faces: tuple[Face, ...] = ()
    timing_ms: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dictionary, keys as in the contract."""
        return {
            "version": ANALYSIS_VERSION,
            "image": self.image,
            "frame": self.frame,
            "time": round(self.time, 4),
            "width": self.width,
            "height": self.height,
            "faces": [face.to_json() for face in self.faces],
            "timing_ms": {key: round(value, 3) for key, value in self.timing_ms.items()},
        }

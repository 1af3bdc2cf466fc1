"""Accuracy of detectors on a labelled folder, with intervals: what `benchmarks.peers` shows beside latency.

All detectors are scored by one scorer on the same faces. Intervals come from drawing pictures with
replacement (bootstrap), the same ones for all, so that differences have intervals too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.detectors import Found
from benchmarks.intervals import DRAWS, LEVEL, Interval
from edge.camera import read_image
from edge.errors import UsageError
from edge.geometry import iou_matrix

IOU = 0.4
SCALE_SIDE = 320
"""Faces are measured in pixels of the picture fitted into a square of this side, for every detector."""
SMALLEST_FACE = 16
SMALLEST_MASK = 24


@dataclass(slots=True, frozen=True)
class Labelled:
    """A folder of labelled pictures in memory.

    Attributes:
        name: of the folder, with what was left out.
        pictures: BGR.
        boxes: of each, n x 4 x, y, w, h.
        worn: of each, n bool: labelled as anything but without a mask.
    """

    name: str
    pictures: list[np.ndarray]
    boxes: list[np.ndarray]
    worn: list[np.ndarray]

    def scale(self, i: int) -> float:
        """Pixels of the fitted picture per pixel of picture i; see `SCALE_SIDE`."""
        return float(SCALE_SIDE / max(self.pictures[i].shape[:2]))


def read_labelled(folder: Path) -> Labelled:
    """Pictures and boxes of a folder in PASCAL VOC's layout (`images/`, `annotations/`).

    Of a set that our models were trained on only the held-out part is read.

    Raises:
        UsageError: it is no such folder, has no faces, or all of it was trained on.
    """
    try:
        from export.data.scenes import TRAIN_SETS, read_scenes
    except ImportError as error:
        raise UsageError(f"--scenes needs {error.name}", remedy=f"pip install {error.name}") from error
    folder = folder.resolve()
    try:
        scenes = read_scenes(folder.parent, (folder.name,))
    except (OSError, SyntaxError, ValueError) as error:  # SyntaxError: broken XML
        raise UsageError(
            f"cannot read {folder} ({error})",
            remedy="it needs images/ and annotations/ in PASCAL VOC's layout",
        ) from error
    name = folder.name
    if name in TRAIN_SETS:
        scenes = [scene for scene in scenes if scene.is_dev]
        name = f"held-out {name}"
        if not scenes:
            raise UsageError(
                f"our models were trained on all of {folder.name}", remedy="take ilc or pictures of your own"
            )
    if not any(len(scene.boxes) for scene in scenes):
        raise UsageError(f"there are no faces in {folder}", remedy="give a folder with labelled faces")
    return Labelled(
        name,
        [read_image(scene.path) for scene in scenes],
        [scene.boxes for scene in scenes],
        [np.array([label != "without_mask" for label in scene.labels], bool) for scene in scenes],
    )


@dataclass(slots=True, frozen=True)
class Matches:
    """Detections of one picture: `scores`, `hits` (1, or 0 for a false alarm), and how many true `faces`."""

    scores: np.ndarray
    hits: np.ndarray
    faces: int


def matches(data: Labelled, found: Sequence[Found]) -> list[Matches]:
    """Match each picture's detections by the rules of `export.scoring`: they never reach across pictures."""
    from export.scoring import Detections, average_precision

    out = []
    for i, one in enumerate(found):
        score = average_precision(
            [data.boxes[i]],
            [Detections(one.boxes, one.scores)],
            iou=IOU,
            side=(SMALLEST_FACE, np.inf),
            scales=[data.scale(i)],
        )
        hits = np.diff(np.rint(score.recalls * max(score.faces, 1)), prepend=0)
        out.append(Matches(score.scores, hits, score.faces))
    return out


def average_precision(matched: Sequence[Matches]) -> float:
    """What `export.scoring.average_precision` computes of all pictures, from the matches in each."""
    scores = np.concatenate([one.scores for one in matched])
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(np.concatenate([one.hits for one in matched])[order])
    precision = hits / np.arange(1, len(hits) + 1)
    recall = hits / max(sum(one.faces for one in matched), 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


def worn_right(data: Labelled, found: Sequence[Found]) -> list[np.ndarray]:
    """Per picture and true face of at least `SMALLEST_MASK` pixels: 1 right, 0 wrong, -1 not found."""
    out = []
    for i, one in enumerate(found):
        sides = np.sqrt(data.boxes[i][:, 2] * data.boxes[i][:, 3]) * data.scale(i)
        answers = np.full(len(sides), -1)
        overlap = iou_matrix(one.boxes, data.boxes[i])
        assert one.worn is not None
        for j in np.argsort(-one.scores, kind="stable"):
            free = np.where(answers < 0, overlap[j], 0.0)
            if len(free) and free.max() >= IOU:
                face = int(free.argmax())
                answers[face] = int(one.worn[j] == data.worn[i][face])
        out.append(answers[sides >= SMALLEST_MASK])
    return out


def _share_right(answers: Sequence[np.ndarray]) -> float:
    every = np.concatenate(list(answers))
    return float((every == 1).mean())


@dataclass(slots=True)
class Answers:
    """What a detector said of the labelled pictures: `curve` from a low score on, `worn` at its usual one."""

    curve: list[Matches]
    worn: list[np.ndarray] | None


@dataclass(slots=True)
class Accuracies:
    """Accuracy of all rows that find faces, and its differences, over the same draws of pictures."""

    data: Labelled
    answers: dict[str, Answers]
    seed: int = 0
    _drawn: dict[str, list[float]] = field(default_factory=dict)

    def ap(self, name: str) -> dict[str, Any]:
        """`accuracy` of a row."""
        curve = self.answers[name].curve
        return {
            "figure": f"AP at IoU {IOU}, faces >= {SMALLEST_FACE} px at {SCALE_SIDE} px",
            "value": round(average_precision(curve), 4),
            "n": sum(one.faces for one in curve),
            "ci": _ends(self._draws(name)),
            "data": self.data.name,
        }

    def ap_ahead(self, first: str, second: str) -> Interval:
        """AP of one less that of another."""
        value = average_precision(self.answers[first].curve) - average_precision(self.answers[second].curve)
        return Interval(value, *_ends(np.subtract(self._draws(first), self._draws(second)).tolist()))

    def worn(self, name: str) -> dict[str, Any] | None:
        """`worn_or_not` of a row, or None where it does not tell."""
        told = self.answers[name].worn
        if told is None:
            return None
        every = np.concatenate(told)
        draws = [_share_right([told[i] for i in row]) for row in self._rows()]
        return {
            "figure": f"worn or not, faces >= {SMALLEST_MASK} px at {SCALE_SIDE} px, not found is wrong",
            "value": round(_share_right(told), 4),
            "n": len(every),
            "ci": _ends(draws),
            "found": int((every >= 0).sum()),
            "of_found": round(float((every == 1).sum() / max(1, (every >= 0).sum())), 4),
            "data": self.data.name,
        }

    def worn_ahead(self, first: str, second: str) -> Interval | None:
        """Share of right answers of one less that of another."""
        one, two = self.answers[first].worn, self.answers[second].worn
        if one is None or two is None:
            return None
        draws = [
            _share_right([one[i] for i in row]) - _share_right([two[i] for i in row]) for row in self._rows()
        ]
        return Interval(_share_right(one) - _share_right(two), *_ends(draws))

    def _rows(self) -> np.ndarray:
        count = len(self.data.pictures)
        return np.random.default_rng(self.seed).integers(0, count, (DRAWS, count))

    def _draws(self, name: str) -> list[float]:
        if name not in self._drawn:
            curve = self.answers[name].curve
            self._drawn[name] = [average_precision([curve[i] for i in row]) for row in self._rows()]
        return self._drawn[name]


def _ends(draws: Sequence[float]) -> list[float]:
    low, high = np.nanquantile(draws, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return [round(float(low), 4), round(float(high), 4)]

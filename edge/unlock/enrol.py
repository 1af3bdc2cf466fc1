"""Takes good views of one person, bare and masked, and makes templates of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from edge.errors import InputError
from edge.masks import paint_mask
from edge.tasks.attributes import AttributesEstimator
from edge.tasks.identity import Embedder
from edge.types import MASK_STATES, Analysis, Face, Frame
from edge.unlock.gate import Prompter, look_at
from edge.unlock.liveness import nose_place
from edge.unlock.vault import MODES, Person

LEAST_VIEWS = 3
"""Of a mode, for a template."""

_APART_S = 0.2  # between two views: the next frame shows nothing new
_TURNED = 0.6  # see `nose_place`
_DESIGNS = 3  # painted masks for each bare view
_OUTLIERS = 0.2  # share of the views that a template leaves out
_COVERED = ("nose_out", "correct")


@dataclass(slots=True)
class Views:
    """Embeddings of one mode, n x d float32 of length 1 each, and their weights."""

    vectors: list[np.ndarray] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.vectors)

    def add(self, vector: np.ndarray, weight: float) -> None:
        self.vectors.append(vector)
        self.weights.append(weight)


def trimmed_mean(views: Views) -> np.ndarray:
    """Their weighted mean without the fifth that is least like the others, d float32 of length 1.

    Raises:
        ValueError: no views.
    """
    if not views.vectors:
        raise ValueError("no views")
    vectors, weights = np.array(views.vectors, np.float32), np.array(views.weights, np.float32)
    # By the median of the likeness to the others: a mean would already be drawn towards the outliers.
    like = np.median(vectors @ vectors.T, axis=1)
    keep = np.argsort(-like, kind="stable")[: max(len(like) - int(len(like) * _OUTLIERS), 1)]
    mean = (vectors[keep] * weights[keep, None]).sum(axis=0)
    made: np.ndarray = mean / max(float(np.linalg.norm(mean)), 1e-6)
    return made


def between(bare: np.ndarray, masked: np.ndarray) -> np.ndarray:
    """The template for faces in masks: half of it is how the face looks bare.

    Against a masked picture of people held out (n 925), true accepts at FAR 1e-2, 1e-3 and 1e-4 were 0.708,
    0.431 and 0.225 of a bare one, 0.697, 0.440 and 0.252 of one in a painted mask, and 0.719, 0.459 and 0.271
    of both together (identity 1.7.0).

    Args:
        bare, masked: embeddings of length 1, d or n x d.

    Returns:
        The same shape, of length 1.
    """
    mean = bare + masked
    out: np.ndarray = mean / np.maximum(np.linalg.norm(mean, axis=-1, keepdims=True), 1e-6)
    return out


class Enroller(Prompter):
    """A sink of the loop that takes views until it has enough.

    A camera is taken through two parts: bare, then with a mask on. Of clips and pictures every good view
    counts, in the order in which they come.

    Attributes:
        taken: mode to its views; painted ones are apart.
        refused: reason to the number of frames or pictures left out for it.
    """

    name = "enrol"

    def __init__(
        self,
        embedder: Embedder,
        estimator: AttributesEstimator,
        *,
        live: bool,
        wanted: int = 8,
        masked: bool = True,
        say: Callable[[str], None] | None = None,
        progress: Callable[[str, int, int], None] | None = None,
        seed: int = 0,
    ) -> None:
        """Args:
        embedder: of the identity model.
        estimator: tells bare views from masked ones, as each has a template of its own.
        live: a camera.
        wanted: views of each mode, 3 or more. Pictures and clips may give more.
        masked: whether a camera asks for views with a mask on.
        say: called with each new `says`.
        progress: called with mode, views taken and views wanted.
        seed: of the painted masks.
        """
        super().__init__(say)
        self.taken = {mode: Views() for mode in MODES}
        self.painted = Views()
        self.refused: dict[str, int] = {}
        self._embedder = embedder
        self._estimator = estimator
        self._live = live
        self._wanted = max(wanted, LEAST_VIEWS)
        self._masked = masked
        self._progress = progress
        self._rng = np.random.default_rng(seed)
        self._last = -1e9

    @property
    def mode(self) -> str | None:
        """What a camera is asked for now; None when there is enough."""
        for mode in MODES if self._masked else MODES[:1]:
            if len(self.taken[mode]) < self._wanted:
                return mode
        return None

    def write(self, frame: Frame, analysis: Analysis) -> None:
        if self.stop_requested:
            return
        trouble = self._take(frame, analysis)
        if trouble:
            self.refused[trouble] = self.refused.get(trouble, 0) + 1
        if self._live:
            self.stop_requested = self.mode is None
            self._tell(trouble or {"bare": "look at the camera, without a mask"}.get(self.mode or "", ""))

    def _take(self, frame: Frame, analysis: Analysis) -> str:
        """Take the view of a frame; returns why not, or "" also when it is not time for one yet."""
        if not analysis.faces:
            return "nobody is in view" if self._live else "no face"
        if len(analysis.faces) > 1:
            return "more than one face is in view"
        if frame.name is None and analysis.time - self._last < _APART_S:
            return ""
        face = analysis.faces[0]
        if abs(nose_place(face.landmarks)) > _TURNED:
            return "look at the camera"
        look = look_at(self._embedder, frame.image, face)
        if isinstance(look, str):
            return look
        mode = self._mode_of(frame.image, face)
        if mode is None:
            return "it is not clear whether there is a mask"
        if self._live and mode != self.mode:
            return "take the mask off" if mode == "masked" else "now put a mask on"
        self._last = analysis.time
        self.taken[mode].add(look.embedding.vector, look.weight)
        if mode == "bare":
            self._paint(frame.image, face, look.weight)
        if self._progress:
            self._progress(mode, len(self.taken[mode]), self._wanted)
        return ""

    def _mode_of(self, image: np.ndarray, face: Face) -> str | None:
        (view,) = self._estimator.estimate(image, [face])
        if view is None or view.face < self._estimator.thresholds.face:
            return None
        covered = sum(view.mask[MASK_STATES.index(state)] for state in _COVERED)
        sure = self._estimator.thresholds.mask
        return "masked" if covered >= sure else "bare" if covered <= 1 - sure else None

    def _paint(self, image: np.ndarray, face: Face, weight: float) -> None:
        for _ in range(_DESIGNS):
            covered = paint_mask(image, face.landmarks, worn="correct", rng=self._rng).image
            embedding = self._embedder.embed(covered, face.landmarks)
            self.painted.add(embedding.vector, weight)

    def person(self, name: str, *, least: float) -> Person:
        """The templates of what was taken.

        Args:
            name: of the person.
            least: cosine that views of one person have with their template, on average.

        Raises:
            InputError: too few views, or not of one person.
        """
        bare, masked = (self.taken[mode] for mode in MODES)
        if len(bare) < LEAST_VIEWS:
            most = max(self.refused, key=lambda reason: self.refused[reason], default="")
            why = f"; mostly: {most} ({self.refused[most]} times)" if most else ""
            raise InputError(
                f"too few good views of {name} without a mask: {len(bare)}{why}",
                remedy=f"{LEAST_VIEWS} are needed, better {self._wanted}: a large, sharp face alone in view",
            )
        painted = len(masked) < LEAST_VIEWS
        kinds = {"bare": bare, "masked": self.painted if painted else masked}
        means = {mode: trimmed_mean(views) for mode, views in kinds.items()}
        for mode, views in kinds.items():
            like = float(np.median(np.array(views.vectors) @ means[mode]))
            if like < least:
                raise InputError(
                    f"the {mode} views do not seem to be of one person (cosine {like:.2f})",
                    remedy="use pictures of one person alone, large and sharp",
                )
        templates = {"bare": means["bare"], "masked": between(means["bare"], means["masked"])}
        return Person(name, templates, {mode: len(views) for mode, views in kinds.items()}, painted)

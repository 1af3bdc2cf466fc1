"""Names of enrolled people in the live view. They decide nothing: that is what `edge.unlock.gate` is for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edge.tasks.identity import Embedder
from edge.types import Face
from edge.unlock.gate import look_at
from edge.unlock.policy import Gallery

_LEAST_VIEWS = 2
_STRANGER = {"name": None, "score": 0.0}


@dataclass(slots=True)
class _Track:
    """Views of one track: the weighted sum of their embeddings."""

    sum: np.ndarray | float = 0.0
    views: int = 0
    time: float = -1e9
    shown: dict[str, Any] | None = None


class Namer:
    """Tells of each track whether its views, taken together, are of somebody who enrolled.

    The mean of a track's embeddings is compared, so that one view that looks like somebody names nobody.
    At most one face is looked at in a frame: new ones first, then who waited longest.

    Attributes:
        rejected: always 0; nobody is left out.
        last_invoke_ms: time of the bare model in the last frame, milliseconds.
    """

    rejected = 0

    def __init__(self, embedder: Embedder, gallery: Gallery, *, every_s: float = 0.3) -> None:
        """Args:
        embedder: of the identity model.
        gallery: who is enrolled.
        every_s: how often each face is looked at, seconds; 0 is every frame.
        """
        self.last_invoke_ms = 0.0
        self._embedder = embedder
        self._gallery = gallery
        self._every = every_s
        self._tracks: dict[int | None, _Track] = {}

    def label(self, image: np.ndarray, faces: Sequence[Face]) -> tuple[Face, ...]:
        """Faces of a picture that stands for itself: each as this one view shows it."""
        self.last_invoke_ms = 0.0
        out = []
        for face in faces:
            track = _Track()
            self._look(image, face, track, least=1)
            out.append(replace(face, identity=track.shown or _STRANGER))
        return tuple(out)

    def update(
        self, image: np.ndarray, faces: Sequence[Face], time_s: float, tracks: Collection[int]
    ) -> tuple[Face, ...]:
        """The faces of the next frame, with what is known of their tracks; arguments as of a `Labeller`."""
        self.last_invoke_ms = 0.0
        for gone in [key for key in self._tracks if key not in tracks]:
            del self._tracks[gone]
        due = [face for face in faces if self._wait(face, time_s) <= 0]
        if due:
            face = min(due, key=lambda one: self._track(one).time)
            track = self._track(face)
            track.time = time_s
            self._look(image, face, track, least=_LEAST_VIEWS)
        return tuple(replace(face, identity=self._track(face).shown) for face in faces)

    def _track(self, face: Face) -> _Track:
        return self._tracks.setdefault(face.track, _Track())

    def _wait(self, face: Face, time_s: float) -> float:
        track = self._track(face)
        passed = time_s - track.time
        # A clock that jumps back must not silence it.
        return 0.0 if track.views < _LEAST_VIEWS or passed < 0 else self._every - passed

    def _look(self, image: np.ndarray, face: Face, track: _Track, *, least: int) -> None:
        look = look_at(self._embedder, image, face)
        if isinstance(look, str):
            return
        self.last_invoke_ms += self._embedder.last_invoke_ms
        track.sum = track.sum + look.weight * look.embedding.vector
        track.views += 1
        if track.views < least:
            return
        mean = track.sum / max(float(np.linalg.norm(track.sum)), 1e-6)
        match = self._gallery.search(np.asarray(mean, np.float32))
        if match is None:
            track.shown = _STRANGER
        else:
            known = match.margin > 0
            track.shown = {"name": match.name if known else None, "score": round(match.score, 4)}

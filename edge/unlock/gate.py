"""Decides from the frames of the camera loop whether somebody may unlock."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from edge.sinks.base import Sink
from edge.tasks.attributes import sharpness
from edge.tasks.identity import Embedder, Embedding
from edge.types import Analysis, Face, Frame
from edge.unlock.liveness import Check, View
from edge.unlock.policy import Gallery, Votes

MIN_SIDE = 64.0
"""Pixels (the square root of the box's area); smaller faces are asked to come closer."""

_FULL_SIDE = 112.0
_MIN_SHARPNESS, _FULL_SHARPNESS = 0.2, 0.4
_MIN_QUALITY = 0.52
"""Of identity 1.11.0: 230 of 300 crops of rooms without people are below, one of 925 held-out faces bare, and
three of them in painted masks."""
_DARK, _BRIGHT = 35.0, 235.0  # mean grey of the crop
_ABSENT_S = 3.0


@dataclass(slots=True, frozen=True)
class Look:
    """A usable view of a face.

    Attributes:
        crop: aligned, S x S x 3 uint8 BGR.
        embedding: who it shows.
        weight: above 0; of a large and sharp view 1.
    """

    crop: np.ndarray
    embedding: Embedding
    weight: float


def look_at(embedder: Embedder, image: np.ndarray, face: Face) -> Look | str:
    """A face of a picture, or what the person should do about it.

    Args:
        embedder: of the identity model.
        image: H x W x 3 uint8 BGR.
        face: of that picture.
    """
    side = math.sqrt(max(face.box[2] * face.box[3], 0.0))
    if side < MIN_SIDE:
        return "come closer"
    try:
        crop = embedder.crop(image, face.landmarks)
    except ValueError:
        return "look at the camera"
    light = cv2.mean(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY))[0]
    if not _DARK <= light <= _BRIGHT:
        return "it is too dark" if light < _DARK else "it is too bright"
    sharp = sharpness(crop)
    if sharp < _MIN_SHARPNESS:
        return "hold still, the picture is blurred"
    embedding = embedder.look(crop)
    if embedding.quality < _MIN_QUALITY:
        return "look at the camera"
    return Look(crop, embedding, min(1.0, side / _FULL_SIDE) * min(1.0, sharp / _FULL_SHARPNESS))


@dataclass(slots=True, frozen=True)
class Decision:
    """How an attempt ended.

    Attributes:
        name: who was accepted, or None.
        reason: why not; "" when accepted.
        seen: whether any face was compared: only then it counts as an attempt.
        score: highest cosine of the views, -1 without any.
        views: how many were compared in the track that decided.
        seconds: from the first frame to the decision, on the clock of the source.
    """

    name: str | None
    reason: str
    seen: bool
    score: float
    views: int
    seconds: float


class Prompter(Sink):
    """A sink that tells the person before the camera what to do.

    Args:
        say: called with each new `says`.

    Attributes:
        says: what to do now.
    """

    def __init__(self, say: Callable[[str], None] | None) -> None:
        self.says = ""
        self._say = say

    def _tell(self, what: str) -> None:
        if what != self.says:
            self.says = what
            if what and self._say:
                self._say(what)


class Gate(Prompter):
    """A sink of the loop that ends it with a decision.

    Only frames with one face in view count. Votes and checks begin anew with every track.

    Attributes:
        decision: None until there is one; after the loop has ended there always is.
        picture: the last frame with a face, H x W x 3 uint8 BGR, or None.
    """

    name = "unlock"

    def __init__(
        self,
        embedder: Embedder,
        gallery: Gallery,
        *,
        checks: Callable[[], list[Check]],
        needed: int = 3,
        seconds: float = 10.0,
        on_attempt: Callable[[], None] | None = None,
        say: Callable[[str], None] | None = None,
        keep_picture: bool = False,
    ) -> None:
        """Args:
        embedder: of the identity model.
        gallery: who may unlock.
        checks: makes the liveness checks of a track; their chance is its own.
        needed: as in `Votes`.
        seconds: an attempt takes at most, on the clock of the source.
        on_attempt: called once, before the first view is compared. What it raises ends the loop.
        say: called with each new `says`.
        keep_picture: whether `picture` is wanted.
        """
        super().__init__(say)
        self.decision: Decision | None = None
        self.picture: np.ndarray | None = None
        self._keep = keep_picture
        self._embedder = embedder
        self._gallery = gallery
        self._make = checks
        self._needed = needed
        self._limit = seconds
        self._on_attempt = on_attempt
        self._seen = False
        self._best = -1.0
        self._begun: float | None = None
        self._time = self._face_time = 0.0
        self._track: int | None = None
        self._votes = Votes(needed)
        self._checks: list[Check] = []
        self._accepted: str | None = None
        self._trouble = "nobody is in view"

    def write(self, frame: Frame, analysis: Analysis) -> None:
        if self.decision is not None:
            return
        if self._begun is None:
            self._begun = self._face_time = analysis.time
        self._time = analysis.time
        if analysis.faces:
            self._face_time = analysis.time
            self.picture = frame.image if self._keep else None
        self._consider(frame, analysis)
        if self.decision is None and self._time - self._begun >= self._limit:
            self._refuse()
        elif self.decision is None and self._time - self._face_time >= _ABSENT_S:
            self._decide(None, "nobody is in view")

    def close(self) -> None:
        """Decides with what there is: the source has ended."""
        if self.decision is None:
            self._refuse()

    def _consider(self, frame: Frame, analysis: Analysis) -> None:
        if not analysis.faces:
            self._tell("")
            return
        if len(analysis.faces) > 1:
            # Who of them wants to unlock? And a photo held beside a face must not take part.
            self._start(None)
            self._trouble = "more than one face is in view"
            self._tell("one at a time, please")
            return
        face = analysis.faces[0]
        if self._track is None or face.track != self._track:
            self._start(face.track)
        look = look_at(self._embedder, frame.image, face)
        if isinstance(look, str):
            self._trouble = self._trouble if self._votes.views else look
            self._tell(look)
            return
        if not self._seen:
            self._seen = True
            if self._on_attempt:
                self._on_attempt()
        match = self._gallery.search(look.embedding.vector)
        self._accepted = self._votes.add(match, look.weight)
        self._best = max(self._best, self._votes.best)
        view = View(frame.image, face.box, face.landmarks, look.crop, analysis.time)
        for check in self._checks:
            check.look(view)
            if check.state == "refused":
                self._decide(None, check.says)
                return
        if self._accepted is not None and all(check.state == "passed" for check in self._checks):
            self._decide(self._accepted, "")
            return
        waiting = [check.says for check in self._checks if check.state == "waiting" and check.says]
        self._tell(waiting[-1] if waiting else "")

    def _start(self, track: int | None) -> None:
        self._track = track
        self._votes = Votes(self._needed)
        self._checks = self._make()
        self._accepted = None

    def _refuse(self) -> None:
        waiting = [check for check in self._checks if check.state == "waiting"]
        if self._accepted is not None and waiting:
            self._decide(None, waiting[0].says or f"the check {waiting[0].name!r} came to no end")
        elif self._votes.views:
            few = self._votes.views < self._needed
            self._decide(None, "too few clear views" if few else "not recognised")
        else:
            self._decide(None, self._trouble)

    def _decide(self, name: str | None, reason: str) -> None:
        begun = self._begun if self._begun is not None else self._time
        self.decision = Decision(name, reason, self._seen, self._best, self._votes.views, self._time - begun)
        self.stop_requested = True

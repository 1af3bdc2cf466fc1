"""The unmask task of the camera loop: a thread that completes faces, one after the other, beside the loop."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edge.tasks.unmask import Completion, Patch, Unmasker, covered
from edge.types import Face

if TYPE_CHECKING:
    from edge.pacing import Pacer

log = logging.getLogger(__name__)

CLOSE_S = 10.0
"""How long closing waits for a model that does not come back."""

_STALE_S = 3.0  # an older completion is not shown any more; a crowd takes its turns within that
_REST_S = 1.0  # after a longer pause than this nothing is averaged with what was before

# ---- the look of a face, averaged in its aligned crop, where the face stands still
_LOOK_S = 0.25  # time constant
_OTHER = 24.0  # grey values: a look that differs by this on average is another one, and taken at once

# ---- its place: the one-euro filter (Casiez et al. 2012), its lengths in sizes of the face
_STILL_HZ, _HZ_PER_SPEED, _SPEED_HZ = 1.5, 12.0, 3.0


@dataclass(slots=True)
class _Track:
    """What the loop keeps of a face; `served` is written by the worker."""

    served: float = -math.inf  # time of the frame that was completed last, seconds
    time: float = -math.inf
    points: np.ndarray | None = None
    speed: np.ndarray | None = None
    ready: tuple[float, Completion] | None = None


@dataclass(slots=True)
class _Look:
    """The running mean of a track's completions; the worker's own."""

    time: float
    pixels: np.ndarray  # S x S x 3 float32
    alpha: np.ndarray  # S x S float32


@dataclass(slots=True)
class _Request:
    track: int
    image: np.ndarray
    landmarks: np.ndarray
    time: float
    alive: frozenset[int] = field(default_factory=frozenset)


class LiveUnmasker:
    """Gives the masked faces of a loop their completions, without holding it up.

    Each frame at most one face, the one that waited longest, is handed to a thread; of what waits there only
    the newest stays. What is ready is shown with the frames that follow, moved along by their landmarks and
    smoothed, so that a face neither trembles nor shimmers. While the board is hot, nothing is completed or
    shown, which is said in the log.

    Args:
        unmasker: completes the faces; used by one thread at a time.
        every_s: how often each face is completed anew, seconds; 0 is as often as the machine can.
        wait: complete every masked face of every frame, and let the loop wait for it; no thread is made.
        pacer: knows whether the board is hot; None never rests.

    Attributes:
        finished_ms: time of the bare model for each completion since the last call of `update` or `label`,
            milliseconds.
        replaced: requests that gave way to a newer frame.
    """

    def __init__(
        self, unmasker: Unmasker, *, every_s: float = 0.1, wait: bool = False, pacer: Pacer | None = None
    ) -> None:
        self.unmasker = unmasker
        self.every_s = every_s
        self.wait = wait
        self.finished_ms: list[float] = []
        self.replaced = 0
        self._pacer = pacer
        self._resting = False
        self._tracks: dict[int, _Track] = {}
        self._looks: dict[int, _Look] = {}
        self._spent: list[float] = []
        self._request: _Request | None = None
        self._changed = threading.Condition()
        self._ended = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def label(self, image: np.ndarray, faces: Sequence[Face]) -> tuple[Face, ...]:
        """Faces of a picture that stands for itself, H x W x 3 uint8 BGR: completed at once.

        Raises:
            ModelError: the model failed.
        """
        self.finished_ms = []
        out = []
        for face in faces:
            if covered(face):
                try:
                    completion = self.unmasker.look(image, face.landmarks)
                except ValueError:  # points that are none of a face
                    out.append(face)
                    continue
                self.finished_ms.append(self.unmasker.last_invoke_ms)
                face = replace(face, unmasked=Patch(completion, face.landmarks))
            out.append(face)
        return tuple(out)

    def update(
        self, image: np.ndarray, faces: Sequence[Face], time_s: float, tracks: Collection[int]
    ) -> tuple[Face, ...]:
        """Faces of the next frame, those with a mask over the mouth with what is ready for them.

        Args:
            image: the frame, H x W x 3 uint8 BGR; not changed, and kept until it was looked at.
            faces: of it, with track ids and mask states.
            time_s: of the frame, seconds; a clock that stands still or jumps back does no harm.
            tracks: ids the tracker still knows; all others are forgotten.

        Returns:
            The faces in the order given.

        Raises:
            MaskedgeError: what the thread failed with since the last call; that is raised once.
        """
        self._raise()
        self.finished_ms, self._spent = self._spent, []
        known = self._tracks
        for gone in [key for key in known if key not in tracks]:
            del known[gone]
        if self._rests():
            return tuple(faces)
        out, due, longest = list(faces), None, time_s - self.every_s + 1e-3
        for place, face in enumerate(faces):
            if face.track is None or not covered(face):
                continue
            track = known.get(face.track)
            if track is None:
                track = known[face.track] = _Track()
            _follow(track, face, time_s)
            assert track.points is not None
            if self.wait:
                request = _Request(face.track, image, track.points, time_s, frozenset(tracks))
                self._complete(request, track)
            elif track.served <= longest or track.served > time_s:
                due, longest = (face.track, track.points), min(track.served, longest)
            ready = track.ready
            if ready is not None and abs(time_s - ready[0]) <= _STALE_S:
                out[place] = replace(face, unmasked=Patch(ready[1], track.points))
        if self.wait:
            self.finished_ms, self._spent = self._spent, []
        elif due is not None:
            self._ask(_Request(due[0], image, due[1], time_s, frozenset(tracks)))
        return tuple(out)

    def close(self) -> None:
        """End the thread; may be called more than once.

        Raises:
            MaskedgeError: what the thread failed with, if `update` has not raised it.
        """
        with self._changed:
            self._ended = True
            self._request = None
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(CLOSE_S)
            if self._thread.is_alive():
                log.warning("the unmask model does not come back")
        self._raise()

    def _rests(self) -> bool:
        hot = self._pacer is not None and self._pacer.level > 0
        if hot != self._resting:
            self._resting = hot
            if self._pacer is not None and hot:
                log.warning("unmask rests until the board has cooled down (%s)", self._pacer.why)
                with self._changed:
                    self._request = None
                self._tracks.clear()
            else:
                log.info("unmask goes on")
        return hot

    def _raise(self) -> None:
        with self._changed:
            error, self._error = self._error, None
        if error is not None:
            raise error

    def _ask(self, request: _Request) -> None:
        with self._changed:
            if self._ended:
                return
            self.replaced += self._request is not None
            self._request = request
            self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="unmask", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._request is not None or self._ended)
                    request, self._request = self._request, None
                if request is None or self._ended:
                    return
                track = self._tracks.get(request.track)
                if track is not None:
                    self._complete(request, track)
                del request  # a frame may be large: not kept while there is nothing to do
        except BaseException as error:
            with self._changed:
                self._error, self._ended = error, True

    def _complete(self, request: _Request, track: _Track) -> None:
        track.served = request.time
        try:
            new = self.unmasker.look(request.image, request.landmarks)
        except ValueError:
            return  # points that are none of a face
        self._spent.append(self.unmasker.last_invoke_ms)
        looks = self._looks
        for gone in [key for key in looks if key not in request.alive]:
            del looks[gone]
        look = looks.get(request.track)
        passed = math.inf if look is None else request.time - look.time
        if look is None or not 0 <= passed <= _REST_S:
            looks[request.track] = _Look(request.time, new.pixels.astype(np.float32), new.alpha.copy())
        else:
            new = _averaged(look, new, passed)
            look.time = request.time
        track.ready = request.time, new


def _averaged(look: _Look, new: Completion, passed: float) -> Completion:
    """The mean so far, moved towards `new`: the more time has passed, or the more it differs, the further."""
    weight = 1 - math.exp(-passed / _LOOK_S)
    x0, y0, x1, y1 = new.rect
    if x1 > x0:
        part = np.s_[y0:y1:4, x0:x1:4]
        other = float(np.abs(new.pixels[part] - look.pixels[part]).mean())
        weight = max(weight, min(1.0, (other / _OTHER) ** 2))
    cv2.accumulateWeighted(new.pixels, look.pixels, weight)
    cv2.accumulateWeighted(new.alpha, look.alpha, weight)
    # Of the averages only what they say now: shares that fade away for ever would never leave the picture be.
    alpha = np.where(look.alpha < 1 / 64, np.float32(0), look.alpha)
    return Completion.of(cv2.convertScaleAbs(look.pixels), alpha)


def _follow(track: _Track, face: Face, time_s: float) -> None:
    """Where the landmarks are, less their trembling: the slower they move, the more is smoothed."""
    passed = time_s - track.time
    track.time = time_s
    points = np.asarray(face.landmarks, np.float64)
    before, speed = track.points, track.speed
    if before is None or speed is None or not 0 <= passed <= _REST_S or not np.isfinite(points).all():
        track.points, track.speed = points, np.zeros_like(points)
        return
    if passed < 1e-6:
        return
    size = max(math.sqrt(max(face.box[2] * face.box[3], 0.0)), 1.0)
    step = points - before
    speed = speed + _share(_SPEED_HZ, passed) * (step / passed - speed)
    pace = math.sqrt(float((speed * speed).sum()) / len(points)) / size
    track.points = before + _share(_STILL_HZ + _HZ_PER_SPEED * pace, passed) * step
    track.speed = speed


def _share(hertz: float, passed: float) -> float:
    """Share of the new value in a low-pass filter of that cut-off frequency."""
    return 1 / (1 + 1 / (2 * math.pi * hertz * passed))

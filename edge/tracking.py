"""Gives every face an id that stays with it from frame to frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge.geometry import iou_matrix
from edge.types import Face

# A track seen fewer times than this may be a flicker of the detector: it is forgotten sooner, so that
# noise cannot pile up tracks or lend an old id to a new face.
_SETTLED_HITS = 3
_UNSETTLED_AGE = 0.25  # of max_age_s
_COAST_S = 0.5  # a velocity older than this says nothing about where the face is now
_MIN_STEP_S = 1 / 120  # frames that arrive in a burst would make a trembling box look fast
_SIZE_RATIO = 2.0  # between two frames a face grows or shrinks by less than this
_LOW_SCORE_IOU = 0.5  # a weak detection must lie where the track is expected, to keep false alarms out


@dataclass(slots=True)
class _Track:
    id: int
    x: float  # centre of the last detection, pixels
    y: float
    w: float
    h: float
    time: float  # seconds, of the last detection
    vx: float = 0.0  # pixels per second
    vy: float = 0.0
    hits: int = 1


class Tracker:
    """Constant-velocity tracker: overlap first, then distance between centres for fast movers.

    A face has an id in the first frame that shows it; ids start at 1 and are never given twice.

    Args:
        iou: smallest overlap of a detection with the predicted box of its track, 0..1.
        max_age_s: how long an unseen face keeps its id, seconds on the clock given to `update`.
        reach: for faces that overlap nothing, the farthest centre of the same face, in face sizes.
        start_score: weaker faces only continue a track that is already there, and are dropped
            otherwise; 0 lets every face start one.
    """

    def __init__(
        self, *, iou: float = 0.2, max_age_s: float = 1.0, reach: float = 1.0, start_score: float = 0.0
    ) -> None:
        self.iou = iou
        self.max_age_s = max_age_s
        self.reach = reach
        self.start_score = start_score
        self._tracks: list[_Track] = []
        self._last_id = 0

    @property
    def alive(self) -> int:
        """Tracks that are remembered, seen in the last frame or not."""
        return len(self._tracks)

    @property
    def ids(self) -> set[int]:
        """Of the tracks that are remembered."""
        return {track.id for track in self._tracks}

    @property
    def seen(self) -> int:
        """How many ids were given so far."""
        return self._last_id

    def update(self, faces: Sequence[Face], time_s: float) -> tuple[Face, ...]:
        """Match the faces of the next frame to the tracks.

        Args:
            faces: of one frame, any order.
            time_s: of that frame, seconds; a clock that stands still or jumps back does no harm.

        Returns:
            The faces in the order given, each with its track id, without those dropped by `start_score`.
        """
        self._tracks = [track for track in self._tracks if abs(time_s - track.time) <= self._age(track)]
        if not faces:
            return ()
        boxes = np.array([face.box for face in faces], np.float64).reshape(-1, 4)
        owner: dict[int, _Track] = {}
        if self._tracks:
            strong = [face.score >= self.start_score for face in faces]
            self._match(boxes, strong, time_s, owner)
        out = []
        for index, face in enumerate(faces):
            track = owner.get(index)
            x, y, w, h = face.box
            if track is not None:
                _move(track, x + w / 2, y + h / 2, w, h, time_s)
            elif face.score >= self.start_score:
                self._last_id += 1
                track = _Track(self._last_id, x + w / 2, y + h / 2, w, h, time_s)
                self._tracks.append(track)
            else:
                continue
            out.append(replace(face, track=track.id))
        return tuple(out)

    def _age(self, track: _Track) -> float:
        return self.max_age_s * (1.0 if track.hits >= _SETTLED_HITS else _UNSETTLED_AGE)

    def _match(
        self, boxes: np.ndarray, strong: Sequence[bool], time_s: float, owner: dict[int, _Track]
    ) -> None:
        """Fill `owner` (index of the face to its track): first by overlap, then by distance."""
        tracks = self._tracks
        now = np.array([_predict(track, time_s) for track in tracks])  # n x 4: x, y, w, h
        used: set[int] = set()
        needed = max(self.iou, _LOW_SCORE_IOU), self.iou
        # Strong detections choose before weak ones, as in ByteTrack: a weak one takes only what is left.
        # Plain numbers, since pairs are few: arrays would take several times as long.
        pairs = [
            (overlap + strong[column], row, column)
            for row, overlaps in enumerate(iou_matrix(now, boxes).tolist())
            for column, overlap in enumerate(overlaps)
            if overlap >= needed[strong[column]]
        ]
        _greedy(pairs, tracks, used, owner)
        if len(used) == len(tracks) or len(owner) == len(boxes):
            return
        size = np.sqrt(np.maximum(boxes[:, 2] * boxes[:, 3], 1e-9))
        track_size = np.sqrt(np.maximum(now[:, 2] * now[:, 3], 1e-9))[:, None]
        apart = (now[:, None, :2] + now[:, None, 2:] / 2) - (boxes[:, :2] + boxes[:, 2:] / 2)
        away = np.hypot(apart[..., 0], apart[..., 1]) / ((track_size + size) / 2)
        ratio = size / track_size
        near = (ratio < _SIZE_RATIO) & (ratio > 1 / _SIZE_RATIO) & np.array(strong) & (away < self.reach)
        rows, columns = near.nonzero()
        closeness = (self.reach - away[rows, columns]).tolist()
        _greedy([*zip(closeness, rows.tolist(), columns.tolist(), strict=True)], tracks, used, owner)


def _predict(track: _Track, time_s: float) -> tuple[float, float, float, float]:
    ahead = min(max(time_s - track.time, 0.0), _COAST_S)
    x, y = track.x + track.vx * ahead, track.y + track.vy * ahead
    return x - track.w / 2, y - track.h / 2, track.w, track.h


def _move(track: _Track, x: float, y: float, w: float, h: float, time_s: float) -> None:
    passed = time_s - track.time
    if passed > 1e-6:
        # The first measured step is all we know; later ones are averaged, since boxes tremble.
        weight = 1.0 if track.hits == 1 else 0.5
        passed = max(passed, _MIN_STEP_S)
        track.vx += weight * ((x - track.x) / passed - track.vx)
        track.vy += weight * ((y - track.y) / passed - track.vy)
    track.x, track.y, track.w, track.h = x, y, w, h
    track.time = time_s
    track.hits += 1


def _greedy(
    pairs: list[tuple[float, int, int]], tracks: list[_Track], used: set[int], owner: dict[int, _Track]
) -> None:
    """Take pairs (rank, place of the track, index of the face) from the best down, each of both once."""
    for _, row, column in sorted(pairs, key=lambda pair: -pair[0]):
        if row not in used and column not in owner:
            used.add(row)
            owner[column] = tracks[row]

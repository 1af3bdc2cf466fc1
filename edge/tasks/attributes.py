"""Mask state and gender of faces, and whether they are faces at all: one picture, or a vote over a track."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from edge.geometry import align
from edge.types import GENDERS, MASK_STATES, Face

if TYPE_CHECKING:
    from edge.tflite import Model, ModelEntry

TEMPLATE = ((0.3756, 0.3702), (0.6256, 0.3688), (0.5014, 0.5123), (0.3987, 0.6587), (0.6057, 0.6576))
"""Where the landmarks lie in the crop, in its sides: the 112 px template of ArcFace (Deng et al. 2019),
shrunk so that the eyes are a quarter of the crop apart and the chin, with a mask below it, is seen."""

TASKS = ("mask", "gender")

_PROBABLY = 0.8  # in words, a guess at gender below this is called one

# ---- views
_SHARPNESS_SIDE = 36  # pixels; see `sharpness`
_LEAST_CONTRAST = 10.0  # grey values; what varies less is no face but noise, which would look sharp
_FULL_SIDE = 48.0  # faces from this size on fill the crop with detail of their own
_FULL_SHARPNESS = 0.4  # most faces from 20 px on have it, blurred ones do not
_LEAST_WEIGHT = 0.3

# ---- when a face is due
_AT_MOST = 4  # faces a frame: a crowd is looked at in turns, and does not stall the loop
_FEW_VOTES = 3
_LARGER = 1.25  # than the largest view so far
_HURRY = 8  # estimates in a row that need not wait: somebody who stays unclear is no hurry

# ---- the vote on the mask state
_MASK_HALF_LIFE_S = 0.25
# A sequential test (CUSUM; Page 1954): every estimate adds its log-likelihood ratio of another state over
# the one shown, less a drift, to a sum that does not fall below zero. Long agreement thus does not delay a
# change; the cap makes it two certain estimates of a good view, and more of others.
_CAP, _DRIFT, _SWITCH = 3.0, 0.5, 4.0
_KNOWN_SLACK = 0.1  # what is known stays so this far below the threshold ...
_DOUBTS = 3  # ... and for fewer estimates than this below that
_STALE_S = 1.0  # seen only small or blurred for this long, a mask may have been taken off meanwhile

# ---- the vote on gender
_GENDER_HALF_LIFE_S = 20.0  # it does not change, but one track may be handed on to another person
_GENDER_SLACK = 0.05

# ---- the vote on whether it is a face: a sum of log-odds over the threshold, each capped
_FACE_CAP = 2.0
_FACE_LOW = -1.5  # from here on it is dropped: one estimate far below, or several just below
_FACE_MOST = 4.0  # a well established face takes three estimates far below in a row


@dataclass(slots=True, frozen=True)
class Attributes:
    """What the model says of one view of a face.

    Attributes:
        mask: probabilities of `MASK_STATES`.
        gender: probabilities of `GENDERS`, or None where it was not asked for.
        face: probability that it is a face at all.
        sharpness: of the aligned crop, see `sharpness`.
        side: of the face in the picture, the square root of its box's area, pixels.
    """

    mask: tuple[float, ...]
    gender: tuple[float, ...] | None
    face: float
    sharpness: float
    side: float


@dataclass(slots=True, frozen=True)
class Thresholds:
    """What an answer has to reach to be given; the defaults are for models without a manifest entry.

    Attributes:
        mask, gender: probability of the likeliest answer; below it the answer is unknown.
        face: probability of being a face; below it the detection is rejected.
        min_side: pixels (`Attributes.side`); of smaller faces the answers are unknown.
        sharpness: of more blurred faces the answers are unknown.
    """

    mask: float = 0.6
    gender: float = 0.6
    face: float = 0.3
    min_side: float = 16.0
    sharpness: float = 0.2

    @classmethod
    def of(cls, entry: ModelEntry) -> Thresholds:
        """Those of the manifest.

        Raises:
            ModelError: one is missing.
        """
        return cls(*(entry.threshold(name) for name in ("mask", "gender", "face", "min_side", "sharpness")))

    def fit(self, view: Attributes) -> bool:
        """Whether a view is large and sharp enough to tell anything from."""
        return view.side >= self.min_side and view.sharpness >= self.sharpness


def sharpness(crop: np.ndarray) -> float:
    """How much fine detail an aligned crop has for its contrast.

    The root mean square of the Laplacian over the standard deviation of the grey values, of the middle three
    quarters reduced to 36 x 36 pixels. The crop shows all faces at one size, so that this compares them
    whatever the resolution of the picture; reduced, since noise would count as detail otherwise. Measured on
    200 faces of 80 px and more: median 0.9, 5 to 95 % 0.6 to 1.3; the same shrunk to 24 px 0.50, to 12 px
    0.30; blurred with a sigma of a twelfth, an eighth, a sixth of the distance between the eyes 0.33, 0.23,
    0.19.

    Args:
        crop: S x S x 3 uint8, BGR.

    Returns:
        0 for a flat crop; it has no upper bound, but faces stay below 2.
    """
    size = crop.shape[0]
    edge = size // 8
    grey = cv2.cvtColor(crop[edge : size - edge, edge : size - edge], cv2.COLOR_BGR2GRAY)
    grey = cv2.resize(grey, (_SHARPNESS_SIDE, _SHARPNESS_SIDE), interpolation=cv2.INTER_AREA)
    contrast = float(cv2.meanStdDev(grey)[1][0, 0])
    detail = float(cv2.norm(cv2.Laplacian(grey, cv2.CV_16S))) / _SHARPNESS_SIDE
    return detail / max(contrast, _LEAST_CONTRAST)


class AttributesEstimator:
    """Runs the attributes model on faces, one invoke a view.

    Mirrored, a face is still one, but the model errs elsewhere: the mean over a face and its mirror image is
    right more often than one of them. Photos get both; the views of a track take turns, which costs nothing.

    Attributes:
        tasks: those asked for. Without "gender" the model's answer to that is dropped unread.
        thresholds: of the manifest.
        last_invoke_ms: time of the bare model in the last call, summed over its faces, milliseconds.
        invokes: how many there were since the start.
    """

    def __init__(
        self, model: Model, entry: ModelEntry | None = None, *, tasks: Collection[str] = TASKS
    ) -> None:
        """Args:
        model: an attributes model of this project, input 1 x S x S x 3 uint8 RGB.
        entry: its manifest entry, for thresholds and alignment; None takes this module's defaults.
        tasks: of `TASKS`; others are ignored.

        Raises:
            ModelError: the entry lacks a threshold.
        """
        self.model = model
        self.tasks = tuple(task for task in TASKS if task in tasks)
        self.thresholds = Thresholds.of(entry) if entry else Thresholds()
        self._template = entry.template(TEMPLATE) if entry else np.array(TEMPLATE)
        self._size = int(model.inputs[0].shape[1])
        self._pixels = np.zeros((1, self._size, self._size, 3), np.uint8)
        # Told apart by shape: converters keep neither order nor names of outputs.
        order = {spec.shape[-1]: i for i, spec in enumerate(model.outputs)}
        self._mask, self._gender, self._face = order[len(MASK_STATES)], order[len(GENDERS)], order[1]
        self.last_invoke_ms = 0.0
        self.invokes = 0

    def estimate(
        self, image: np.ndarray, faces: Iterable[Face], views: Iterable[Sequence[bool]] | None = None
    ) -> tuple[Attributes | None, ...]:
        """Look at faces of a picture.

        Args:
            image: H x W x 3 uint8, BGR.
            faces: with landmarks in pixels of `image`.
            views: of each face, how it is shown: False as it is, True mirrored; the mean over several counts.
                None shows each face once, as it is.

        Returns:
            One each, in the order given; None where the landmarks cannot be those of a face: they coincide or
            are not finite.
        """
        self.last_invoke_ms = 0.0
        shown = itertools.repeat((False,)) if views is None else views
        return tuple([self._look(image, face, ways) for face, ways in zip(faces, shown, strict=False)])

    def label(self, image: np.ndarray, faces: Iterable[Face], *, reject: bool = True) -> tuple[Face, ...]:
        """Faces of a single picture with what is seen of them and of their mirror images.

        Args:
            image: H x W x 3 uint8, BGR.
            faces: of it.
            reject: leave out those that the model takes for no face.
        """
        faces = tuple(faces)
        limits = self.thresholds
        out = []
        views = self.estimate(image, faces, itertools.repeat((False, True)))
        for face, view in zip(faces, views, strict=True):
            if view is None:
                out.append(face)
                continue
            if reject and view.face < limits.face:
                continue
            fit = limits.fit(view)
            mask = gender = None
            if "mask" in self.tasks:
                place = _highest(view.mask)
                mask = _mask_result(view.mask, place, fit and view.mask[place] >= limits.mask)
            if view.gender is not None:
                place = _highest(view.gender)
                gender = _gender_result(view.gender, place, fit and view.gender[place] >= limits.gender)
            out.append(replace(face, mask=mask, gender=gender))
        return tuple(out)

    def _look(self, image: np.ndarray, face: Face, ways: Sequence[bool]) -> Attributes | None:
        try:
            crop = align(image, face.landmarks, self._template, self._size)
        except ValueError:
            return None
        logits: list[np.ndarray] = []
        for mirrored in ways:
            cv2.cvtColor(cv2.flip(crop, 1) if mirrored else crop, cv2.COLOR_BGR2RGB, dst=self._pixels[0])
            start = time.perf_counter()
            outputs = self.model.run(self._pixels)
            self.last_invoke_ms += (time.perf_counter() - start) * 1e3
            self.invokes += 1
            logits = [a + b for a, b in zip(logits, outputs, strict=True)] if logits else outputs
        mask, gender, real = (
            [value / len(ways) for value in logits[place][0].tolist()]
            for place in (self._mask, self._gender, self._face)
        )
        return Attributes(
            mask=_softmax(mask),
            gender=_softmax(gender) if "gender" in self.tasks else None,
            face=_sigmoid(real[0]),
            sharpness=sharpness(crop),
            side=math.sqrt(max(face.box[2] * face.box[3], 0.0)),
        )


@dataclass(slots=True)
class _Record:
    """What is known of one track; -1 as a place stands for none yet."""

    time: float = 0.0  # of the last estimate, seconds
    side: float = 0.0  # of the largest view
    looks: int = 0  # estimates, fit or not
    votes: int = 0  # of views that were fit
    hurried: int = 0  # estimates in a row that left it in a hurry
    hurry: bool = True
    standing: float = 0.0  # for being a face
    rejected: bool = False
    fit_time: float = 0.0
    mask: list[float] = field(default_factory=list)
    mask_weight: float = 0.0
    state: int = -1
    known: bool = False
    doubts: int = 0
    evidence: list[float] = field(default_factory=lambda: [0.0] * len(MASK_STATES))
    gender: list[float] = field(default_factory=list)
    gender_weight: float = 0.0
    label: int = -1
    gender_known: bool = False
    mask_result: dict[str, Any] | None = None
    gender_result: dict[str, Any] | None = None


class AttributesVoter:
    """Says of each track what its views agree on, and looks at a face only when that is due.

    Due are new tracks; views clearly larger than any before; and each face every `every_s` seconds, or in
    the next frame while it has few votes, its state is not clear, or the last view was not fit or disagreed
    with what is shown. At most `at_most` of those get their turn in a frame, new tracks first, then who
    waited longest.

    Every second look is at the face's mirror image. The mask state shown changes once two or more estimates
    speak clearly for another one. Gender is the mean over the whole track. Views count by size and sharpness;
    those below the thresholds do not. A track that is taken for no face over its views is left out, and comes
    back if that changes.

    Attributes:
        rejected: tracks, and faces of single pictures, that were left out as no face.
    """

    def __init__(
        self,
        estimator: AttributesEstimator,
        *,
        every_s: float = 0.08,
        reject: bool = True,
        at_most: int = _AT_MOST,
    ) -> None:
        """Args:
        estimator: looks at the faces.
        every_s: how often each face is due, seconds; 0 is every frame.
        reject: leave out tracks that are taken for no face.
        at_most: faces looked at in one frame, 1 or more.
        """
        self.estimator = estimator
        self.every_s = every_s
        self.reject = reject
        self.at_most = at_most
        threshold = min(max(estimator.thresholds.face, 1e-6), 1 - 1e-6)
        self._face_logit = math.log(threshold / (1 - threshold))
        self.rejected = 0
        self._records: dict[int | None, _Record] = {}

    @property
    def last_invoke_ms(self) -> float:
        """Time of the bare model in the last frame, summed over the faces looked at, milliseconds."""
        return self.estimator.last_invoke_ms

    def label(self, image: np.ndarray, faces: Sequence[Face]) -> tuple[Face, ...]:
        """Faces of a picture that stands for itself: each as this one view shows it, without a vote."""
        labelled = self.estimator.label(image, faces, reject=self.reject)
        self.rejected += len(faces) - len(labelled)
        return labelled

    def update(
        self, image: np.ndarray, faces: Sequence[Face], time_s: float, tracks: Collection[int]
    ) -> tuple[Face, ...]:
        """Look at the faces of the next frame that are due.

        Args:
            image: the frame, H x W x 3 uint8, BGR.
            faces: of it, with their track ids.
            time_s: of the frame, seconds; a clock that stands still or jumps back does no harm.
            tracks: ids the tracker still knows; all others are forgotten.

        Returns:
            The faces in the order given, with the results; without those taken for no face.
        """
        records = self._records
        for gone in [key for key in records if key not in tracks]:
            del records[gone]
        due = self._due(faces, time_s)
        looked = []
        for face in due:
            record = records.get(face.track)
            if record is None:
                record = records[face.track] = _Record(time_s, fit_time=time_s)
            looked.append(record)
        views = self.estimator.estimate(image, due, [(record.looks % 2 == 1,) for record in looked])
        for record, view in zip(looked, views, strict=True):
            record.looks += 1
            self._vote(record, view, time_s)
        out = []
        for face in faces:
            record = records.get(face.track)
            if record is None:
                out.append(face)
            elif not record.rejected:
                out.append(replace(face, mask=record.mask_result, gender=record.gender_result))
        return tuple(out)

    def _due(self, faces: Sequence[Face], time_s: float) -> list[Face]:
        fresh: list[Face] = []
        waiting: list[tuple[float, Face]] = []
        for face in faces:
            record = self._records.get(face.track)
            if record is None:
                fresh.append(face)
                continue
            passed = time_s - record.time
            if (
                record.hurry
                or not 0 <= passed < self.every_s - 1e-3
                or math.sqrt(max(face.box[2] * face.box[3], 0.0)) > _LARGER * record.side
            ):
                waiting.append((record.time, face))
        if len(fresh) + len(waiting) > self.at_most:
            waiting.sort(key=lambda pair: pair[0])
        return (fresh + [face for _, face in waiting])[: self.at_most]

    def _vote(self, record: _Record, view: Attributes | None, time_s: float) -> None:
        passed = max(0.0, time_s - record.time)
        record.time = time_s
        disagrees = False
        fit = view is not None and self.estimator.thresholds.fit(view)
        if view is not None:
            record.side = max(record.side, view.side)
            self._vote_face(record, view)
            weight = 0.0
            if fit:
                record.votes += 1
                record.fit_time = time_s
                weight = _weight(view)
            if "mask" in self.estimator.tasks:
                disagrees = self._vote_mask(record, view.mask, weight, passed, time_s)
            if view.gender is not None:
                self._vote_gender(record, view.gender, weight, passed)
        hurry = not record.rejected and (
            not fit
            or disagrees
            or record.votes < _FEW_VOTES
            or ("mask" in self.estimator.tasks and (not record.known or record.doubts > 0))
            or record.standing < _FACE_CAP
        )
        record.hurried = record.hurried + 1 if hurry else 0
        record.hurry = hurry and record.hurried < _HURRY

    def _vote_face(self, record: _Record, view: Attributes) -> None:
        chance = min(max(view.face, 1e-6), 1 - 1e-6)
        step = _clip(math.log(chance / (1 - chance)) - self._face_logit, _FACE_CAP)
        record.standing = _clip(record.standing + step, _FACE_MOST)
        rejected = self.reject and record.standing <= (0.0 if record.rejected else _FACE_LOW)
        self.rejected += rejected - record.rejected
        record.rejected = rejected

    def _vote_mask(
        self, record: _Record, chances: tuple[float, ...], weight: float, passed: float, time_s: float
    ) -> bool:
        """Returns whether the view speaks for another state than the one shown."""
        threshold = self.estimator.thresholds.mask
        if weight == 0.0:
            if record.mask_weight == 0.0:
                record.mask_result = _mask_result(chances, _highest(chances), known=False)
            elif record.known and time_s - record.fit_time > _STALE_S:
                record.known = False
                record.mask_result = _mask_result(record.mask, _highest(record.mask), known=False)
            return False
        record.mask, record.mask_weight = _mean(
            record.mask, record.mask_weight * 0.5 ** (passed / _MASK_HALF_LIFE_S), chances, weight
        )
        if not record.known:
            record.state = _highest(record.mask)
            record.known = record.mask[record.state] >= threshold
            record.evidence = [0.0] * len(MASK_STATES)
            record.doubts = 0
        else:
            shown = math.log(max(chances[record.state], 1e-9))
            record.evidence = [
                max(0.0, sum_ + weight * (_clip(math.log(max(chance, 1e-9)) - shown, _CAP) - _DRIFT))
                for sum_, chance in zip(record.evidence, chances, strict=True)
            ]
            other = _highest(chances)  # of two that passed the test, the one that this view shows
            if record.evidence[other] >= _SWITCH:
                # What was seen of the old state says nothing about the new one.
                record.state, record.mask, record.mask_weight = other, list(chances), weight
                record.evidence = [0.0] * len(MASK_STATES)
            doubtful = record.mask[record.state] < threshold - _KNOWN_SLACK
            record.doubts = record.doubts + 1 if doubtful else 0
            record.known = record.doubts < _DOUBTS
        place = record.state if record.known else _highest(record.mask)
        record.mask_result = _mask_result(record.mask, place, record.known)
        return _highest(chances) != record.state

    def _vote_gender(self, record: _Record, chances: tuple[float, ...], weight: float, passed: float) -> None:
        if weight == 0.0:
            if record.gender_weight == 0.0:
                record.gender_result = _gender_result(chances, _highest(chances), known=False)
            return
        record.gender, record.gender_weight = _mean(
            record.gender, record.gender_weight * 0.5 ** (passed / _GENDER_HALF_LIFE_S), chances, weight
        )
        highest = _highest(record.gender)
        if not record.gender_known or record.gender[highest] >= 0.5 + _GENDER_SLACK:
            record.label = highest
        slack = _GENDER_SLACK if record.gender_known else 0.0
        record.gender_known = record.gender[record.label] >= self.estimator.thresholds.gender - slack
        place = record.label if record.gender_known else highest
        record.gender_result = _gender_result(record.gender, place, record.gender_known)


def in_words(face: Face) -> str:
    """What a person would say of a face: "a woman, mask under her nose (94 %)".

    Only of what was asked for; without mask state and gender, where and how large it is.
    """
    gender: str = (face.gender and face.gender["label"]) or ""
    chance = face.gender["score"] if face.gender else 0.0
    sure = chance >= _PROBABLY
    who = {"female": "a woman", "male": "a man"}.get(gender, "a person")
    if gender and not sure:
        who = f"probably {who}"
    if face.mask is None:
        if gender:
            return f"{who} ({_percent(chance)})"
        if face.gender:
            return who
        x, y, w, h = (round(v) for v in face.box)
        return f"a face of {w}x{h} px at {x},{y} ({_percent(face.score)})"
    if gender and not sure:
        who += f" ({_percent(chance)})"
    nose = {"female": "her", "male": "his"}.get(gender, "the") if sure else "the"
    how = {
        "none": " without a mask",
        "chin": f", mask on {nose} chin",
        "nose_out": f", mask under {nose} nose",
        "correct": ", mask worn correctly",
    }.get(face.mask["state"] or "")
    return f"{who}{how} ({_percent(face.mask['score'])})" if how else f"{who}, mask not clear"


def _percent(chance: float) -> str:
    return f"{min(math.floor(chance * 100 + 0.5), 99)} %"  # nothing is certain


def _mask_result(chances: Sequence[float], place: int, known: bool) -> dict[str, Any]:
    return {
        "state": MASK_STATES[place] if known else None,
        "score": round(chances[place], 4),
        "scores": {state: round(chance, 4) for state, chance in zip(MASK_STATES, chances, strict=True)},
    }


def _gender_result(chances: Sequence[float], place: int, known: bool) -> dict[str, Any]:
    return {"label": GENDERS[place] if known else None, "score": round(chances[place], 4)}


def _weight(view: Attributes) -> float:
    weight = min(1.0, view.side / _FULL_SIDE) * min(1.0, view.sharpness / _FULL_SHARPNESS)
    return max(weight, _LEAST_WEIGHT)


def _mean(
    before: Sequence[float], before_weight: float, values: Sequence[float], weight: float
) -> tuple[list[float], float]:
    """Weighted mean of a mean so far, which may be of nothing, and new values; and its weight."""
    total = before_weight + weight
    if not before:
        return list(values), total
    share = weight / total
    return [old + share * (new - old) for old, new in zip(before, values, strict=True)], total


def _highest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _clip(value: float, limit: float) -> float:
    return min(max(value, -limit), limit)


def _softmax(logits: Sequence[float]) -> tuple[float, ...]:
    top = max(logits)
    powers = [math.exp(logit - top) for logit in logits]
    total = sum(powers)
    return tuple(power / total for power in powers)


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-_clip(logit, 80.0)))

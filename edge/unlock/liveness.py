"""Signs that a camera sees a living face, not a picture of one. A prototype: see docs/unlock.md.

Every check looks at each view and says by `state` what it thinks so far. All those asked for must pass, and
one that refuses ends the attempt. None looks at mask state, gender or identity.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

import cv2
import numpy as np

from edge.config import LIVENESS
from edge.errors import UsageError

State = Literal["waiting", "passed", "refused"]

# ---- alike
_ALIKE_SIDE = 48  # pixels
_ALIKE_APART_S = 0.25  # nobody moves much within this
_ALIKE_LEAST = 0.12
_ALIKE_VIEWS = 3
_EVERYWHERE = np.full((_ALIKE_SIDE, _ALIKE_SIDE), 255, np.uint8)

# ---- screen
_SCREEN_SIDE = 128  # pixels, at the camera's own resolution
_SCREEN_FROM = 0.18  # cycles per pixel; below lie the features of faces
_SCREEN_MOST = 14.0
_SCREEN_VIEWS = 3

# ---- turn
_TURN_FRONTAL = 0.15
_TURN_BY = 0.35
_TURN_VIEWS = 2
_TURN_S = 4.0


@dataclass(slots=True, frozen=True)
class View:
    """One view of the face that wants to unlock.

    Attributes:
        image: the picture, H x W x 3 uint8 BGR.
        box: x, y, w, h, pixels of it.
        landmarks: 5 x 2, pixels of it, in `LANDMARK_NAMES` order.
        crop: aligned face, S x S x 3 uint8 BGR.
        time: of capture, seconds.
    """

    image: np.ndarray
    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    crop: np.ndarray
    time: float


class Check(Protocol):
    """One sign of life.

    Attributes:
        name: of `LIVENESS`.
        state: what it thinks so far.
        says: to the person, or why it refuses.
    """

    name: str
    state: State
    says: str

    def look(self, view: View) -> None:
        """Take one more view of the same track."""
        ...


class Alike:
    """Refuses views that are alike: a photo, held still or moved about, or a stream that stands still.

    Two crops some time apart are laid over each other by the best perspective map, and by brightness and
    contrast. Of a flat picture nothing is then left but noise; of a face there are eyes, lips and cheeks that
    moved, and depth. A video passes.
    """

    name = "alike"

    def __init__(self) -> None:
        self.state: State = "waiting"
        self.says = ""
        self.most = 0.0
        self._first: tuple[np.ndarray, float] | None = None
        self._compared = 0

    def look(self, view: View) -> None:
        small = reduced(view.crop)
        if self._first is None:
            self._first = small, view.time
            return
        first, time = self._first
        if view.time - time < _ALIKE_APART_S:
            return
        self._compared += 1
        self.most = max(self.most, difference(first, small))
        if self.most >= _ALIKE_LEAST:
            self.state = "passed"
        elif self._compared >= _ALIKE_VIEWS:
            self.says = "the views are too much alike, as those of a photo"


def reduced(crop: np.ndarray) -> np.ndarray:
    """The middle of an aligned crop for `difference`: 48 x 48 float32, without noise and pixel grid."""
    size = crop.shape[0]
    edge = size // 8
    grey = cv2.cvtColor(crop[edge : size - edge, edge : size - edge], cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (_ALIKE_SIDE, _ALIKE_SIDE), interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(small, (0, 0), 1.0).astype(np.float32)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """How much two reduced crops differ beyond a perspective view of a flat picture, brightness and contrast.

    Args:
        a, b: 48 x 48 float32, from `reduced`.

    Returns:
        Root mean square of what is left, over the standard deviation of the first: 0 for the same picture,
        about 1.4 for unrelated ones.
    """
    warp = np.eye(3, dtype=np.float32)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-4)
    try:
        # Enhanced correlation coefficient (Evangelidis and Psarakis 2008): blind to brightness and contrast.
        _, found = cv2.findTransformECC(a, b, warp, cv2.MOTION_HOMOGRAPHY, criteria, _EVERYWHERE, 1)
    except cv2.error:  # it does not converge: they have little in common
        return 1.4
    moved = cv2.warpPerspective(
        b,
        np.asarray(found),
        a.shape[::-1],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    inner = (slice(4, -4), slice(4, -4))
    x, y = a[inner].ravel(), moved[inner].ravel()
    x, y = x - x.mean(), y - y.mean()
    spread = float(np.sqrt(x @ x))
    if spread < 1e-3 * x.size**0.5:
        return 0.0
    gain = float(x @ y) / max(float(y @ y), 1e-6)
    return float(np.linalg.norm(x - gain * y)) / spread


class Screen:
    """Refuses a face on a screen whose pixels the camera resolves: their grid, or the moire that it makes.

    A spectrum of a natural picture falls evenly; a grid stands out of it as narrow peaks. A screen that is
    far away, or out of focus, passes.
    """

    name = "screen"

    def __init__(self) -> None:
        self.state: State = "waiting"
        self.says = ""
        self.peaks: list[float] = []

    def look(self, view: View) -> None:
        if self.state == "refused":
            return
        height = grid_peak(view.image, view.box)
        if height is None:
            return
        self.peaks.append(height)
        if len(self.peaks) >= _SCREEN_VIEWS:
            high = float(np.median(self.peaks)) >= _SCREEN_MOST
            self.state = "refused" if high else "passed"
            self.says = "the picture has the grid of a screen" if high else ""


def grid_peak(image: np.ndarray, box: tuple[float, float, float, float]) -> float | None:
    """How far the highest peak stands out of the fine part of the spectrum.

    Args:
        image: H x W x 3 uint8 BGR.
        box: of the face, pixels.

    Returns:
        Magnitude of the highest peak over the median of its ring of equal frequency; None where the face is
        too small, or cut off by the edge, to tell.
    """
    x, y = int(box[0] + box[2] / 2), int(box[1] + box[3] / 2)
    half = _SCREEN_SIDE // 2
    patch = image[max(y - half, 0) : y + half, max(x - half, 0) : x + half]
    if x < half or y < half or patch.shape[:2] != (_SCREEN_SIDE, _SCREEN_SIDE):
        return None
    grey = cv2.cvtColor(patch, cv2.COLOR_BGR2GRAY).astype(np.float32)
    window = np.hanning(_SCREEN_SIDE).astype(np.float32)
    spectrum = np.abs(np.fft.fftshift(np.fft.fft2((grey - grey.mean()) * np.outer(window, window))))
    spectrum = cv2.blur(spectrum, (3, 3))
    best = 0.0
    for ring in _rings():
        values = spectrum[ring]
        best = max(best, float(values.max()) / max(float(np.median(values)), 1.0))
    return best


_ring_cache: list[np.ndarray] = []


def _rings() -> list[np.ndarray]:
    """Masks of the spectrum, by frequency; without its axes, on which edges of the picture and lines lie."""
    if not _ring_cache:
        axis = np.fft.fftshift(np.fft.fftfreq(_SCREEN_SIDE))
        frequency = np.hypot(axis[:, None], axis[None])
        off = (np.abs(axis[:, None]) > 0.02) & (np.abs(axis[None]) > 0.02)
        edges = np.arange(_SCREEN_FROM, 0.5, 0.04)
        _ring_cache.extend((frequency >= low) & (frequency < low + 0.04) & off for low in edges)
    return _ring_cache


class Turn:
    """Asks for turns of the head, left or right by chance, and sees depth in them.

    In a flat picture the nose keeps its place between eyes and mouth however the picture is held: an affine
    map does not change it. Turned to a side, a head moves its nose that way, mask or not. A wrong turn
    refuses, so that a video of somebody else's turns passes one time in 2 ** turns at most.

    Args:
        turns: how many.
        chosen: the directions, for tests; by default by chance.
    """

    name = "turn"

    def __init__(self, turns: int = 2, chosen: Iterable[Literal["left", "right"]] | None = None) -> None:
        if turns < 1:
            raise UsageError("no turn of the head is no check", remedy="ask for 1 or more")
        self.asked = list(chosen) if chosen else [secrets.choice(("left", "right")) for _ in range(turns)]
        self.state: State = "waiting"
        self.says = "look straight at the camera"
        self._done = 0
        self._ready: float | None = None  # since when the present turn is asked for
        self._start = 0.0
        self._straight: list[float] = []
        self._there = {"left": 0, "right": 0}

    def look(self, view: View) -> None:
        if self.state != "waiting":
            return
        place = nose_place(view.landmarks)
        if self._ready is None:
            if abs(place) > _TURN_FRONTAL:
                self._straight.clear()
                return
            self._straight.append(place)
            if len(self._straight) >= _TURN_VIEWS:
                self._start = float(np.median(self._straight))
                self._ready = view.time
                self._there = {"left": 0, "right": 0}
                self.says = f"turn your head to your {self.asked[self._done]}"
            return
        wanted = self.asked[self._done]
        moved = place - self._start
        for side, by in (("left", moved), ("right", -moved)):
            self._there[side] = self._there[side] + 1 if by >= _TURN_BY else 0
        wrong = "left" if wanted == "right" else "right"
        if self._there[wrong] >= _TURN_VIEWS:
            self.state, self.says = "refused", f"the head turned to the {wrong}, not to the {wanted}"
        elif self._there[wanted] >= _TURN_VIEWS:
            self._done += 1
            self._ready = None
            self._straight.clear()
            if self._done == len(self.asked):
                self.state, self.says = "passed", ""
            else:
                self.says = "now look straight at the camera again"
        elif view.time - self._ready > _TURN_S:
            self.state, self.says = "refused", "the head did not turn"


def nose_place(landmarks: np.ndarray) -> float:
    """Where the nose lies between the eyes, in the affine frame of eyes and mouth.

    Args:
        landmarks: 5 x 2, in `LANDMARK_NAMES` order.

    Returns:
        0 in the middle, 1 at the person's left eye, -1 at the right one, as seen along the line from between
        the eyes to the mouth; unchanged by any affine map of the picture.
    """
    right, left, nose = (landmarks[i].astype(np.float64) for i in range(3))
    mouth = (landmarks[3] + landmarks[4]).astype(np.float64) / 2
    across, down = (left - right) / 2, mouth - (right + left) / 2
    matrix = np.stack([across, down], axis=1)
    if abs(np.linalg.det(matrix)) < 1e-6:
        return 0.0
    return float(np.linalg.solve(matrix, nose - (right + left) / 2)[0])


def checks(names: Collection[str], *, turns: int = 2) -> list[Check]:
    """New checks of an attempt.

    Raises:
        UsageError: a name is none of `LIVENESS`.
    """
    made: dict[str, Check] = {}
    for name in names:
        if name not in LIVENESS:
            raise UsageError(f"unknown liveness check {name!r}", remedy=f"use {', '.join(LIVENESS)}, or none")
        made[name] = Turn(turns) if name == "turn" else Alike() if name == "alike" else Screen()
    return list(made.values())

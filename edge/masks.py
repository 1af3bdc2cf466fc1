"""Paints masks on bare faces, guided by five landmarks: to learn from, and to enrol who comes without one.

Everything is drawn here from random numbers; no template picture is used. The mask is laid out on a
simple head (an elliptic cylinder with a bulge for nose and mouth) that is turned by the yaw the nose
betrays, then textured, lit by the face's own light, blurred and grained like the picture it goes into.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import cv2
import numpy as np

Worn = Literal["correct", "nose_out", "chin"]
WORN: tuple[Worn, ...] = ("correct", "nose_out", "chin")
KINDS = ("surgical", "cloth", "respirator", "duckbill", "bandana")
PATTERNS = ("plain", "stripes", "dots", "checks", "two_tone", "print", "floral", "letters")

# The head, in units of the distance between the eyes: half width at the cheeks, half depth.
_HALF_WIDTH, _HALF_DEPTH = 1.04, 1.2
# Nose tip in front of the line from eyes to mouth, same unit: turns the nose's offset into yaw.
_NOSE_DEPTH = 0.42
# Rendering happens at this many pixels between the eyes, then goes to the size of the face.
_MIN_UNIT, _MAX_UNIT = 20.0, 110.0

Color = tuple[float, float, float]


@dataclass(slots=True, frozen=True)
class Design:
    """What the mask is made of. Colours are BGR reflectances, 0..1.

    Attributes:
        kind: cut of the mask, one of `KINDS`.
        pattern: print on the cloth, one of `PATTERNS`.
        color, color2: ground and print colour.
        inner: colour of ear loops and border.
        scale: size of the print, in distances between the eyes.
        angle: direction of the print, radians.
        pleats: horizontal folds (surgical cut).
        border: width of the sewn border, share of the mask's height; 0 for none.
        valve: a round valve beside the centre.
        loops: draw ear loops.
        relief: strength of folds and wrinkles, 0..1.5.
        reach: how far it goes round the head, radians from the nose.
        length: bottom edge below the chin, in eye-to-mouth distances.
        folded: a strip that, worn as "nose_out", hides little more than the mouth and leaves the chin bare.
        slipped: worn as "chin", it hangs on the neck and leaves even the chin bare.
    """

    kind: str = "surgical"
    pattern: str = "plain"
    color: Color = (0.82, 0.66, 0.45)
    color2: Color = (0.9, 0.9, 0.9)
    inner: Color = (0.92, 0.92, 0.92)
    scale: float = 0.3
    angle: float = 0.0
    pleats: int = 3
    border: float = 0.05
    valve: bool = False
    loops: bool = True
    relief: float = 1.0
    reach: float = 1.2
    length: float = 0.15
    folded: bool = False
    slipped: bool = False


class Painted(NamedTuple):
    """A painted picture.

    Attributes:
        image: H x W x 3 uint8 BGR, new; outside the mask, its loops and its slight shadow as it was.
        region: H x W float32, 0..1: how much of each pixel the mask hides.
    """

    image: np.ndarray
    region: np.ndarray


_SURGICAL: tuple[tuple[Color, float], ...] = (
    ((0.86, 0.72, 0.50), 0.30),
    ((0.80, 0.62, 0.36), 0.12),
    ((0.93, 0.93, 0.92), 0.20),
    ((0.72, 0.80, 0.60), 0.08),
    ((0.09, 0.09, 0.09), 0.18),
    ((0.80, 0.70, 0.92), 0.07),
    ((0.62, 0.40, 0.30), 0.05),
)


def random_color(rng: np.random.Generator) -> Color:
    """Any colour, black, white and grey well represented, as they are in clothes."""
    draw = rng.random()
    if draw < 0.22:
        level = rng.uniform(0.04, 0.15)
    elif draw < 0.36:
        level = rng.uniform(0.78, 0.95)
    elif draw < 0.46:
        level = rng.uniform(0.2, 0.7)
    else:
        hsv = np.array([[[rng.integers(180), rng.integers(40, 230), rng.integers(40, 240)]]], np.uint8)
        b, g, r = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0] / 255.0
        return float(b), float(g), float(r)
    tint = level * rng.uniform(0.94, 1.06, 3)
    return float(tint[0]), float(tint[1]), float(tint[2])


def random_design(rng: np.random.Generator) -> Design:
    """A mask as one might meet in the street."""
    kind = str(rng.choice(KINDS, p=(0.42, 0.3, 0.14, 0.06, 0.08)))
    pattern, pleats, border, valve, loops = "plain", 0, 0.0, False, bool(rng.random() < 0.75)
    reach, length = rng.uniform(1.1, 1.3), rng.uniform(0.05, 0.3)
    color, color2, inner = random_color(rng), random_color(rng), random_color(rng)
    if kind == "surgical":
        index = int(rng.choice(len(_SURGICAL), p=[share for _, share in _SURGICAL]))
        jitter = rng.uniform(0.92, 1.06) * rng.uniform(0.96, 1.04, 3)
        blue, green, red = np.clip(np.array(_SURGICAL[index][0]) * jitter, 0, 0.97)
        color = (float(blue), float(green), float(red))
        inner = (0.92, 0.92, 0.92) if color[1] > 0.3 else color
        pleats, border = int(rng.integers(2, 5)), rng.uniform(0.03, 0.07)
    elif kind in ("respirator", "duckbill"):
        if rng.random() < 0.7:
            level = rng.uniform(0.82, 0.96)
            color = (level, level, level) if rng.random() < 0.75 else (0.1, 0.1, 0.1)
        inner, valve = color, bool(rng.random() < 0.25)
        border = rng.uniform(0.0, 0.06)
    else:
        pattern = str(rng.choice(PATTERNS, p=(0.4, 0.11, 0.08, 0.08, 0.07, 0.13, 0.09, 0.04)))
        border = rng.uniform(0.03, 0.08) if rng.random() < 0.5 else 0.0
        inner = color if rng.random() < 0.5 else inner
    if kind == "bandana":
        reach, length, loops = rng.uniform(1.4, 1.57), rng.uniform(0.4, 1.0), False
    return Design(
        kind,
        pattern,
        color,
        color2,
        inner,
        float(np.exp(rng.uniform(np.log(0.1), np.log(0.7)))),
        rng.uniform(0, np.pi),
        pleats,
        border,
        valve,
        loops,
        rng.uniform(0.5, 1.4),
        reach,
        length,
        folded=kind in ("surgical", "cloth") and bool(rng.random() < 0.1),
        slipped=kind in ("surgical", "cloth", "bandana") and bool(rng.random() < 0.15),
    )


class Frame(NamedTuple):
    """The face's own axes in a picture: point = origin + x * across + y * down; mouth at y = 1."""

    origin: np.ndarray
    across: np.ndarray
    down: np.ndarray
    unit: float  # pixels between the eyes, had the face looked straight at us
    yaw: float  # radians, positive when the nose points to larger x
    nose: float  # y of the nose tip

    def to_picture(self, xy: np.ndarray) -> np.ndarray:
        return self.origin + xy[..., :1] * self.across + xy[..., 1:] * self.down


def face_frame(points: np.ndarray) -> Frame | None:
    right_eye, left_eye, nose, right_mouth, left_mouth = points
    origin, mouth = (right_eye + left_eye) / 2, (right_mouth + left_mouth) / 2
    across, down = left_eye - right_eye, mouth - origin
    gap, drop = float(np.hypot(*across)), float(np.hypot(*down))
    if not np.isfinite(points).all() or drop < 2.0:
        return None
    # Seen from the side the eyes nearly coincide and their line says little: lean on the other axis.
    square = np.array([down[1], -down[0]]) / drop
    direction = across / max(gap, 1e-6) * min(1.0, gap / (0.5 * drop)) + 0.5 * square
    direction /= max(float(np.hypot(*direction)), 1e-6)
    basis = np.stack([direction * np.clip(gap, 0.85 * drop, 1.35 * drop), down], axis=1)
    if abs(np.linalg.det(basis)) < 0.3 * drop * drop:
        direction, basis = square, np.stack([square * drop, down], axis=1)
    x, y = np.linalg.solve(basis, nose - origin)
    yaw = float(np.arcsin(np.clip(x / _NOSE_DEPTH, -0.95, 0.95)))
    unit = float(np.clip(gap / max(np.cos(yaw), 0.4), 0.88 * drop, 1.3 * drop))
    return Frame(origin, direction * unit, down, unit, yaw, float(np.clip(y, 0.38, 0.75)))


def across_head(
    angle: np.ndarray | float,
    yaw: float,
    *,
    narrow: np.ndarray | float = 1.0,
    bulge: np.ndarray | float = 0.0,
) -> np.ndarray:
    """x in the face's axes of points on the head.

    Args:
        angle: round the head from the line of the nose, radians.
        yaw: how far the head is turned.
        narrow: share of the width of the cheeks that the head has at this height.
        bulge: how far the point stands out from the plain head, in distances between the eyes.
    """
    flank = _HALF_WIDTH * narrow * np.sin(angle) * np.cos(yaw)
    return np.asarray(flank + (_HALF_DEPTH * (np.cos(angle) - 1) + bulge) * np.sin(yaw))


class _Cut(NamedTuple):
    """The mask laid on the head, in face coordinates (x, y)."""

    grid: np.ndarray  # rows x columns x 2: from the top edge to the bottom edge, right cheek to left
    loops: tuple[np.ndarray, ...]


def _cut(frame: Frame, worn: Worn, design: Design, rng: np.random.Generator) -> _Cut:
    """Shape of the mask on the turned head."""
    reach, nose = design.reach, frame.nose
    bandana, pointed = design.kind == "bandana", design.kind in ("respirator", "duckbill")
    lean = rng.normal(0, 0.03)
    chin = 1.8
    if worn == "correct":
        top, top_side = nose * rng.uniform(0.15, 0.62), rng.uniform(0.36, 0.62)
        bottom = chin + design.length
    elif worn == "nose_out":
        top = rng.uniform(min(nose + 0.15, 0.78), 0.82)
        top_side = rng.uniform(max(nose + 0.04, 0.55), 0.85)
        bottom = chin + design.length + rng.uniform(0.0, 0.15)
        if design.folded:
            bottom = rng.uniform(1.4, 1.65)
    elif design.slipped:
        top, top_side = rng.uniform(1.8, 1.95), rng.uniform(1.3, 1.55)
        bottom = top + rng.uniform(0.4, 0.75)
    else:
        top, top_side = rng.uniform(1.28, 1.55), rng.uniform(0.95, 1.35)
        bottom = max(chin + rng.uniform(0.05, 0.5), top + 0.45) + 0.5 * design.length
    side_height = rng.uniform(0.45, 0.6) if pointed else rng.uniform(0.62, 0.85)
    if bandana:
        side_height = rng.uniform(0.9, 1.2)
    if design.folded and worn == "nose_out":
        side_height = rng.uniform(0.4, 0.6)
    bottom_side = max(top_side + side_height * (0.6 if worn == "chin" else 1.0), bottom - 0.75)
    if worn == "chin":
        bottom_side = min(bottom_side, bottom - 0.1)

    share = np.linspace(-1, 1, 33, dtype=np.float32)
    angle, s = share * reach, np.abs(share)
    if worn == "correct":
        # Steep down the flanks of the nose, then level over the cheek, rising a little to the ear.
        width = rng.uniform(0.3, 0.45)
        rise = rng.uniform(0.0, 0.14)
        edge_top = top + (top_side - top) * (1 - np.exp(-((s / width) ** 2))) - rise * s**3
    else:
        edge_top = top + (top_side - top) * s ** rng.uniform(1.4, 3.0)
        # Nothing stretches this edge: it waves.
        edge_top += rng.normal(0, 0.02) * np.sin(angle * rng.uniform(2.0, 5.0) + rng.uniform(0, 2 * np.pi))
    edge_bottom = bottom - (bottom - bottom_side) * s ** rng.uniform(1.8, 2.6)
    v = np.linspace(0, 1, 13, dtype=np.float32)[:, None]
    y = edge_top + (edge_bottom - edge_top) * v + lean * share
    # The jaw narrows the head below the mouth; stretched cloth follows it only in part.
    narrow = 1 - rng.uniform(0.2, 0.32) * np.clip((y - 0.75) / 1.05, 0, 1.2) ** 1.6
    bulge = (0.42 if pointed else 0.24) * np.exp(-(((y - 0.85) / 0.55) ** 2)) * np.exp(-((angle / 0.55) ** 2))
    x = across_head(angle, frame.yaw, narrow=narrow, bulge=bulge)
    loops = []
    if design.loops:
        sin, cos = np.sin(frame.yaw), np.cos(frame.yaw)
        for side in (-1, 1):
            if side * sin > 0.3:  # behind the far cheek
                continue
            column = 0 if side < 0 else -1
            ear_x = side * _HALF_WIDTH * 1.04 * cos - 0.95 * _HALF_DEPTH * sin
            for row, ear_y in ((0, rng.uniform(0.05, 0.3)), (-1, rng.uniform(0.5, 0.8))):
                start = np.array((x[row, column], y[row, column]))
                ear, bend = np.array((ear_x, ear_y)), rng.normal((side * 0.03, 0.02), 0.04)
                t = np.linspace(0, 1, 6)[:, None]
                loops.append(((1 - t) * start + t * ear + 4 * t * (1 - t) * bend).astype(np.float32))
    return _Cut(np.stack([x, y], axis=-1).astype(np.float32), tuple(loops))


def _outline(grid: np.ndarray) -> np.ndarray:
    """Silhouette of the laid-out grid: what turns away behind the far cheek is dropped."""
    left, right = grid[:, :, 0].argmin(axis=1), grid[:, :, 0].argmax(axis=1)
    rows = np.arange(len(grid))
    return np.concatenate(
        [
            grid[0, left[0] : right[0] + 1],
            grid[rows, right],
            grid[-1, left[-1] : right[-1] + 1][::-1],
            grid[rows, left][::-1],
        ]
    )


def smooth_noise(rng: np.random.Generator, rows: int, columns: int, size: tuple[int, int]) -> np.ndarray:
    """Smooth noise, about -1..1, float32, of `size` (width, height)."""
    coarse = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
    return cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)


def _bytes(color: Color) -> Color:
    return color[0] * 255, color[1] * 255, color[2] * 255


def _flowers(sheet: np.ndarray, design: Design, pitch: float, rng: np.random.Generator) -> None:
    """Strews flowers and leaves in a few colours over the cloth (uint8), in place."""
    height, width = sheet.shape[:2]
    colors = tuple(_bytes(color) for color in (design.color2, random_color(rng), random_color(rng)))
    petals, length = int(rng.integers(2, 7)), rng.uniform(0.2, 0.4) * pitch
    width_share = rng.uniform(0.2, 0.45)
    spots = np.mgrid[0 : width + pitch : 0.8 * pitch, 0 : height + pitch : 0.8 * pitch].reshape(2, -1).T
    hearts = spots + rng.uniform(-0.25, 0.25, spots.shape) * pitch
    turns = np.linspace(0, 2 * np.pi, petals, endpoint=False) + rng.uniform(0, 2 * np.pi, (len(spots), 1))
    ahead = length * np.stack([np.cos(turns), np.sin(turns)], axis=-1)
    aside = width_share * np.stack([-ahead[..., 1], ahead[..., 0]], axis=-1)
    diamond = np.stack([0 * ahead, 0.5 * ahead + aside, ahead, 0.5 * ahead - aside], axis=-2)
    outlines = np.round((hearts[:, None, None] + diamond) * 16).astype(np.int32)
    which = rng.integers(len(colors), size=len(spots))
    for index, color in enumerate(colors):
        cv2.fillPoly(sheet, list(outlines[which == index].reshape(-1, 4, 2)), color, cv2.LINE_AA, 4)
    octagon = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    dot = 0.25 * length * np.stack([np.cos(octagon), np.sin(octagon)], axis=-1)
    middles = np.round((hearts[:, None] + dot) * 16).astype(np.int32)
    cv2.fillPoly(sheet, list(middles), colors[0], cv2.LINE_AA, 4)


def _letters(sheet: np.ndarray, design: Design, unit: float, rng: np.random.Generator) -> None:
    """Writes a word somewhere on the cloth (uint8), in place."""
    height, width = sheet.shape[:2]
    text = "".join(chr(int(code)) for code in rng.integers(65, 91, int(rng.integers(2, 7))))
    size = float(rng.uniform(0.008, 0.018)) * unit
    corner = (int(width * rng.uniform(0.05, 0.6)), int(height * rng.uniform(0.35, 0.75)))
    weight = max(int(size * rng.uniform(1, 4)), 1)
    cv2.putText(
        sheet, text, corner, cv2.FONT_HERSHEY_DUPLEX, size, _bytes(design.color2), weight, cv2.LINE_AA
    )


def _cloth(design: Design, width: int, height: int, unit: float, rng: np.random.Generator) -> np.ndarray:
    """The flat cloth, height x width x 3 float32 reflectance; `unit`: its pixels between the eyes."""
    sheet = np.empty((height, width, 3), np.float32)
    sheet[:] = design.color
    pitch = max(design.scale * unit, 2.0)
    if design.pattern == "stripes" or design.pattern == "checks":
        yy, xx = np.ogrid[:height, :width]
        cos, sin = np.cos(design.angle), np.sin(design.angle)
        wave = np.sin(((xx * cos + yy * sin) * (2 * np.pi / pitch)).astype(np.float32))
        blend = np.clip(wave * 3 + 0.5, 0, 1)
        if design.pattern == "checks":
            cross = np.clip(
                np.sin(((yy * cos - xx * sin) * (2 * np.pi / pitch)).astype(np.float32)) * 3 + 0.5, 0, 1
            )
            blend = (blend + cross) / 2
        sheet += blend[..., None] * (np.array(design.color2, np.float32) - sheet)
    elif design.pattern == "dots":
        radius = int(max(pitch * rng.uniform(0.18, 0.4), 1) * 16)
        for row, y in enumerate(np.arange(0, height + pitch, pitch)):
            for x in np.arange((row % 2) * pitch / 2, width + pitch, pitch):
                cv2.circle(sheet, (int(x * 16), int(y * 16)), radius, design.color2, -1, cv2.LINE_AA, 4)
    elif design.pattern == "two_tone":
        if rng.random() < 0.5:
            sheet[:, : int(width * rng.uniform(0.35, 0.65))] = design.color2
        else:
            sheet[int(height * rng.uniform(0.3, 0.7)) :] = design.color2
    elif design.pattern == "print":
        rows, columns = max(int(height / pitch) + 2, 3), max(int(width / pitch) + 2, 3)
        for layer in range(2):
            blot = np.clip(smooth_noise(rng, rows, columns, (width, height)) * rng.uniform(2, 8), 0, 1)[
                ..., None
            ]
            target = design.color2 if layer == 0 else random_color(rng)
            sheet += blot * (np.array(target, np.float32) - sheet)
    elif design.pattern in ("floral", "letters"):
        drawn = (sheet * 255).astype(np.uint8)  # OpenCV writes and smooths edges in bytes only
        if design.pattern == "floral":
            _flowers(drawn, design, max(pitch, 0.22 * unit), rng)
        else:
            _letters(drawn, design, unit, rng)
        sheet[:] = drawn
        sheet /= 255
    if design.border > 0:
        strip = max(round(design.border * height), 1)
        sheet[:strip] += 0.6 * (np.array(design.inner, np.float32) - sheet[:strip])
        sheet[-strip:] += 0.6 * (np.array(design.inner, np.float32) - sheet[-strip:])
    if design.valve:
        centre = (int(width * rng.choice((0.36, 0.5, 0.64))), int(height * rng.uniform(0.5, 0.65)))
        size = max(int(unit * rng.uniform(0.16, 0.24)), 1)
        shade = float(rng.uniform(0.15, 0.9))
        cv2.circle(sheet, centre, size, (shade, shade, shade), -1, cv2.LINE_AA)
        cv2.circle(sheet, centre, size, (shade * 0.6,) * 3, max(size // 5, 1), cv2.LINE_AA)
    return sheet


def _relief(design: Design, worn: Worn, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Light and shade of folds on the flat cloth, height x width float32 round 1."""
    u = np.linspace(-1, 1, width, dtype=np.float32)[None]
    v = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    relief = 1.06 - 0.28 * np.abs(u) ** 3 - 0.3 * np.clip(v - 0.62, 0, 1) ** 1.5
    if worn == "correct":
        relief = relief + 0.13 * np.exp(-((u / 0.22) ** 2) - ((v - 0.24) / 0.2) ** 2)
        relief -= 0.1 * np.exp(-((u / 0.35) ** 2) - ((v - 0.48) / 0.1) ** 2)
    folds = 0.07 * smooth_noise(rng, 5, 6, (width, height)) + 0.05 * smooth_noise(rng, 12, 8, (width, height))
    for _ in range(int(rng.integers(1, 6))):  # creases from the cheek inwards
        side, slope = rng.choice((-1.0, 1.0)), rng.uniform(-0.35, 0.35)
        line = v - rng.uniform(0.15, 0.85) - slope * (1 - side * u)
        thin = rng.uniform(0.02, 0.05)
        folds -= (
            rng.uniform(0.05, 0.14)
            * (line / thin)
            * np.exp(-((line / thin) ** 2))
            * np.clip(side * u + 0.3, 0, 1)
        )
    if worn == "chin":
        # Pushed together to half its height: deep folds from ear to ear.
        waves = v * rng.uniform(2.0, 5.0) + 0.35 * smooth_noise(rng, 3, 5, (width, height)) - 0.3 * u**2
        folds -= rng.uniform(0.05, 0.22) * np.mod(waves, 1) ** 1.5 - 0.05
    if design.kind == "surgical":
        sag = rng.uniform(-0.06, 0.1) * (1 - u**2)
        for at in np.linspace(0, 1, design.pleats + 2)[1:-1]:
            line = v - at - sag + rng.normal(0, 0.015)
            shade = np.where(line > 0, np.exp(-np.abs(line) / 0.05), 0.35 * np.exp(-np.abs(line) / 0.012))
            folds -= rng.uniform(0.1, 0.2) * shade
    elif design.kind == "respirator":
        tilt = rng.uniform(0.08, 0.2) * rng.choice((-1.0, 1.0))
        folds += tilt * np.tanh(u / 0.08) * (1 - np.abs(u)) - 0.12 * np.exp(-((u / 0.025) ** 2))
    elif design.kind == "duckbill":
        folds -= 0.2 * np.tanh((v - 0.5) / 0.04) * (1 - u**2)
    else:
        if rng.random() < 0.4:
            folds -= 0.14 * np.exp(-((u / 0.025) ** 2))
        if design.kind == "bandana":
            folds += 0.12 * np.sin(smooth_noise(rng, 3, 5, (width, height)) * 9 + v * 7)
    return relief + design.relief * folds


def _grain(grey: np.ndarray, unit: float) -> tuple[float, float]:
    """Blur (sigma, pixels) and noise (standard deviation, grey levels) of the picture round the face."""
    if min(grey.shape) < 4:
        return 0.6, 0.0
    patch = grey.astype(np.float32)
    second = patch[1:-1, :-2] + patch[1:-1, 2:] + patch[:-2, 1:-1] + patch[2:, 1:-1] - 4 * patch[1:-1, 1:-1]
    across, down = patch[1:-1, 2:] - patch[1:-1, :-2], patch[2:, 1:-1] - patch[:-2, 1:-1]
    first = float(np.sqrt((across**2).mean() + (down**2).mean())) / 2
    curvature = float(np.sqrt((second**2).mean()))
    sigma = float(np.clip(0.9 * first / max(curvature, 1e-3), 0.45, max(0.05 * unit, 0.5)))
    return sigma, float(np.clip(np.median(np.abs(second)) / 8, 0, 5) * min(1.0, unit / 50))


def _texture_map(
    grid: np.ndarray, window: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Where each canvas pixel lies on the flat cloth.

    Args:
        grid: the mask in face coordinates.
        window: n x n x 2 face coordinates of a coarse lattice over the canvas.
        size: canvas width and height.

    Returns:
        u and v, 0..1, float32, of the canvas size.
    """
    x, y = window[..., 0], window[..., 1]
    middle = grid.shape[1] // 2
    rows = grid[:, middle, 1]
    columns = (grid[..., 0].min(1), grid[:, middle, 0], grid[..., 0].max(1))
    low, mid, high = (np.interp(y, rows, column) for column in columns)
    t = np.where(x > mid, (x - mid) / np.maximum(high - mid, 0.05), (x - mid) / np.maximum(mid - low, 0.05))
    u = np.arcsin(np.clip(t, -1, 1) * 0.94) / np.arcsin(0.94)
    edge = np.linspace(-1, 1, grid.shape[1])
    top, bottom = np.interp(u, edge, grid[0, :, 1]), np.interp(u, edge, grid[-1, :, 1])
    v = (y - top) / np.maximum(bottom - top, 0.05)
    coarse = np.stack([u / 2 + 0.5, v], axis=-1).astype(np.float32)
    both = cv2.resize(coarse, size, interpolation=cv2.INTER_LINEAR)
    return both[..., 0], both[..., 1]


def _light(grey: np.ndarray, level: float, hidden: np.ndarray) -> np.ndarray:
    """Light on the mask, 20 x 20 float32 over the window, in grey levels of a white cloth.

    Args:
        grey: the window in grey; its low frequencies under the mask give the fall of the light.
        level: what to bring its mean to, see `light_level`.
        hidden: how much the mask hides of each canvas pixel, 0..1.
    """
    small = (20, 20)
    weight: np.ndarray = cv2.resize(hidden, small, interpolation=cv2.INTER_AREA) + 1e-3
    light = cv2.resize(grey.astype(np.float32), small, interpolation=cv2.INTER_AREA) * weight
    light = cv2.GaussianBlur(light, (0, 0), 2.2) / cv2.GaussianBlur(weight, (0, 0), 2.2)
    mean = max(float((light * weight).sum() / weight.sum()), 1.0)
    return np.clip(light / mean, 0.5, 1.4) ** 0.8 * level


def _is_grey(picture: np.ndarray) -> bool:
    blue, green, red = cv2.split(picture)
    return int(cv2.absdiff(blue, green).max()) < 8 and int(cv2.absdiff(green, red).max()) < 8


class Canvas(NamedTuple):
    """The part of a picture that is painted on, at a resolution that suits drawing."""

    x0: int  # the window in the picture, right and lower edge excluded
    y0: int
    x1: int
    y1: int
    size: tuple[int, int]  # width and height of what is drawn
    unit: float  # drawn pixels between the eyes

    def drawn(self, points: np.ndarray) -> np.ndarray:
        """Points of the picture as they lie among the drawn pixels, counted from the middle of the first."""
        ratio = self.size[0] / (self.x1 - self.x0), self.size[1] / (self.y1 - self.y0)
        return (points - (self.x0, self.y0)) * ratio - 0.5

    def fixed(self, points: np.ndarray) -> np.ndarray:
        """The same as whole sixteenths of a pixel, as the polygon functions of OpenCV take them."""
        return np.round(self.drawn(points) * 16).astype(np.int32)


def open_canvas(
    corners: np.ndarray, unit: float, shape: tuple[int, ...], *, finest: float = _MAX_UNIT
) -> Canvas | None:
    """The window round n x 2 points of a picture of this shape; None when it shows next to nothing of them.

    `unit`: pixels of the picture between the eyes; `finest`: the most that are drawn.
    """
    margin = 0.25 * unit + 3
    x0, y0 = (int(v) for v in np.maximum(np.floor(corners.min(0) - margin), 0))
    x1, y1 = (int(v) for v in np.minimum(np.ceil(corners.max(0) + margin), (shape[1], shape[0])))
    if x1 - x0 < 2 or y1 - y0 < 2:
        return None
    scale = float(np.clip(unit, _MIN_UNIT, finest)) / unit
    size = (max(round((x1 - x0) * scale), 2), max(round((y1 - y0) * scale), 2))
    return Canvas(x0, y0, x1, y1, size, unit * scale)


def face_window(points: np.ndarray, unit: float, image: np.ndarray) -> np.ndarray:
    """The part of the picture round the landmarks, not copied; at least one pixel."""
    height, width = image.shape[:2]
    x0, y0 = (int(v) for v in np.clip(points.min(0) - 0.2 * unit, 0, (width - 1, height - 1)))
    x1, y1 = (int(v) for v in np.clip(points.max(0) + 0.2 * unit + 1, (x0 + 1, y0 + 1), (width, height)))
    return image[y0:y1, x0:x1]


def light_level(face: np.ndarray) -> float:
    """Grey level of white cloth in the light that falls on a face (given in grey)."""
    return float(np.clip(0.8 * face.mean() + 0.45 * np.percentile(face[::2, ::2], 95) + 25, 35, 262))


def lay_over(
    image_bgr: np.ndarray,
    canvas: Canvas,
    paint: np.ndarray,
    hidden: np.ndarray,
    *,
    points: np.ndarray,
    unit: float,
    rng: np.random.Generator,
) -> Painted:
    """Puts what was drawn into a picture: lit, blurred and grained as the face is, with a slight shadow.

    Args:
        image_bgr: H x W x 3 uint8; left as it is.
        canvas: where it goes.
        paint: drawn pixels, h x w x 3 float32 BGR reflectance, round 0..1.
        hidden: h x w float32, 0..1: how much of each pixel it hides.
        points: the landmarks.
        unit: pixels of the picture between the eyes.
        rng: source of all chance.
    """
    image, region = image_bgr.copy(), np.zeros(image_bgr.shape[:2], np.float32)
    x0, y0, x1, y1, size, _ = canvas
    crop = image_bgr[y0:y1, x0:x1]
    face = cv2.cvtColor(np.ascontiguousarray(face_window(points, unit, image_bgr)), cv2.COLOR_BGR2GRAY)
    light = _light(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), light_level(face), hidden) * rng.uniform(0.85, 1.1)
    paint = paint * cv2.resize(light, size, interpolation=cv2.INTER_LINEAR)[..., None]

    # To the resolution, blur and grain of the picture.
    to_window = (x1 - x0, y1 - y0)
    if size != to_window:
        interpolation = cv2.INTER_AREA if size[0] > to_window[0] else cv2.INTER_LINEAR
        paint = cv2.resize(paint, to_window, interpolation=interpolation)
        hidden = np.minimum(cv2.resize(hidden, to_window, interpolation=interpolation), 1)  # rounding
    sigma, noise = _grain(face, unit)
    if sigma > 0.6:
        paint = cv2.GaussianBlur(paint, (0, 0), sigma)
        hidden = np.minimum(cv2.GaussianBlur(hidden, (0, 0), sigma), 1)
        hidden[hidden < 1 / 255] = 0
    if noise > 0.3:
        paint = paint + rng.standard_normal(to_window[::-1], np.float32)[..., None] * noise
    if _is_grey(crop):  # a grey picture stays grey
        paint = cv2.cvtColor(cv2.cvtColor(paint, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)

    # The shadow on what is beside and below it.
    shift = rng.normal(0, 0.03) * unit, rng.uniform(0.0, 0.07) * unit
    drop = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
    shade = cv2.GaussianBlur(cv2.warpAffine(hidden, drop, to_window), (0, 0), max(0.045 * unit, 0.5))
    shade = 1 - rng.uniform(0.1, 0.38) * np.clip(shade - 0.02, 0, 1)
    under = crop * (shade * (1 - hidden))[..., None] + paint * hidden[..., None]
    image[y0:y1, x0:x1] = np.clip(under + 0.5, 0, 255).astype(np.uint8)
    region[y0:y1, x0:x1] = hidden
    return Painted(image, region)


def paint_mask(
    image_bgr: np.ndarray,
    landmarks5x2: np.ndarray,
    *,
    worn: Worn,
    design: Design | None = None,
    rng: np.random.Generator,
) -> Painted:
    """Puts a mask on one face.

    Args:
        image_bgr: H x W x 3 uint8, BGR; left as it is.
        landmarks5x2: right eye, left eye, nose tip, right and left mouth corner (the person's own
            right and left), pixels of the picture; may lie outside it.
        worn: "correct" hides nose, mouth and chin; "nose_out" mouth and chin; "chin" the chin alone.
            A folded or slipped design leaves the chin bare.
        design: what to paint; when None a random one that hides all of this.
        rng: source of all chance, so that the same state paints the same mask.

    Returns:
        The new picture and the hidden region. A face outside the picture, or landmarks that make no
        face (under 2 px from eyes to mouth), come back unpainted with an empty region.

    Raises:
        ValueError: `worn` is none of the three.
    """
    if worn not in WORN:
        raise ValueError(f"worn must be one of {', '.join(WORN)}, not {worn!r}")
    bare = Painted(image_bgr.copy(), np.zeros(image_bgr.shape[:2], np.float32))
    points = np.asarray(landmarks5x2, np.float64).reshape(5, 2)
    frame = face_frame(points)
    if frame is None:
        return bare
    if design is None:
        design = replace(random_design(rng), folded=False, slipped=False)
    cut = _cut(frame, worn, design, rng)

    # The hidden area, as polygons in picture coordinates.
    unit = frame.unit
    shapes = [frame.to_picture(_outline(cut.grid))]
    ring = np.array([(np.cos(a), np.sin(a)) for a in np.linspace(0, 2 * np.pi, 12, endpoint=False)]) * unit
    middle = cut.grid.shape[1] // 2
    if worn != "chin":
        # Landmarks on a turned face may lie outside the simple head: cloth covers them all the same.
        anchors = [points[3] + 0.1 * ring, points[4] + 0.1 * ring, frame.to_picture(cut.grid[9:10, middle])]
        if worn == "correct":
            anchors += [points[2] + 0.13 * ring, frame.to_picture(cut.grid[1:2, middle])]
        shapes.append(cv2.convexHull(np.concatenate(anchors).astype(np.float32)).reshape(-1, 2))
    loops = [frame.to_picture(loop) for loop in cut.loops]

    canvas = open_canvas(np.concatenate(shapes + loops), unit, image_bgr.shape)
    if canvas is None:
        return bare
    size, draw_unit = canvas.size, canvas.unit
    hidden = np.zeros(size[::-1], np.uint8)
    for shape in shapes:
        cv2.fillPoly(hidden, [canvas.fixed(shape)], 255, cv2.LINE_AA, 4)
    # Rounds the corners of the outline and softens it: cloth has thickness.
    soft = max(0.035 * draw_unit, 0.6)
    hidden = cv2.GaussianBlur(hidden, (0, 0), soft).astype(np.float32)
    hidden = np.clip((hidden - 64) * (1 / 127), 0, 1)
    strings = np.zeros(size[::-1], np.uint8)
    for loop in loops:
        cv2.polylines(
            strings, [canvas.fixed(loop)], False, 255, max(round(0.03 * draw_unit), 1), cv2.LINE_AA, 4
        )

    # Cloth and folds on a flat sheet, then onto the face.
    span = cut.grid.max((0, 1)) - cut.grid.min((0, 1))
    sheet_size = (max(int(span[0] * draw_unit * 1.2), 12), max(int(span[1] * draw_unit), 12))
    sheet = _cloth(design, *sheet_size, draw_unit, rng)
    relief = _relief(design, worn, *sheet_size, rng)
    sheen = 0.05 * (relief - 0.9)  # dark cloth shows its folds by the little light it throws back
    sheet = cv2.merge([channel * relief + sheen for channel in cv2.split(sheet)])
    lattice = np.stack(
        np.meshgrid(np.linspace(canvas.x0, canvas.x1, 28), np.linspace(canvas.y0, canvas.y1, 28)), axis=-1
    )
    inverse = np.linalg.inv(np.stack([frame.across, frame.down], axis=1))
    u, v = _texture_map(cut.grid, (lattice - frame.origin) @ inverse.T, size)
    paint = cv2.remap(
        sheet,
        u * (sheet_size[0] - 1),
        v * (sheet_size[1] - 1),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if loops:
        over = (strings.astype(np.float32) * (0.9 / 255)) * (1 - hidden)
        paint += over[..., None] * (np.array(design.inner, np.float32) - paint)
        hidden = np.maximum(hidden, over)

    return lay_over(image_bgr, canvas, paint, hidden, points=points, unit=unit, rng=rng)

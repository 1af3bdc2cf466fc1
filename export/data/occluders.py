"""Paints what hides the lower face and is no mask: hands, scarves, collars, things held before the mouth.

A model that has seen masks only calls everything before the mouth a mask. These pictures tell it otherwise.
As in `masks`, everything is drawn from random numbers and takes light, blur and grain from the picture.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import cv2
import numpy as np

from edge.masks import (
    Canvas,
    Color,
    Painted,
    face_frame,
    face_window,
    lay_over,
    light_level,
    open_canvas,
    random_color,
    smooth_noise,
)

Occluder = Literal["hand", "scarf", "object", "collar"]
KINDS: tuple[Occluder, ...] = ("hand", "scarf", "object", "collar")
_SHARES = (0.4, 0.25, 0.23, 0.12)
# Drawn pixels between the eyes at most: none of this has detail as fine as a mask's.
_FINEST = 64.0
# What may be painted, round the mouth: to the sides, up, down; in distances between the eyes.
_REACH = np.array([(-3.2, -1.7), (3.2, -1.7), (3.2, 3.6), (-3.2, 3.6)])


class _Scene:
    """What is painted before one face, layer by layer.

    Its axes are square and upright to the face: origin in the middle of the mouth, y towards the chin,
    one unit between the eyes. `x`, `y`: these coordinates of every drawn pixel, h x w float32.
    """

    def __init__(self, canvas: Canvas, mouth: np.ndarray, down: np.ndarray, unit: float) -> None:
        self.unit = canvas.unit
        self.size = canvas.size
        self.origin = canvas.drawn(mouth)
        self.axes = np.stack([(down[1], -down[0]), down])  # rows: across, down; in pixels of length one
        columns, rows = np.arange(self.size[0]) - self.origin[0], np.arange(self.size[1]) - self.origin[1]
        across, fall = (self.axes / self.unit).astype(np.float32)
        dx, dy = columns.astype(np.float32)[None], rows.astype(np.float32)[:, None]
        self.x, self.y = dx * across[0] + dy * across[1], dx * fall[0] + dy * fall[1]
        self.paint = np.zeros((*self.size[::-1], 3), np.float32)
        self.hidden = np.zeros(self.size[::-1], np.float32)

    def put(self, paint: np.ndarray, alpha: np.ndarray, shadow: float = 0.35) -> None:
        """Lays h x w x 3 reflectance over what is there, with a shadow on it."""
        below = self.hidden * (1 - alpha)
        if below.any():
            soft = cv2.GaussianBlur(alpha, (0, 0), max(0.06 * self.unit, 0.5))
            below_paint = self.paint * (below * (1 - shadow * soft))[..., None]
            covered = below + alpha
            self.paint = (below_paint + paint * alpha[..., None]) / np.maximum(covered, 1e-3)[..., None]
            self.hidden = np.minimum(covered, 1)
        else:
            self.paint, self.hidden = paint.astype(np.float32), np.maximum(alpha, self.hidden)

    def edge(self, distance: np.ndarray, soft: float = 0.0) -> np.ndarray:
        """Coverage from the signed distance to an outline (units, negative inside)."""
        width = max(1.2 / self.unit, soft)
        return np.clip(0.5 - distance / width, 0, 1).astype(np.float32)

    def noise(self, cell: float, rng: np.random.Generator) -> np.ndarray:
        """Smooth noise with blots of `cell` units."""
        columns, rows = (int(np.clip(side / (cell * self.unit), 2, 400)) + 2 for side in self.size)
        return smooth_noise(rng, rows, columns, self.size)

    def around(self, points: np.ndarray, reach: float) -> tuple[slice, slice] | None:
        """Rows and columns of the drawn pixels within `reach` units of n x 2 points; None when none are."""
        spots = (self.origin + points @ self.axes * self.unit).tolist()
        room, (width, height) = reach * self.unit + 2, self.size
        x0, x1 = (
            max(int(min(x for x, _ in spots) - room), 0),
            min(int(max(x for x, _ in spots) + room) + 1, width),
        )
        y0, y1 = (
            max(int(min(y for _, y in spots) - room), 0),
            min(int(max(y for _, y in spots) + room) + 1, height),
        )
        return (slice(y0, y1), slice(x0, x1)) if x1 > x0 and y1 > y0 else None

    def turned(self, centre: np.ndarray | tuple[float, float], angle: float) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates round a centre, turned by an angle (radians, clockwise as seen)."""
        return _turned(self.x, self.y, centre, angle)


def _turned(
    x: np.ndarray, y: np.ndarray, centre: np.ndarray | tuple[float, float], angle: float
) -> tuple[np.ndarray, np.ndarray]:
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    x, y = x - np.float32(centre[0]), y - np.float32(centre[1])
    return x * cos + y * sin, y * cos - x * sin


def _both(first: np.ndarray, second: np.ndarray, corner: float) -> np.ndarray:
    """Signed distance to what lies inside two outlines, its corner rounded."""
    a, b = first + np.float32(corner), second + np.float32(corner)
    outside = np.sqrt(np.maximum(a, 0) ** 2 + np.maximum(b, 0) ** 2)
    distance: np.ndarray = outside + np.minimum(np.maximum(a, b), 0) - np.float32(corner)
    return distance


def _solid(color: Color | np.ndarray, shade: np.ndarray) -> np.ndarray:
    return shade[..., None] * np.asarray(color, np.float32)


def _box(x: np.ndarray, y: np.ndarray, half: tuple[float, float], corner: float) -> np.ndarray:
    """Signed distance to a rectangle with round corners."""
    dx, dy = np.abs(x) - (half[0] - corner), np.abs(y) - (half[1] - corner)
    outside = np.sqrt(np.maximum(dx, 0) ** 2 + np.maximum(dy, 0) ** 2)
    distance: np.ndarray = outside + np.minimum(np.maximum(dx, dy), 0) - corner
    return distance


class _Bone(NamedTuple):
    """A tapered limb between two points, in units of the scene, and how far it lies before the rest."""

    start: np.ndarray
    end: np.ndarray
    start_radius: float
    end_radius: float
    lift: float = 0.0


def _limbs(scene: _Scene, bones: list[_Bone]) -> tuple[np.ndarray, np.ndarray]:
    """Height above the face (units) and coverage of limbs drawn as round bars."""
    height = np.zeros(scene.hidden.shape, np.float32)
    cover = np.zeros(scene.hidden.shape, np.float32)
    sharp = scene.unit / 1.2
    for start, end, r0, r1, lift in bones:
        part = scene.around(np.stack([start, end]), max(r0, r1))
        if part is None:
            continue
        dx, dy = scene.x[part] - np.float32(start[0]), scene.y[part] - np.float32(start[1])
        ax, ay = (np.float32(v) for v in end - start)
        t = np.clip((dx * ax + dy * ay) / np.maximum(ax * ax + ay * ay, np.float32(1e-6)), 0, 1)
        radius = np.float32(r0) + np.float32(r1 - r0) * t
        off = (dx - t * ax) ** 2 + (dy - t * ay) ** 2
        ridge = np.sqrt(np.maximum(radius**2 - off, 0)) + lift * (off < radius**2)
        np.maximum(height[part], ridge, out=height[part])
        np.maximum(cover[part], np.clip((radius - np.sqrt(off)) * sharp + 0.5, 0, 1), out=cover[part])
    return height, cover


class _Hand(NamedTuple):
    """A hand laid out: its limbs and what is seen on them."""

    bones: list[_Bone]
    nails: list[tuple[np.ndarray, float, float]]  # centre, direction (radians from up), radius
    knuckles: list[tuple[np.ndarray, float, float]]
    wrist: np.ndarray
    elbow: np.ndarray
    size: float


# From the little finger to the first: x and y of the knuckle, lengths of the bones, radius.
_FINGERS = (
    (0.44, -1.22, 0.50, 0.42, 0.135),
    (0.16, -1.36, 0.66, 0.54, 0.155),
    (-0.14, -1.40, 0.70, 0.58, 0.16),
    (-0.43, -1.32, 0.62, 0.52, 0.155),
)


def _lay_hand(
    target: np.ndarray,
    angle: float,
    *,
    anchor: tuple[float, float],
    curled: tuple[float, ...],
    mirrored: bool,
    size: float,
    rng: np.random.Generator,
) -> _Hand:
    """A hand seen from its back; wrist at (0, 0), fingers to smaller y, thumb at smaller x.

    Args:
        target: where in the scene the anchor comes to lie.
        angle: the way the fingers point, radians from up, clockwise.
        anchor: point of the hand.
        curled: how far each finger is bent, 0 straight to 1 in the fist, little finger first.
        mirrored: the other hand.
        size: 1 for a hand that suits the face.
        rng: source of chance.
    """
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([(cos, sin), (-sin, cos)]) * size
    flip = np.array([-1.0 if mirrored else 1.0, 1.0])

    def place(x: float, y: float) -> np.ndarray:
        spot: np.ndarray = target + ((np.array((x, y)) - anchor) * flip) @ turn
        return spot

    bones, nails, knuckles = [], [], []
    splay = rng.uniform(0.0, 0.16)
    common = rng.normal(0, 0.08)
    for index, (x, y, first, second, radius) in enumerate(_FINGERS):
        curl = float(np.clip(curled[index] + rng.normal(0, 0.04), 0, 1))
        away = splay * (1.5 - index) + common + rng.normal(0, 0.03)
        tilt = np.array((np.sin(away), -np.cos(away)))
        knuckle = np.array((x, y))
        radius *= rng.uniform(0.94, 1.08)
        bones.append(_Bone(place(0.55 * x, -0.1), place(x, y), 0.3 * size, 0.2 * size))
        # A bent finger comes towards us first, then goes back to the palm.
        middle = knuckle + tilt * first * (1 - 0.55 * curl)
        bend = away + rng.normal(0, 0.05)
        end = middle + np.array((np.sin(bend), -np.cos(bend))) * second * (1 - 1.75 * curl)
        lift = 0.06 + 0.22 * curl
        bones.append(_Bone(place(*knuckle), place(*middle), 1.1 * radius * size, radius * size, 0.5 * lift))
        if curl < 0.75:
            bones.append(_Bone(place(*middle), place(*end), radius * size, 0.8 * radius * size, lift))
        way = angle + (-bend if mirrored else bend)
        if curl < 0.4:
            nails.append((place(*(end + 0.12 * radius * np.array((0, 1)))), way, 0.55 * radius * size))
        for at in (middle, knuckle):
            knuckles.append((place(*at), way, radius * size))
    base, out = place(-0.32, -0.35), rng.uniform(0.15, 0.6)
    joint = place(-0.62 - 0.2 * out, -0.85)
    if min(curled) > 0.6:  # the thumb lies across the fist
        tip = place(rng.uniform(-0.2, 0.1), -1.25)
        lift = 0.3
    else:
        tip, lift = place(-0.72 - 0.75 * out, -1.3 + 0.3 * out), 0.05
        nails.append((tip, angle - (out if not mirrored else -out), 0.09 * size))
    bones.append(_Bone(base, joint, 0.27 * size, 0.19 * size, 0.02))
    bones.append(_Bone(joint, tip, 0.18 * size, 0.14 * size, lift))
    lean = rng.normal(0, 0.25)
    wrist, elbow = place(0, 0.15), place(3.2 * np.sin(lean), 0.15 + 3.2 * np.cos(lean))
    bones.append(_Bone(place(0, -0.3), wrist, 0.46 * size, 0.4 * size))
    bones.append(_Bone(wrist, elbow, 0.4 * size, 0.6 * size))
    return _Hand(bones, nails, knuckles, wrist, elbow, size)


def _put_hand(scene: _Scene, hand: _Hand, skin: np.ndarray, rng: np.random.Generator) -> None:
    height, cover = _limbs(scene, hand.bones)
    unit = scene.unit
    smooth = cv2.GaussianBlur(height, (0, 0), max(0.035 * unit, 0.5))
    wide = cv2.GaussianBlur(height, (0, 0), max(0.16 * unit, 0.8))
    # Lit mostly from above and one side; dark where fingers meet.
    slope_x = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=3) * (unit / 8)
    slope_y = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=3) * (unit / 8)
    side, above = rng.uniform(-0.22, 0.22), rng.uniform(0.05, 0.25)
    lit = 1 - side * np.clip(slope_x, -1.6, 1.6) + above * np.clip(slope_y, -1.6, 1.6)
    hollow = np.clip((wide - height) / 0.16, 0, 1.3)
    shade = np.clip(lit * (0.98 + 0.08 * scene.noise(0.25, rng)) - 0.04, 0.3, 1.4)
    paint = np.empty((*shade.shape, 3), np.float32)
    # Blood shines through at the edges and between the fingers: blue and green fall first.
    for channel, depth in enumerate((0.58, 0.52, 0.38)):
        paint[..., channel] = skin[channel] * shade * (1 - depth * hollow)
    strength = rng.uniform(0.05, 0.16)
    for centre, way, radius in hand.knuckles:  # redder, and creased
        part = scene.around(centre[None], 2 * radius)
        if part is None:
            continue
        x, y = _turned(scene.x[part], scene.y[part], centre, way)
        x, y = x / np.float32(radius), y / np.float32(radius)
        glow = np.exp(-1.2 * (x * x + y * y))
        crease = np.exp(-39 * y**2 - 2 * x**2) + np.exp(-51 * (y - 0.5) ** 2 - 2.8 * x**2)
        paint[part] *= (1 - strength * crease)[..., None]
        paint[part][..., :2] *= (1 - 0.1 * glow)[..., None]
    lacquer = np.array(random_color(rng), np.float32) if rng.random() < 0.15 else None
    pale = np.minimum(skin * rng.uniform(1.1, 1.25) + 0.03, 1.05)
    for centre, way, radius in hand.nails:
        part = scene.around(centre[None], 1.6 * radius)
        if part is None:
            continue
        x, y = _turned(scene.x[part], scene.y[part], centre, way)
        alpha = 0.75 * scene.edge(_box(x, y, (radius, 1.35 * radius), 0.9 * radius))
        nail = _solid(pale if lacquer is None else lacquer, shade[part])
        paint[part] += alpha[..., None] * (nail - paint[part])
    scene.put(paint, cover)
    if rng.random() < 0.55:
        _put_sleeve(scene, hand, rng)


def _put_sleeve(scene: _Scene, hand: _Hand, rng: np.random.Generator) -> None:
    along = (hand.elbow - hand.wrist) / max(float(np.hypot(*(hand.elbow - hand.wrist))), 1e-6)
    start = hand.wrist + along * rng.uniform(0.0, 0.7) * hand.size
    wide = rng.uniform(0.5, 0.62) * hand.size
    angle = float(np.arctan2(-along[0], along[1]))
    x, y = scene.turned(start, angle)
    girth = wide * (1 + 0.12 * y)
    distance = np.maximum(np.abs(x) - girth, -y - 0.1 * (1 - (x / wide) ** 2))
    folds = scene.noise(0.45, rng)
    shade = 1.02 - 0.4 * np.clip(np.abs(x) / np.maximum(girth, 0.1), 0, 1) ** 3 + 0.12 * folds
    if rng.random() < 0.5:  # a cuff
        shade = shade * np.where(np.abs(y - 0.3) < 0.03, 0.75, 1.0)
    scene.put(_solid(random_color(rng), shade.astype(np.float32)), scene.edge(distance))


def _skin(image_bgr: np.ndarray, points: np.ndarray, unit: float, rng: np.random.Generator) -> np.ndarray:
    """Reflectance (BGR) of the skin of this face, or now and then of somebody else's hand."""
    eyes, nose, mouth = points[:2], points[2], points[3:]
    spots = np.concatenate(
        [0.45 * eyes + 0.55 * mouth, [0.5 * (eyes.mean(0) + nose)], 0.7 * eyes + 0.3 * mouth]
    )
    half = max(int(0.08 * unit), 1)
    patches = []
    for x, y in np.round(spots).astype(int):
        patch = image_bgr[max(y - half, 0) : max(y + half + 1, 0), max(x - half, 0) : max(x + half + 1, 0)]
        if patch.size:
            patches.append(patch.reshape(-1, 3).mean(0))
    face = face_window(points, unit, image_bgr)
    if not patches:
        patches.append(face.reshape(-1, 3).mean(0))
    order = np.argsort([patch.sum() for patch in patches])
    color = patches[order[2 * len(order) // 3]]
    level = light_level(cv2.cvtColor(np.ascontiguousarray(face), cv2.COLOR_BGR2GRAY))
    skin = color / level * rng.uniform(0.85, 1.18) * rng.uniform(0.96, 1.04, 3)
    if rng.random() < 0.06:
        skin = np.array((0.55, 0.66, 0.85)) * rng.uniform(0.3, 1.1) * rng.uniform(0.95, 1.05, 3)
    return np.clip(skin, 0.02, 1.05).astype(np.float32)


def _paint_hand(scene: _Scene, skin: np.ndarray, chin: float, rng: np.random.Generator) -> None:
    pose = rng.choice(5, p=(0.34, 0.16, 0.2, 0.14, 0.16))
    side = float(rng.choice((-1.0, 1.0)))
    mirrored = bool(side < 0) != bool(rng.random() < 0.15)
    size = float(rng.uniform(0.88, 1.2))
    near = np.array((rng.normal(0, 0.12), rng.normal(0.0, 0.12)))
    loose = tuple(rng.uniform(0, 0.2) for _ in range(4))
    if pose == 0:  # the flat hand over the mouth, from below or the side
        angle = -side * rng.uniform(0.1, 1.6)
        # Upright fingers end at the nose and leave the eyes free; level ones lie across the mouth.
        anchor = (rng.uniform(-0.2, 0.2), rng.uniform(-2.3, -1.9) + 0.8 * abs(np.sin(angle)))
        hands = [(near, angle, anchor, loose, mirrored)]
    elif pose == 1:  # a fist
        anchor = (rng.uniform(-0.15, 0.15), rng.uniform(-1.5, -1.1))
        fist = tuple(rng.uniform(0.85, 1.0) for _ in range(4))
        hands = [(near + (0, 0.1), -side * rng.uniform(0.0, 1.3), anchor, fist, mirrored)]
    elif pose == 2:  # one or two fingers on the lips
        count = int(rng.integers(1, 4))
        bent = tuple(0.9 if index < 4 - count else 0.02 for index in range(4))
        anchor = (-0.43 + 0.15 * (count - 1), rng.uniform(-2.3, -1.95))
        hands = [(near + (0, -0.05), -side * rng.uniform(0.0, 0.9), anchor, bent, mirrored)]
    elif pose == 3:  # both hands
        hands = []
        lean, apart = rng.uniform(0.1, 0.9), rng.uniform(0.0, 0.5)
        anchor = (0.0, rng.uniform(-2.25, -1.85) + 0.5 * np.sin(lean))
        for way in (-1.0, 1.0):
            spot = near + (way * apart, rng.normal(0, 0.06))
            tilt = -way * lean + rng.normal(0, 0.08)
            hands.append((spot, tilt, anchor, tuple(rng.uniform(0, 0.25) for _ in range(4)), way < 0))
    else:  # the chin, or a cheek and the corner of the mouth, propped on a hand
        half_bent = tuple(rng.uniform(0.3, 0.95) for _ in range(4))
        spot = np.array((side * rng.uniform(0.0, 0.45), rng.uniform(0.35, 0.75) * chin))
        hands = [(spot, -side * rng.uniform(0.0, 0.6), (0.0, rng.uniform(-1.75, -1.45)), half_bent, mirrored)]
    for spot, angle, anchor, curled, other in hands:
        hand = _lay_hand(
            spot, float(angle), anchor=anchor, curled=curled, mirrored=bool(other), size=size, rng=rng
        )  # fmt: skip
        _put_hand(scene, hand, skin, rng)


def _weave(
    scene: _Scene, across: np.ndarray, along: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Reflectance and light-and-shade of knitted or woven wool.

    Args:
        scene: where.
        across, along: coordinates on the cloth, units.
        rng: source of chance.

    Returns:
        h x w x 3 and h x w float32.
    """
    color = np.array(random_color(rng), np.float32)
    second = np.array(random_color(rng), np.float32)
    paint = np.broadcast_to(color, (*across.shape, 3)).astype(np.float32)
    pattern = rng.choice(4, p=(0.5, 0.2, 0.18, 0.12))
    pitch = float(np.exp(rng.uniform(np.log(0.25), np.log(1.2))))
    if pattern in (1, 2):
        share = rng.uniform(0.2, 0.6)
        bands = np.clip((np.sin(along * (2 * np.pi / pitch)) - 1 + 2 * share) * 4, 0, 1)
        if pattern == 2:  # tartan
            bands = 0.5 * bands + 0.5 * np.clip(
                (np.sin(across * (2 * np.pi / pitch)) - 1 + 2 * share) * 4, 0, 1
            )
        paint = paint + bands[..., None] * (second - paint)
    elif pattern == 3:
        blots = np.clip(scene.noise(0.4 * pitch, rng) * 4, 0, 1)
        paint = paint + blots[..., None] * (second - paint)
    stitch = float(rng.uniform(0.07, 0.2))
    knit = rng.random()
    if knit < 0.45:  # plaits of a knitted row
        zig = np.abs(np.mod(across / stitch, 1) - 0.5)
        loops = np.sin((along / stitch * 0.9 + zig) * (2 * np.pi))
        shade = 1 + 0.16 * loops - 0.35 * np.clip(0.12 - zig, 0, 1)
    elif knit < 0.65:  # ribs
        shade = 1 + 0.16 * np.sin(across * (2 * np.pi / (1.4 * stitch)))
    else:  # tweed or fleece
        shade = 1 + rng.uniform(0.02, 0.16) * scene.noise(0.05, rng)
    return paint, shade.astype(np.float32)


def _paint_scarf(scene: _Scene, centre: float, chin: float, nose: float, rng: np.random.Generator) -> None:
    """Wound round the neck and up the face; `centre`: x of the head's axis, `nose`: y of its tip."""
    draw = rng.random()
    if draw < 0.2:
        top = rng.uniform(0.45, 0.85) * chin
    elif draw < 0.55:
        top = rng.uniform(-0.36, -0.2)
    else:
        top = nose + rng.uniform(-0.3, 0.12)
    x, y = scene.x - np.float32(centre * 0.6), scene.y
    wave = 0.05 * scene.noise(0.7, rng)
    sag = rng.uniform(-0.22, 0.1)
    # The top edge where each pixel's column meets it: rises to the ears, or hangs between them.
    edge = top + sag * np.clip(np.abs(x), 0, 1.6) ** 2 + rng.normal(0, 0.06) * x + wave
    fall = y - edge
    # Tight round the head, wider where it lies on the shoulders.
    girth = rng.uniform(1.2, 1.5) + rng.uniform(0.2, 0.6) * np.clip(fall / 0.9, 0, 1.3)
    spread = np.where(y > 1.5, (y - 1.5) * rng.uniform(0.3, 1.4), 0)
    distance = _both(-fall, (np.abs(x) - girth - spread - 2 * wave) * 0.8, rng.uniform(0.05, 0.4))
    bottom = rng.uniform(2.4, 4.2)
    distance = np.maximum(distance, y - bottom - 0.2 * np.abs(x))

    folds = scene.noise(0.8, rng)
    thick = rng.uniform(0.35, 0.8)
    lean = rng.normal(0, 0.16)
    warped = (fall + lean * x + 0.16 * folds + 0.1 * scene.noise(0.4, rng)) / thick
    turn = np.mod(warped, 1)
    # Each turn of the scarf: lit on its upper bulge, dark where it dives under the next.
    bulge = 1.05 - rng.uniform(0.25, 0.5) * turn**2.2 - 0.22 * np.exp(-turn / 0.05) * (warped > 0.9)
    small = np.sin((warped * rng.uniform(2, 4) + 0.5 * folds) * np.pi)
    shade = bulge + rng.uniform(0.02, 0.09) * small + 0.06 * folds
    shade *= 1.03 - 0.33 * np.clip(np.abs(x) / np.maximum(girth, 0.5), 0, 1.2) ** 3
    bent = np.arcsin(np.clip(x / 1.7, -0.98, 0.98)) * 1.7
    paint, weave = _weave(scene, bent, warped * thick, rng)
    soft = rng.uniform(0.02, 0.09)
    scene.put(paint * (shade * weave)[..., None], scene.edge(distance, soft))


def _paint_collar(scene: _Scene, centre: float, chin: float, rng: np.random.Generator) -> None:
    """A turtleneck or the collar of a coat, up over the chin, at times over the mouth."""
    x, y = scene.x - np.float32(centre * 0.7), scene.y
    top = rng.uniform(0.3, 0.85) * chin if rng.random() < 0.7 else rng.uniform(-0.3, 0.0)
    edge = top + rng.uniform(-0.25, 0.1) * x**2 + 0.02 * scene.noise(0.6, rng) + rng.normal(0, 0.05) * x
    fall = y - edge
    neck = rng.uniform(0.95, 1.25)
    slope = rng.uniform(1.3, 1.7)
    half = neck + 0.05 * np.clip(fall, 0, 2) + np.clip(y - slope, 0, 3) ** 0.8 * rng.uniform(1.0, 1.8)
    distance = _both(-fall, (np.abs(x) - half) * 0.8, rng.uniform(0.0, 0.15))
    round_off = 1.03 - 0.45 * np.clip(np.abs(x) / np.maximum(half, 0.4), 0, 1) ** 3
    folds = scene.noise(0.5, rng)
    bent = np.arcsin(np.clip(x / (1.1 * neck), -0.98, 0.98)) * neck
    if rng.random() < 0.5:  # wool, ribbed, perhaps turned down
        paint, weave = _weave(scene, bent, fall, rng)
        ribs = 1 + rng.uniform(0.03, 0.16) * np.sin(bent * (2 * np.pi / rng.uniform(0.1, 0.22)))
        shade = round_off * weave * ribs + 0.07 * folds
        turn = rng.uniform(0.5, 1.0)
        shade -= 0.2 * np.exp(-(((fall - turn) / 0.06) ** 2)) * (rng.random() < 0.6)
    else:  # a coat, closed by a zip or left open at the throat
        color = np.array(random_color(rng), np.float32)
        paint = np.broadcast_to(color, (*x.shape, 3)).astype(np.float32)
        shade = round_off + 0.12 * folds - 0.1 * np.exp(-(((fall - 0.1) / 0.03) ** 2))
        closing = x - rng.normal(0, 0.12) - 0.04 * folds
        if rng.random() < 0.6:
            teeth = np.exp(-((closing / 0.035) ** 2))
            metal = np.float32(rng.uniform(0.1, 0.8))
            paint = paint + (0.8 * teeth)[..., None] * (metal - paint)
            shade -= 0.12 * np.exp(-(((np.abs(closing) - 0.09) / 0.03) ** 2))
        else:
            gape = rng.uniform(0.25, 0.9) * np.clip(1 - fall / rng.uniform(0.5, 1.2), 0, 1)
            distance = np.maximum(distance, (gape - np.abs(closing)) * 0.8)
    shade = shade - 0.25 * np.clip(0.12 - fall, 0, 0.12) / 0.12
    scene.put(paint * np.clip(shade, 0.2, 1.4)[..., None], scene.edge(distance, 0.03))


def _grip(scene: _Scene, spot: np.ndarray, skin: np.ndarray, rng: np.random.Generator) -> None:
    """Fingers round something held at `spot`."""
    side = float(rng.choice((-1.0, 1.0)))
    curled = tuple(rng.uniform(0.1, 0.45) for _ in range(4))
    anchor = (0.0, rng.uniform(-1.9, -1.4))
    hand = _lay_hand(
        spot, float(-side * rng.uniform(0.5, 1.5)),
        anchor=anchor, curled=curled, mirrored=side < 0, size=float(rng.uniform(0.85, 1.05)), rng=rng,
    )  # fmt: skip
    _put_hand(scene, hand, skin, rng)


def _phone(scene: _Scene, near: np.ndarray, nose: float, rng: np.random.Generator) -> np.ndarray:
    """Its back with the cameras. Like all things below: drawn near a spot, answers where it is held."""
    angle = rng.normal(0, 0.35) + (np.pi / 2 if rng.random() < 0.35 else 0)
    half = (rng.uniform(0.55, 0.68), rng.uniform(1.1, 1.35))
    x, y = scene.turned(near + (0, 0.2), angle)
    distance = _box(x, y, half, rng.uniform(0.06, 0.16))
    dark = rng.random() < 0.6
    body = np.full(3, rng.uniform(0.03, 0.12)) if dark else random_color(rng)
    paint = _solid(body, 1 + 0.1 * scene.noise(1.0, rng) + 0.1 * np.clip(y / half[1], -1, 1))
    paint += (0.10 * np.exp(-(((x + 0.7 * y - rng.uniform(-1, 1)) / 0.25) ** 2)))[..., None]  # a gleam
    rim = np.exp(-(((distance + 0.03) / 0.03) ** 2))
    paint *= 1 + rng.uniform(-0.4, 0.8) * rim[..., None]
    corner = float(rng.choice((-1, 1))) * (half[0] - 0.25), -(half[1] - 0.28)
    for index in range(int(rng.integers(1, 4))):
        lens = np.hypot(x - corner[0], y - corner[1] - 0.2 * index)
        paint += scene.edge(lens - 0.1)[..., None] * (np.float32(0.25) - paint)
        paint += scene.edge(lens - 0.07)[..., None] * (np.float32(0.03) - paint)
    scene.put(paint, scene.edge(distance))
    return near + (0, 0.8)


def _cup(scene: _Scene, near: np.ndarray, nose: float, rng: np.random.Generator) -> np.ndarray:
    tall, wide = rng.uniform(1.1, 1.7), rng.uniform(0.5, 0.68)
    x, y = scene.turned(near - (0, rng.uniform(0.1, 0.4)), rng.normal(0, 0.12))
    half = wide * (1 - rng.uniform(0.05, 0.25) * np.clip(y / tall, 0, 1))
    bow = 0.12 * np.sqrt(np.clip(1 - (x / wide) ** 2, 0, 1))
    distance = np.maximum(np.abs(x) - half, np.maximum(-y - bow, y - tall - bow))
    gloss = 0.1 * scene.noise(1.0, rng)
    body = np.full(3, rng.uniform(0.75, 0.95)) if rng.random() < 0.5 else random_color(rng)
    if rng.random() < 0.4:  # the handle of a mug
        way = float(rng.choice((-1.0, 1.0)))
        ring = np.abs(np.hypot(x - way * wide, (y - 0.5 * tall) * 0.9) - 0.3 * tall) - 0.09
        scene.put(_solid(body, 0.85 + gloss), scene.edge(ring))
    shade = 1.05 - 0.4 * np.abs(np.clip(x / half, -1, 1) - rng.uniform(-0.4, 0.4)) ** 2 + 0.5 * gloss
    paint = _solid(body, shade)
    if rng.random() < 0.5:  # a sleeve or a printed band
        band = scene.edge(np.abs(y - bow - rng.uniform(0.4, 0.6) * tall) - rng.uniform(0.1, 0.3) * tall)
        paint += band[..., None] * (_solid(random_color(rng), shade) - paint)
    paint *= (1 - 0.35 * np.exp(-(((y + bow - 0.1) / 0.05) ** 2)))[..., None]  # under the rim or the lid
    scene.put(paint, scene.edge(distance))
    return near + (0, 0.8)


def _microphone(scene: _Scene, near: np.ndarray, nose: float, rng: np.random.Generator) -> np.ndarray:
    angle, radius = rng.uniform(-1.0, 1.0), rng.uniform(0.26, 0.42)
    x, y = scene.turned(near + (0, 0.1), angle)
    handle = np.maximum(np.abs(x) - radius * (0.62 - 0.08 * y), np.maximum(-y, y - 3.2))
    shade = 1.4 - 1.1 * np.clip(np.abs(x) / radius, 0, 1) ** 2 + 0.1 * scene.noise(1.0, rng)
    scene.put(_solid(np.full(3, rng.uniform(0.04, 0.14)), shade), scene.edge(handle))
    away = np.hypot(x, y)
    mesh = 1 + 0.25 * np.sin(x * 60) * np.sin(y * 60)
    dome = np.sqrt(np.clip(1 - (away / radius) ** 2, 0, 1))
    foam = random_color(rng) if rng.random() < 0.4 else np.full(3, rng.uniform(0.08, 0.5))
    scene.put(_solid(foam, (0.45 + 0.65 * dome) * mesh), scene.edge(away - radius))
    return near + np.array((-np.sin(angle), np.cos(angle))) * rng.uniform(0.9, 1.3)


def _sheet(scene: _Scene, near: np.ndarray, nose: float, rng: np.random.Generator) -> np.ndarray:
    """A book or a sheet of paper, its upper edge somewhere between nose and chin."""
    top = rng.uniform(nose - 0.1, 0.0) if rng.random() < 0.75 else rng.uniform(0.0, 0.4)
    half = (rng.uniform(0.8, 1.7), rng.uniform(1.0, 1.6))
    x, y = scene.turned((near[0], top + half[1]), rng.normal(0, 0.12))
    paper = rng.random() < 0.5
    ground = np.full(3, rng.uniform(0.8, 0.96)) if paper else random_color(rng)
    paint = _solid(ground, 1 + 0.06 * rng.normal() * x + 0.05 * scene.noise(1.0, rng))
    if rng.random() < 0.7:  # lines of text, or a title
        pitch, inset = rng.uniform(0.12, 0.4), rng.uniform(0.1, 0.3)
        lines = scene.edge(np.abs(np.mod(y / pitch, 1) - 0.5) * pitch - 0.22 * pitch)
        words = np.clip(scene.noise(0.12, rng) * 4 + 2, 0, 1)
        inside = scene.edge(_box(x, y, (half[0] - inset, half[1] - inset), 0.01))
        ink = np.float32(0.15 if paper else rng.uniform(0.05, 0.95))
        paint += (0.8 * lines * words * inside)[..., None] * (ink - paint)
    if not paper:
        spine = x - rng.choice((-1.0, 0.0, 1.0)) * (half[0] - 0.1)
        paint *= (1 - 0.3 * np.exp(-((spine / 0.05) ** 2)))[..., None]
    scene.put(paint, scene.edge(_box(x, y, half, 0.03)))
    return np.array((near[0] + rng.choice((-1.0, 1.0)) * half[0], top + half[1] * rng.uniform(0.8, 1.6)))


def _bottle(scene: _Scene, near: np.ndarray, nose: float, rng: np.random.Generator) -> np.ndarray:
    angle = float(rng.choice((-1.0, 1.0))) * rng.uniform(0.0, 0.8)
    x, y = scene.turned(near, angle)
    neck, wide = 0.17, rng.uniform(0.32, 0.46)
    half = neck + (wide - neck) / (1 + np.exp(-(y - 0.55) * 9))
    distance = np.maximum(np.abs(x) - half, np.maximum(-y - 0.1, y - 2.6))
    shade = 1.0 - 0.5 * np.clip(x / half, -1, 1) ** 2 + 0.5 * np.exp(-(((x / half + 0.45) / 0.12) ** 2))
    paint = _solid(random_color(rng), shade + 0.1 * scene.noise(1.0, rng))
    label = scene.edge(np.abs(y - 1.6) - 0.4)
    paint += label[..., None] * (_solid(random_color(rng), shade) - paint)
    scene.put(paint, scene.edge(distance))
    return near + np.array((-np.sin(angle), np.cos(angle))) * 1.2


def _ball(scene: _Scene, near: np.ndarray, nose: float, rng: np.random.Generator) -> np.ndarray:
    """A fruit, a balloon."""
    radius = rng.uniform(0.42, 0.8)
    x, y = scene.turned(near + (0, 0.25 * radius), 0.0)
    away = np.hypot(x, y * rng.uniform(0.9, 1.1))
    lit = np.hypot(x - rng.uniform(-0.3, 0.3) * radius, y + 0.35 * radius) / radius
    shade = 1.12 - 0.5 * lit**2 + 0.4 * np.exp(-((lit / 0.2) ** 2)) + 0.2 * scene.noise(1.0, rng)
    scene.put(_solid(random_color(rng), np.clip(shade, 0.2, 1.7)), scene.edge(away - radius))
    return near + (0, 0.8)


_THINGS = (_phone, _cup, _microphone, _sheet, _bottle, _ball)
_THING_SHARES = (0.25, 0.22, 0.13, 0.2, 0.1, 0.1)


def _paint_object(scene: _Scene, skin: np.ndarray, nose: float, rng: np.random.Generator) -> None:
    """Something before the mouth, in a hand or not; `nose`: y of its tip."""
    near = np.array((rng.normal(0, 0.12), rng.normal(0.05, 0.12)))
    held = _THINGS[rng.choice(len(_THINGS), p=_THING_SHARES)](scene, near, nose, rng)
    if rng.random() < 0.6:
        _grip(scene, held, skin, rng)


def paint_occluder(
    image_bgr: np.ndarray,
    landmarks5x2: np.ndarray,
    *,
    kind: Occluder | None = None,
    rng: np.random.Generator,
) -> Painted:
    """Hides part of the lower face behind something that is no mask.

    Args:
        image_bgr: H x W x 3 uint8, BGR; left as it is.
        landmarks5x2: right eye, left eye, nose tip, right and left mouth corner (the person's own
            right and left), pixels of the picture; may lie outside it.
        kind: "hand", "scarf", "object" or "collar"; drawn by chance when None.
        rng: source of all chance, so that the same state paints the same thing.

    Returns:
        The new picture and the hidden region. A face outside the picture, or landmarks that make no
        face (under 2 px from eyes to mouth), come back unpainted with an empty region.

    Raises:
        ValueError: `kind` is none of `KINDS`.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    bare = Painted(image_bgr.copy(), np.zeros(image_bgr.shape[:2], np.float32))
    points = np.asarray(landmarks5x2, np.float64).reshape(5, 2)
    frame = face_frame(points)
    if frame is None:
        return bare
    unit, mouth = frame.unit, points[3:].mean(axis=0)
    drop = float(np.hypot(*frame.down))
    down = frame.down / drop
    axes = np.stack([(down[1], -down[0]), down])
    canvas = open_canvas(mouth + _REACH @ axes * unit, unit, image_bgr.shape, finest=_FINEST)
    if canvas is None:
        return bare
    if kind is None:
        kind = KINDS[rng.choice(len(KINDS), p=_SHARES)]
    scene = _Scene(canvas, mouth, down, unit)
    chin, nose = 0.78 * drop / unit, (frame.nose - 1) * drop / unit
    centre = float((frame.origin + frame.down - mouth) @ axes[0]) / unit - 1.0 * np.sin(frame.yaw)
    skin = _skin(image_bgr, points, unit, rng)
    if kind == "hand":
        _paint_hand(scene, skin, chin, rng)
    elif kind == "scarf":
        _paint_scarf(scene, centre, chin, nose, rng)
    elif kind == "collar":
        _paint_collar(scene, centre, chin, rng)
    else:
        _paint_object(scene, skin, nose, rng)
    return lay_over(image_bgr, canvas, scene.paint, scene.hidden, points=points, unit=unit, rng=rng)

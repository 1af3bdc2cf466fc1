"""Paints photographed masks on bare faces: designs kept out of training, to score the models on.

The pictures come from a folder of the user's, none is shipped: NAME.png with transparency shows a mask from
the front, NAME_left.png and NAME_right.png one worn by a face that looks to the picture's left or right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from edge.masks import (
    WORN,
    Frame,
    Painted,
    Worn,
    across_head,
    face_frame,
    lay_over,
    open_canvas,
    random_color,
)

# Sine of the yaw from which on the turned pictures are used: about 23 degrees.
_TURNED = 0.39
_CHIN = 1.8  # y of the chin in the face's axes


class View(NamedTuple):
    """A photographed mask.

    Attributes:
        paint: h x w x 4 float32, BGR reflectance 0..1 times alpha, and alpha.
        anchors: 4 x 2 pixels: the middle of the upper and of the lower edge as worn (on the bridge of the
            nose, under the chin), then the edges on the picture's left and right at half height.
    """

    paint: np.ndarray
    anchors: np.ndarray


@dataclass(slots=True, frozen=True)
class Template:
    """One mask, seen from up to three sides.

    Attributes:
        kind: name of its file, say "surgical_blue".
        front: seen from the front.
        left, right: worn by a face that looks to the picture's left or right.
    """

    kind: str
    front: View
    left: View
    right: View


def _view(bgra: np.ndarray, looks: int) -> View:
    """Finds the anchors; `looks`: -1 for a face that looks to the left, 0 to us, 1 to the right."""
    alpha = bgra[..., 3].astype(np.float32) / 255
    # Without its straps, which are thin.
    thick = max(bgra.shape[1] // 14, 2)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (thick, thick))
    body = cv2.morphologyEx((bgra[..., 3] > 127).astype(np.uint8), cv2.MORPH_OPEN, kernel)
    columns = np.flatnonzero(body.any(axis=0))
    if columns.size < 8:
        raise ValueError("no mask is seen: it must be opaque, what is round it transparent")
    left, right = int(columns[0]), int(columns[-1])

    def at(share: float) -> tuple[int, int, int]:
        x = round(left + share * (right - left))
        rows = np.flatnonzero(body[:, x])
        return x, int(rows[0]), int(rows[-1])

    # Turned, the bridge of the nose is near the edge; the chin is the lowest point or close to it.
    x, top, _ = at(0.5 + 0.36 * looks)
    x_low, _, bottom = at(0.5 + 0.26 * looks)
    sides = [(at(share)[0], (at(share)[1] + at(share)[2]) / 2) for share in (0.02, 0.98)]
    # What was cut out carries a rim of its old background: the rim takes the colour further in.
    inner = cv2.erode((bgra[..., 3] > 250).astype(np.float32), np.ones((7, 7), np.uint8))
    color = bgra[..., :3].astype(np.float32) / 255
    spread = cv2.GaussianBlur(color * inner[..., None], (0, 0), 3)
    weight = cv2.GaussianBlur(inner, (0, 0), 3)
    near = (inner == 0) & (weight > 0.01)
    color[near] = spread[near] / weight[near][:, None]
    paint = np.dstack([color * alpha[..., None], alpha])
    return View(paint, np.array([(x, top), (x_low, bottom), *sides], np.float64))


def load_templates(folder: Path) -> list[Template]:
    """Reads the mask pictures of a folder.

    Args:
        folder: NAME.png, and NAME_left.png and NAME_right.png where there are any; a missing one is the
            other mirrored, or the front.

    Returns:
        The masks sorted by name.

    Raises:
        FileNotFoundError: the folder holds no PNG.
        ValueError: a picture cannot be read, has no transparency or shows nothing.
    """
    paths = {path.stem: path for path in sorted(Path(folder).glob("*.png"))}
    if not paths:
        raise FileNotFoundError(f"no mask pictures (*.png) in {folder}")

    def read(stem: str) -> np.ndarray:
        bgra = cv2.imread(str(paths[stem]), cv2.IMREAD_UNCHANGED)
        if bgra is None or bgra.ndim != 3 or bgra.shape[2] != 4:
            raise ValueError(f"{paths[stem]} is no PNG with transparency")
        return bgra

    templates = []
    for stem in paths:
        base, _, turn = stem.rpartition("_")
        if turn in ("left", "right") and base in paths:
            continue
        pictures = {turn: read(f"{stem}_{turn}") for turn in ("left", "right") if f"{stem}_{turn}" in paths}
        front, views = read(stem), {}
        for turn, other, looks in (("left", "right", -1), ("right", "left", 1)):
            if turn in pictures:
                views[turn] = _view(pictures[turn], looks)
            elif other in pictures:
                views[turn] = _view(np.ascontiguousarray(pictures[other][:, ::-1]), looks)
            else:
                views[turn] = _view(front, 0)
        templates.append(Template(stem, _view(front, 0), views["left"], views["right"]))
    return templates


def load_textures(folder: Path) -> list[np.ndarray]:
    """Reads the fabrics of a folder (PNG or JPEG), sorted by name: h x w x 3 uint8 BGR each.

    Raises:
        FileNotFoundError: the folder holds none that can be read.
    """
    textures = []
    for path in sorted(Path(folder).iterdir()):
        picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if picture is None or picture.ndim != 3:
            continue
        if picture.shape[2] == 4:  # see-through fabric lies on white
            alpha = picture[..., 3:].astype(np.float32) / 255
            picture = (picture[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
        textures.append(picture)
    if not textures:
        raise FileNotFoundError(f"no fabrics (*.png, *.jpg) in {folder}")
    return textures


def _spots(
    frame: Frame, points: np.ndarray, worn: Worn, looks: int, aspect: float, rng: np.random.Generator
) -> np.ndarray:
    """Where the anchors of a view come to lie, 4 x 2 in the face's axes."""
    nose = frame.nose
    axes = np.stack([frame.across, frame.down], axis=1)
    tip, mouth = (np.linalg.solve(axes, spot - frame.origin) for spot in (points[2], points[3:].mean(axis=0)))
    if worn == "correct":
        low = 0.42 if looks else 0.2  # the far eye is close to the bridge of a turned nose
        top, bottom = nose * rng.uniform(low, 0.65), _CHIN + rng.uniform(0.0, 0.25)
        side = rng.uniform(0.95, 1.15)
    elif worn == "nose_out":
        top, bottom = rng.uniform(nose + 0.17, max(nose + 0.2, 0.84)), _CHIN + rng.uniform(0.1, 0.4)
        side = rng.uniform(1.15, 1.35)
    else:
        top, bottom = rng.uniform(1.36, 1.58), _CHIN + rng.uniform(0.3, 0.6)
        side = rng.uniform(1.4, 1.75)
    # From the front as wide as the picture says; turned, the near side reaches towards the ear.
    wide = aspect * (_CHIN + 0.1 - 0.4 * nose) / 2 * rng.uniform(0.92, 1.06)
    reach = float(np.arcsin(np.clip(wide, 0.6, 0.98))) if looks == 0 else rng.uniform(0.95, 1.2)
    narrow = 1 - 0.22 * max(side - 0.75, 0.0)
    sides = [float(across_head(way * reach, frame.yaw, narrow=narrow)) for way in (-1, 1)]
    if looks:  # the far edge is where the face ends
        angles = np.linspace(-1.2, 1.2, 25)
        outline = across_head(angles, frame.yaw, narrow=narrow, bulge=0.24 * np.exp(-((angles / 0.55) ** 2)))
        sides[0 if looks < 0 else 1] = looks * max(float((looks * outline).max()), 0.12)
    else:
        sides = [min(sides[0], -0.12), max(sides[1], 0.12)]
    spots = np.array([(0.0, top), (0.0, bottom), (sides[0], side), (sides[1], side)])
    # On a turned face the simple head and the landmarks part: the mask goes with mouth and nose.
    if looks:
        spots[:, 0] += 0.5 * (float(mouth[0]) - 0.1 * np.sin(frame.yaw))
    if worn == "correct":
        spots[0, 0] += 0.6 * float(np.clip(tip[0] - spots[0, 0], -0.5, 0.5))
        beyond = float(np.clip(tip[0], -0.8, 0.8)) + looks * 0.16
        if looks and looks * spots[2 + (looks > 0), 0] < looks * beyond:
            spots[2 + (looks > 0)] = beyond, rng.uniform(0.75, 0.9)
    return spots


def _place(view: View, targets: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Warps a view so that its anchors come to lie on 4 x 2 drawn pixels; h x w x 4 float32.

    Each side of the line from nose to chin has its own affine map: on a turned face one is narrower.
    """
    # remap looks at four pixels only: first near the size that is drawn.
    ratio = np.ptp(targets, axis=0).max() / np.ptp(view.anchors, axis=0).max()
    paint, anchors = view.paint, view.anchors
    if ratio < 0.8:
        small = tuple(max(round(side * ratio * 1.2), 2) for side in paint.shape[1::-1])
        shrunk = cv2.resize(paint, small, interpolation=cv2.INTER_AREA)
        anchors = (anchors + 0.5) * (small[0] / paint.shape[1], small[1] / paint.shape[0]) - 0.5
        paint = shrunk
    x, y = np.arange(size[0], dtype=np.float32)[None], np.arange(size[1], dtype=np.float32)[:, None]
    maps = []
    for side in (2, 3):
        use = [0, 1, side]
        affine = cv2.getAffineTransform(targets[use].astype(np.float32), anchors[use].astype(np.float32))
        maps.append([np.float32(row[0]) * x + np.float32(row[1]) * y + np.float32(row[2]) for row in affine])
    (tx, ty), (bx, by) = targets[:2].astype(np.float32)
    over = (x - tx) * (by - ty) - (y - ty) * (bx - tx) > 0  # on the side of larger x, the chin being below
    source = [np.where(over, right, left) for left, right in zip(*maps, strict=True)]
    return cv2.remap(paint, source[0], source[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def _dye(
    paint: np.ndarray,
    texture: np.ndarray | None,
    color: np.ndarray | None,
    unit: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Another fabric on the same folds.

    Args:
        paint: h x w x 4, colours times alpha.
        texture: fabric, h x w x 3 uint8, repeated as needed.
        color: BGR reflectance, used where there is no fabric.
        unit: drawn pixels between the eyes.
        rng: source of chance.
    """
    alpha = paint[..., 3]
    grey = cv2.cvtColor(np.ascontiguousarray(paint[..., :3]), cv2.COLOR_BGR2GRAY)
    inside = alpha > 0.9
    level = float(np.percentile(grey[inside], 80)) if inside.any() else 1.0
    # The black mask's folds are faint: what is left of them is stretched less than the dark.
    bare = grey / np.maximum(alpha, 0.02) / max(level, 0.05)
    folds = np.clip(bare, 0, 1.2) ** (0.9 if level > 0.3 else 0.5) * alpha
    if texture is not None:
        across = max(int(rng.uniform(1.0, 2.6) * unit), 4)
        tile = cv2.resize(
            texture,
            (across, max(across * texture.shape[0] // texture.shape[1], 4)),
            interpolation=cv2.INTER_AREA,
        )
        height, width = grey.shape
        repeats = (height // tile.shape[0] + 2, width // tile.shape[1] + 2, 1)
        dx, dy = int(rng.integers(tile.shape[1])), int(rng.integers(tile.shape[0]))
        fabric = np.tile(tile, repeats)[dy : dy + height, dx : dx + width].astype(np.float32) / 255
    else:
        fabric = np.broadcast_to(np.asarray(color, np.float32), (*grey.shape, 3))
    dyed: np.ndarray = np.dstack([fabric * (0.95 * folds)[..., None], alpha])
    return dyed


def paint_template(
    image_bgr: np.ndarray,
    landmarks5x2: np.ndarray,
    template: Template,
    *,
    worn: Worn,
    texture: np.ndarray | None = None,
    color: tuple[float, float, float] | None = None,
    rng: np.random.Generator,
) -> Painted:
    """Puts a photographed mask on one face.

    Args:
        image_bgr: H x W x 3 uint8, BGR; left as it is.
        landmarks5x2: right eye, left eye, nose tip, right and left mouth corner (the person's own
            right and left), pixels of the picture; may lie outside it.
        template: the mask; which of its views is used depends on how far the face is turned.
        worn: "correct" hides nose, mouth and chin; "nose_out" mouth and chin; "chin" the chin alone.
        texture: a fabric for it, h x w x 3 uint8 BGR; None for its own look.
        color: a colour for it, BGR reflectances 0..1; not used with a fabric.
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
    looks = int(np.sign(np.sin(frame.yaw))) if abs(np.sin(frame.yaw)) > _TURNED else 0
    view = (template.front, template.right, template.left)[looks]
    span = np.ptp(view.anchors, axis=0)
    spots = _spots(frame, points, worn, looks, float(span[0] / span[1]), rng)
    targets = frame.to_picture(spots)
    middle = targets.mean(axis=0)
    # Straps reach further than the anchors.
    canvas = open_canvas(
        np.concatenate([targets, middle + 1.6 * (targets - middle)]), frame.unit, image_bgr.shape
    )
    if canvas is None:
        return bare
    placed = _place(view, canvas.drawn(targets), canvas.size)
    if texture is not None or color is not None:
        placed = _dye(placed, texture, None if color is None else np.array(color), canvas.unit, rng)
    hidden = np.clip(placed[..., 3], 0, 1)
    paint = placed[..., :3] / np.maximum(hidden, 1e-3)[..., None]
    return lay_over(image_bgr, canvas, paint, hidden, points=points, unit=frame.unit, rng=rng)


def held_out_painting(
    image_bgr: np.ndarray,
    landmarks5x2: np.ndarray,
    *,
    worn: Worn,
    rng: np.random.Generator,
    templates: Sequence[Template],
    textures: Sequence[np.ndarray] = (),
) -> Painted:
    """Puts one of several photographed masks on a face, as it is, in a fabric or dyed, by chance.

    Args, returns and errors as `paint_template`; `textures` may be empty.
    """
    template = templates[int(rng.integers(len(templates)))]
    texture, color, draw = None, None, rng.random()
    if draw < 0.35 and textures:
        texture = textures[int(rng.integers(len(textures)))]
    elif draw < 0.6:
        color = random_color(rng)
    return paint_template(
        image_bgr, landmarks5x2, template, worn=worn, texture=texture, color=color, rng=rng
    )  # fmt: skip

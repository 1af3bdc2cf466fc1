"""Training batches for the attributes model: which faces how often, and what cameras do to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge.types import GENDERS
from export.data.attribute_faces import MARGIN, SIDE, Faces, load_training, template
from export.data.batches import Batches
from export.data.crop_sets import AGES, RACES, unit_rows
from export.data.face_batches import change_colours

# Columns of the targets: allowed states, gender (female, male), face, face known, embedding, age.
MASK = slice(0, 4)
GENDER = slice(4, 6)
FACE, FACE_KNOWN = 6, 7
EMBEDDING = slice(8, 136)
AGE = slice(136, 145)
COLUMNS = 145

CLEAR = 0.75
"""From this share on a blended face is told by its larger part."""


@dataclass(slots=True, frozen=True)
class Hardness:
    """What is done to faces while a stage of training lasts.

    Attributes:
        worn: share of bare faces that get the lower half, mask and all, of a face in a real mask, and its
            mask state with it: real masks on people whose gender is known.
        mixed: share of faces that are blended with another one of the batch, labels and all (mixup, Zhang et
            al. 2018).
        moved, spoilt: see `augment`.
        soft: share of somebody else's opinion in what is taught of gender, where there is one; the rest is
            the label's. Without a label the opinion is all.
    """

    worn: float = 0.0
    mixed: float = 0.0
    moved: float = 1.0
    spoilt: float = 1.0
    soft: float = 0.0


PLAIN = Hardness()


@dataclass(slots=True)
class Group:
    """Rows of one pack that are drawn with one share of the batches; rows may stand there repeatedly."""

    pack: int
    rows: np.ndarray
    share: float


def _often(pack: Faces) -> np.ndarray:
    """How often each row is drawn for gender, 2 being usual.

    More often come those whom a network that drew all alike got wrong most: children, women of three groups
    of fairface, and older women.
    """
    women = pack.gender == GENDERS.index("female")
    often = np.full(len(pack), 2)
    often[(pack.age >= 0) & (pack.age < AGES.index("20-29"))] = 3
    often[women & (pack.age >= AGES.index("40-49"))] = 3
    often[women & (pack.race == RACES.index("Southeast Asian"))] = 3
    often[women & np.isin(pack.race, [RACES.index("Black"), RACES.index("Indian")])] = 4
    return often


def _groups(packs: dict[str, Faces]) -> list[Group]:
    """Who is drawn how often.

    Each worn state is about as frequent among painted faces as among real ones, and gender is learnt from
    the same people bare and painted, so that neither the source nor the person tells the label.
    """
    names = list(packs)
    groups: list[Group] = []

    def add(name: str, rows: np.ndarray, share: float) -> None:
        if rows.any():
            chosen = np.flatnonzero(rows)
            if (packs[name].gender[chosen] >= 0).any():
                chosen = np.repeat(chosen, _often(packs[name])[chosen])
            groups.append(Group(names.index(name), chosen, share))

    bare = packs["bare"]
    real = bare.mask[:, 0] == 0  # the set of people who wear real masks
    known = bare.gender >= 0
    add("bare", known, 0.40)
    add("bare", ~known & ~real, 0.02)
    add("bare", real, 0.03)
    painted = [name for name in names if name.startswith("painted")]
    for name in painted:
        gender = packs[name].gender >= 0
        add(name, gender, 0.25 / len(painted))
        add(name, ~gender, 0.02 / len(painted))
    if "occluded" in packs:
        add("occluded", packs["occluded"].face == 1, 0.04)
    scenes = packs["scenes"]
    face = scenes.face == 1
    patterns = {
        (1, 0, 0, 0): 0.05,
        (0, 0, 0, 1): 0.05,
        (0, 1, 1, 0): 0.07,
        (0, 0, 1, 0): 0.01,
        (0, 1, 0, 0): 0.005,
        (1, 1, 1, 1): 0.005,
    }
    for pattern, share in patterns.items():
        add("scenes", face & (scenes.mask == pattern).all(axis=1), share)
    add("scenes", scenes.face == 0, 0.08)
    total = sum(group.share for group in groups)
    for group in groups:
        group.share /= total
    return groups


class AttributeBatches(Batches):
    """Augmented faces, and what the network should say of them.

    Args:
        folder: of the packs, see `attribute_faces.prepare`.
        hardness: what is done to them.
        opinions: probabilities of both genders, 2 float32, by the bytes of a packed embedding.
        drawing: see `Batches`.
    """

    def __init__(
        self,
        folder: Path,
        hardness: Hardness = PLAIN,
        *,
        opinions: Mapping[bytes, np.ndarray] | None = None,
        **drawing: int,
    ) -> None:
        super().__init__(**drawing)
        self.hardness = hardness
        self.opinions = opinions or {}
        packs = load_training(folder)
        self.packs = list(packs.values())
        self.groups = _groups(packs)
        self.shares = np.array([group.share for group in self.groups])
        self.bare, self.scenes = (list(packs).index(name) for name in ("bare", "scenes"))
        scenes = packs["scenes"]
        told = (scenes.mask[:, 0] == 0) & (scenes.mask.max(axis=1) == 1) & (scenes.face == 1)
        # As often worn wrongly as right, as in the batches.
        wrong, right = (np.flatnonzero(told & (scenes.mask[:, 3] == value)) for value in (0, 1))
        self.masked = [rows for rows in (wrong, right) if len(rows)]

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = self.rng(index)
        images = np.empty((self.batch, self.size, self.size, 3), np.uint8)
        targets = np.zeros((self.batch, COLUMNS), np.float32)
        for i, g in enumerate(rng.choice(len(self.groups), self.batch, p=self.shares)):
            group = self.groups[g]
            pack, row = self.packs[group.pack], int(rng.choice(group.rows))
            image, wanted = pack.images[row], target(pack, row)
            opinion = self.opinions.get(pack.embedding[row].tobytes())
            if opinion is not None:
                soft = self.hardness.soft if pack.gender[row] >= 0 else 1.0
                wanted[GENDER] = (1 - soft) * wanted[GENDER] + soft * opinion
            if group.pack == self.bare and self.masked and rng.random() < self.hardness.worn:
                other = self.packs[self.scenes]
                at = int(rng.choice(self.masked[rng.integers(len(self.masked))]))
                share = lower_half(template(MARGIN), SIDE, rng)
                image = (image * (1 - share) + other.images[at] * share).astype(np.uint8)
                wanted[MASK] = other.mask[at]
                if not other.mask[at, 3]:  # a bare nose or mouth is somebody else's
                    wanted[GENDER] = wanted[EMBEDDING] = wanted[AGE] = 0
            images[i] = augment(image, self.size, rng, moved=self.hardness.moved, spoilt=self.hardness.spoilt)
            targets[i] = wanted
        return mix(images.astype(np.float32), targets, rng, self.hardness.mixed)


def mix(
    images: np.ndarray, targets: np.ndarray, rng: np.random.Generator, mixed: float
) -> tuple[np.ndarray, np.ndarray]:
    """Blends a share of the faces with others of the batch, half to nearly all of each its own.

    Gender and age become shares, where both know them, and the embedding lies between both; mask states and
    whether it is a face are told by the larger part alone, and not at all where that is not large.
    """
    chosen = np.flatnonzero(rng.random(len(images)) < mixed)
    others = (chosen + rng.integers(1, max(len(images), 2), len(chosen))) % len(images)
    share = rng.uniform(0.5, 1, len(chosen)).astype(np.float32)[:, None]
    new = images[chosen] * share[..., None, None] + images[others] * (1 - share[..., None, None])
    one, two = targets[chosen], targets[others]
    out = one.copy()
    for part in (GENDER, AGE):
        both = (one[:, part].max(axis=1) > 0) & (two[:, part].max(axis=1) > 0)
        out[:, part] = np.where(both[:, None], one[:, part] * share + two[:, part] * (1 - share), 0)
    taught = (np.abs(one[:, EMBEDDING]).max(axis=1) > 0) & (np.abs(two[:, EMBEDDING]).max(axis=1) > 0)
    between = unit_rows(one[:, EMBEDDING]) * share + unit_rows(two[:, EMBEDDING]) * (1 - share)
    out[:, EMBEDDING] = np.where(taught[:, None], between, 0)
    unclear = share[:, 0] < CLEAR
    out[unclear, MASK], out[unclear, FACE_KNOWN] = 1, 0
    images[chosen], targets[chosen] = new, out
    return images, targets


def lower_half(points: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """Where a mask may be on a packed crop, with another edge every time.

    Args:
        points: 5 x 2 landmarks of the crop, in its sides.
        side: of the crop, pixels.
        rng: source of all chance.

    Returns:
        side x side x 1 float32, 0..1.
    """
    eyes, nose, mouth = points[:2].mean(axis=0), points[2], points[3:].mean(axis=0)
    bridge = eyes[1] + (nose[1] - eyes[1]) * rng.uniform(0.3, 0.9)
    ears = rng.uniform(eyes[1], mouth[1], 2)
    edge = np.array([[0, ears[0]], [nose[0] + rng.normal(0, 0.03), bridge], [1, ears[1]], [1, 1], [0, 1]])
    out = np.zeros((side, side), np.float32)
    cv2.fillPoly(out, [np.round(edge * side).astype(np.int32)], 1.0)
    return cv2.blur(out, (3, 3))[..., None]


def target(pack: Faces, row: int) -> np.ndarray:
    """What the network should say of one packed face: the columns named above, float32."""
    out = np.zeros(COLUMNS, np.float32)
    out[MASK] = pack.mask[row] if pack.face[row] == 1 else 1
    if pack.gender[row] >= 0:
        out[GENDER][pack.gender[row]] = 1
    out[FACE], out[FACE_KNOWN] = pack.face[row] == 1, pack.face[row] >= 0
    out[EMBEDDING] = pack.embedding[row] / 127.0
    if pack.age[row] >= 0:
        out[AGE][pack.age[row]] = 1
    return out


def plain(image: np.ndarray, size: int, *, margin: float = MARGIN) -> np.ndarray:
    """A packed crop, which shows `margin` times as much, as the device would cut it: size x size x 3."""
    inner = SIDE / margin
    scale = size / inner
    shift = size / 2 - scale * SIDE / 2
    matrix = np.array([[scale, 0, shift], [0, scale, shift]])
    matrix[:, 2] += 0.5 * (matrix[:, 0] + matrix[:, 1]) - 0.5
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR)


def augment(
    image: np.ndarray,
    size: int,
    rng: np.random.Generator,
    *,
    margin: float = MARGIN,
    moved: float = 1.0,
    spoilt: float = 1.0,
) -> np.ndarray:
    """A packed crop as a detector that is a little off, and a worse camera, would have given it.

    Args:
        image: SIDE x SIDE x 3 uint8.
        size: of the result, pixels.
        rng: source of all chance.
        margin: how many times as much as the model sees the packed crop shows.
        moved: multiplies how far it is moved, turned and scaled.
        spoilt: multiplies how often anything else is done to it, at most 2.
    """
    scale = size * margin / SIDE * np.exp(rng.normal(0, 0.06 * moved))
    angle = np.radians(rng.normal(0, 5 * moved))
    stretch = np.exp(rng.normal(0, 0.03 * moved))
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    turn = np.array([[c * stretch, -s], [s * stretch, c]])
    if rng.random() < 0.5:
        turn[:, 0] *= -1
    centre = size / 2 + rng.normal(0, 0.03 * moved * size, 2)
    matrix = np.concatenate([turn, (centre - turn @ [SIDE / 2, SIDE / 2])[:, None]], axis=1)
    matrix[:, 2] += 0.5 * (matrix[:, 0] + matrix[:, 1]) - 0.5
    small = size
    if rng.random() < 0.2 * spoilt:  # a face that fills few pixels of the camera's picture
        small = int(np.exp(rng.uniform(np.log(14), np.log(size))))
    if small < size:
        k = small / size
        if k < 0.6:
            image = cv2.GaussianBlur(image, (0, 0), 0.4 / k)
        matrix = matrix * k
        matrix[:, 2] += 0.5 * k - 0.5
    out = cv2.warpAffine(image, matrix, (small, small), flags=cv2.INTER_LINEAR)
    if rng.random() < 0.06 * spoilt:
        out = _half_dark(out, rng)
    if rng.random() < 0.45 * spoilt:
        out = change_colours(out, rng)
    if small < size:
        out = cv2.resize(out, (size, size), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.05 * spoilt:
        length = int(rng.integers(2, max(3, size // 12)))
        kernel = np.zeros((length, length), np.float32)
        cv2.line(kernel, tuple(rng.integers(0, length, 2).tolist()), (length // 2, length // 2), 1.0)
        out = cv2.filter2D(out, -1, kernel / max(float(kernel.sum()), 1e-3))
    if rng.random() < 0.1 * spoilt:
        _cover(out, rng)
    return out


def _half_dark(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light from one side."""
    size = image.shape[0]
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    edge = (x * np.cos(angle) + y * np.sin(angle)) * rng.uniform(2, 10) + rng.normal(0, 0.5)
    shade = 1 - rng.uniform(0.3, 0.75) / (1 + np.exp(-edge))
    return (image * shade[..., None]).astype(np.uint8)


def _cover(image: np.ndarray, rng: np.random.Generator) -> None:
    """Hides an edge of the picture, where a frame ends, or a small patch (Zhong et al. 2020)."""
    size = image.shape[0]
    if rng.random() < 0.5:
        width = int(size * rng.uniform(0.03, 0.25))
        side = rng.integers(4)
        strip = (np.s_[:width], np.s_[-width:], np.s_[:, :width], np.s_[:, -width:])[side]
        image[strip] = 0
        return
    w, h = (int(size * rng.uniform(0.08, 0.25)) for _ in range(2))
    x, y = int(rng.integers(size - w + 1)), int(rng.integers(size - h + 1))
    image[y : y + h, x : x + w] = rng.integers(0, 256, 3)


def dev_batches(pack: Faces, size: int, rows: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
    """Packed faces as the device would cut them, n x size x size x 3 float32."""
    chosen = range(len(pack)) if rows is None else rows
    return np.array([plain(pack.images[i], size) for i in chosen], np.float32)

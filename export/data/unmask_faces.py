"""What the unmask model learns from: aligned faces with a painted mask, the same bare, and what is hidden.

Faces go the way they will go on the device: our detector finds the landmarks on the masked picture. People in
real masks are there too; what is behind those nobody knows. lfw is never packed. Held out are every seventh
person of celeba, every seventh real mask, and a third of the photographed masks and fabrics.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from edge.camera import read_image
from edge.geometry import align, similarity
from edge.masks import WORN, Painted, Worn, paint_mask
from edge.tasks.attributes import TEMPLATE
from export.data import packs
from export.data.attribute_faces import maskon_is_dev, maskon_state, scene_faces
from export.data.batches import Batches
from export.data.crop_sets import Entry, entries, found_landmarks
from export.data.face_batches import change_colours
from export.data.identity_faces import HELD_OUT, names_of
from export.data.packs import Row
from export.data.scenes import Scene, is_held_out, read_scenes
from export.data.templates import Template, held_out_painting, load_templates, load_textures

SIDE, SIZE = 144, 128
"""Pixels of the packed crop and of what the model sees of it, at the same scale: the crop can be moved."""
MARGIN = SIDE / SIZE
SHARPEST = 100.0
"""Faces whose crop was smaller in its source picture, pixels, are not learnt from."""
SETS = {"celeba": 3, "utkface": 1, "fairface": 1}
"""Sets of bare faces, and how many masks are painted on each face: celeba is the sharpest."""
EVERY = {"fairface": 3}
"""Of these sets one face in so many is taken."""
PHOTOGRAPHED = 0.4
"""Share of the training faces whose mask is a photographed one, where such are given."""
PRINTS, PRINT = 240, 96
"""Parts of pictures of rooms that are printed on such masks like a fabric, and their side, pixels: people
wear patterns that nobody would think of."""
WORN_SHARES = (0.86, 0.1, 0.04)  # of edge.masks.WORN

# Channels of the packed pictures.
MASKED, BARE, REGION = slice(0, 3), slice(3, 6), 6
# Channels of the targets: the bare face 0..255, the region, where that is known, whether the face is known.
TRUTH, HIDDEN, CERTAIN, KNOWN = slice(0, 3), slice(3, 4), slice(4, 5), slice(5, 6)
CHANNELS = 6


@dataclass(slots=True)
class Hidden:
    """Packed faces, one row each.

    Attributes:
        images: n x SIDE x SIDE x 7 uint8: masked RGB, bare RGB, and how much of each pixel is hidden, 0..255.
            Without truth the bare picture is the masked one, and the region black.
        landmarks: n x 5 x 2 float32, as found on the masked picture, pixels of the crop.
        known: n bool, whether there is a truth.
    """

    images: np.ndarray
    landmarks: np.ndarray
    known: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


_DTYPES = {"images": np.uint8, "landmarks": np.float32, "known": bool}


def load(folder: Path) -> Hidden:
    """A pack; pictures stay on disk until they are used."""
    return packs.load(folder, Hidden)


def template(margin: float = MARGIN) -> np.ndarray:
    """The landmark template of a crop that shows `margin` times what the model sees, 5 x 2 in its sides."""
    return ((np.array(TEMPLATE) - 0.5) / margin + 0.5).astype(np.float32)


@functools.lru_cache(maxsize=4)
def photographed(masks: Path, held: bool) -> tuple[list[Template], list[np.ndarray]]:
    """The photographed masks and fabrics to score with (`held`, every third by name) or to learn from."""
    templates, textures = load_templates(masks / "templates"), []
    if (masks / "textures").is_dir():
        textures = load_textures(masks / "textures")

    def part(things: list) -> list:
        return [thing for i, thing in enumerate(things) if (i % 3 == 0) == held]

    return part(templates), part(textures)


@functools.lru_cache(maxsize=1)
def prints(data: Path) -> list[np.ndarray]:
    """`PRINTS` parts of the rooms to learn from, `PRINT` pixels square, BGR; none without such pictures."""
    if not (data / "scenes" / "empty_rooms").is_dir():
        return []
    rng = np.random.default_rng(7)
    rooms = [scene for scene in read_scenes(data / "scenes", ("empty_rooms",)) if not scene.is_dev]
    out = []
    for scene in rooms[:PRINTS]:
        image = read_image(scene.path)
        for _ in range(-(-PRINTS // len(rooms))):
            side = min(int(rng.integers(PRINT // 2, 2 * PRINT)), *image.shape[:2])
            x, y = (int(rng.integers(room - side + 1)) for room in image.shape[1::-1])
            out.append(cv2.resize(image[y : y + side, x : x + side], (PRINT, PRINT)))
    return out[:PRINTS]


def paint(
    image: np.ndarray,
    points: np.ndarray,
    worn: Worn,
    rng: np.random.Generator,
    *,
    masks: Path | None = None,
    held: bool = False,
    data: Path | None = None,
) -> Painted:
    """Puts a mask on a BGR picture.

    Args:
        image: H x W x 3 uint8 BGR, left as it is.
        points: landmarks, 5 x 2 pixels.
        worn: as in `edge.masks.paint_mask`.
        rng: source of all chance.
        masks: folder with `templates/` and perhaps `textures/`; None to draw all masks.
        held: whether to score with it: photographed masks that training never sees, where there are any.
        data: folder with the rooms whose parts are printed on photographed masks, see `prints`.
    """
    if masks is not None and (held or rng.random() < PHOTOGRAPHED):
        templates, textures = photographed(masks, held)
        if data is not None and not held and rng.random() < 0.5:
            textures = prints(data) or textures
        if templates:
            return held_out_painting(
                image, points, worn=worn, rng=rng, templates=templates, textures=textures
            )
    return paint_mask(image, points, worn=worn, rng=rng)


class Crops(NamedTuple):
    """One face, aligned by the landmarks of the masked picture: RGB, RGB and the region 0..255 as uint8, and
    the landmarks, 5 x 2 pixels of the crop."""

    masked: np.ndarray
    bare: np.ndarray
    region: np.ndarray
    landmarks: np.ndarray


def cut(image: np.ndarray, painted: Painted, points: np.ndarray, margin: float, side: int) -> Crops:
    """Cuts the masked and the bare picture alike.

    Args:
        image: the bare picture, H x W x 3 uint8 BGR.
        painted: the same with a mask.
        points: landmarks on the masked picture, 5 x 2 pixels.
        margin: how many times as much as the model sees the crops show.
        side: of the crops, pixels.

    Raises:
        ValueError: the landmarks coincide.
    """
    goal = template(margin)
    region = np.rint(painted.region * 255).astype(np.uint8)
    masked, bare, hidden = (align(one, points, goal, side) for one in (painted.image, image, region))
    turn = similarity(points, goal * side).astype(np.float32)
    return Crops(
        cv2.cvtColor(masked, cv2.COLOR_BGR2RGB),
        cv2.cvtColor(bare, cv2.COLOR_BGR2RGB),
        hidden,
        np.float32(points) @ turn[:, :2].T + turn[:, 2],
    )


@dataclass(slots=True, frozen=True)
class Task:
    """A bare face to be packed with a mask; the rest as in `paint`."""

    entry: Entry
    seed: int
    masks: Path | None
    held: bool
    data: Path | None = None


def masked_picture(task: Task) -> tuple[np.ndarray, Painted, np.ndarray]:
    """A bare picture (BGR), the same with a mask painted on its face, and the landmarks it was painted by.

    The region is empty where that came to nothing.
    """
    image = read_image(task.entry.path)
    rng = np.random.default_rng((task.seed, zlib.crc32(str(task.entry.path.name).encode())))
    worn: Worn = "correct" if task.held else WORN[int(rng.choice(len(WORN), p=WORN_SHARES))]
    points = (task.entry.landmarks + found_landmarks(image, task.entry.landmarks)) / 2
    painted = paint(image, points, worn, rng, masks=task.masks, held=task.held, data=task.data)
    return image, painted, points


def masked_face(task: Task, margin: float, side: int) -> Crops | None:
    """Paints a mask on one bare face and cuts it out; None where that comes to nothing."""
    image, painted, points = masked_picture(task)
    if not painted.region.any():
        return None
    try:
        return cut(image, painted, found_landmarks(painted.image, points), margin, side)
    except ValueError:
        return None


def _row(task: Task) -> Row | None:
    crops = masked_face(task, MARGIN, SIDE)
    if crops is None:
        return None
    images = np.dstack([crops.masked, crops.bare, crops.region])
    return {"images": images, "landmarks": crops.landmarks, "known": True}


def _without_truth(image: np.ndarray, points: np.ndarray) -> Row | None:
    nothing = Painted(image, np.zeros(image.shape[:2], np.float32))
    try:
        crops = cut(image, nothing, points, MARGIN, SIDE)
    except ValueError:
        return None
    images = np.dstack([crops.masked, crops.bare, crops.region])
    return {"images": images, "landmarks": crops.landmarks, "known": False}


def _real_row(task: Entry | Scene) -> Row | None:
    image = read_image(task.path)
    if isinstance(task, Entry):
        return _without_truth(image, found_landmarks(image, task.landmarks))
    found = list(scene_faces(task, image))
    return _without_truth(image, found[0][1]) if found else None


def real_faces(data: Path, *, held: bool = False) -> list[Entry]:
    """People in real masks, as far as their pictures are sharp: those to learn from, or the held-out ones."""
    folder = data / "faces" / "masks"
    if not folder.is_dir():
        return []
    worn = [e for e in entries(folder) if e.path.relative_to(folder).parts[0] == "with_mask"]
    return [e for e in worn if e.side >= SHARPEST and is_held_out(e.path.stem, HELD_OUT) == held]


def bare_faces(data: Path) -> tuple[dict[str, list[Entry]], list[Entry]]:
    """The faces to paint masks on: those to learn from by set, and the held-out people of celeba."""
    training: dict[str, list[Entry]] = {}
    held = []
    for name in SETS:
        folder = data / "faces" / name
        if not folder.is_dir():
            continue
        known = names_of(folder)
        for entry in entries(folder)[:: EVERY.get(name, 1)]:
            if name == "celeba" and int(known[str(entry.path.relative_to(folder))]) % HELD_OUT == 0:
                held.append(entry)
            elif entry.side >= SHARPEST:
                training.setdefault(name, []).append(entry)
    return training, held


def prepare(
    data: Path, out: Path, *, masks: Path | None = None, variants: dict[str, int] | None = None
) -> Path:
    """Packs all faces, one folder a set and variant; what is packed already is left alone.

    Args:
        data: folder with `faces/` and `scenes/`.
        out: folder of the packs.
        masks: photographed masks, see `paint`.
        variants: how many masks are painted on each face of a set; by default `SETS`.
    """

    def collect(tasks: Sequence, title: str, name: str, function=_row) -> None:
        if tasks:
            packs.collect(function, tasks, title, out / name, Hidden, _DTYPES)

    training = bare_faces(data)[0]
    collect(held_out_tasks(data, masks), "held-out faces", "dev")
    for name, faces in training.items():
        for seed in range(1, (variants or SETS)[name] + 1):
            tasks = [Task(e, seed, masks, False, data) for e in faces]
            collect(tasks, f"{name} {seed}", f"{name}{seed}")
    scenes = [
        scene
        for scene in read_scenes(data / "scenes", ("maskon",))
        if maskon_state(scene.path.stem) == "correct" and not maskon_is_dev(scene.path.stem)
    ]
    collect([*real_faces(data), *scenes], "real masks", "real", _real_row)
    return out


def held_out_tasks(data: Path, masks: Path | None = None) -> list[Task]:
    """The held-out people of celeba, each picture in a mask to score with."""
    return [Task(entry, 5, masks, True) for entry in bare_faces(data)[1]]


def held_out(data: Path, masks: Path | None = None, size: int = SIZE) -> Hidden:
    """The held-out people as the device would cut them: `Hidden` of size x size pictures.

    Args:
        data: folder with `faces/celeba`.
        masks: see `paint`.
        size: of the crops, pixels.
    """
    rows = []
    for task in tqdm(held_out_tasks(data, masks), desc="held-out faces", unit="face", leave=False):
        crops = masked_face(task, 1.0, size)
        if crops is not None:
            rows.append(crops)
    images = [np.dstack([c.masked, c.bare, c.region]) for c in rows]
    return Hidden(np.array(images), np.array([c.landmarks for c in rows]), np.ones(len(rows), bool))


def plain(images: np.ndarray, size: int) -> np.ndarray:
    """Packed crops (... x SIDE x SIDE x channels) as the device would cut them, size x size."""
    edge = (SIDE - SIZE) // 2
    inner = images[..., edge : SIDE - edge, edge : SIDE - edge, :]
    if size == SIZE:
        return inner
    flat = inner.reshape(-1, *inner.shape[-3:])
    # More channels than OpenCV takes at a time.
    small = [
        np.dstack(
            [
                cv2.resize(
                    np.ascontiguousarray(one[..., i : i + 3]), (size, size), interpolation=cv2.INTER_AREA
                )
                for i in range(0, one.shape[-1], 3)
            ]
        )
        for one in flat
    ]
    return np.array(small).reshape(*images.shape[:-3], size, size, images.shape[-1])


def augment(images: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A packed face as a detector that is a little off, and a worse camera, would have given it.

    Args:
        images: SIDE x SIDE x 7 uint8, the channels of `Hidden.images`.
        size: of the result, pixels.
        rng: source of all chance.

    Returns:
        size x size x 7 uint8; masked and bare picture have gone through the same.
    """
    scale = size / SIZE * np.exp(rng.normal(0, 0.05))
    angle = np.radians(rng.normal(0, 4))
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    turn = np.array([[c, -s], [s, c]])
    if rng.random() < 0.5:
        turn[:, 0] *= -1
    centre = size / 2 + rng.normal(0, 0.02 * size, 2)
    matrix = np.concatenate([turn, (centre - turn @ [SIDE / 2, SIDE / 2])[:, None]], axis=1)
    matrix[:, 2] += 0.5 * (matrix[:, 0] + matrix[:, 1]) - 0.5
    small = size
    if rng.random() < 0.15:  # a face that fills few pixels of the camera's picture
        small = int(size * np.exp(rng.uniform(np.log(0.35), 0)))
        matrix *= small / size
        matrix[:, 2] += 0.5 * small / size - 0.5
    parts = [
        cv2.warpAffine(
            np.ascontiguousarray(images[..., part]), matrix, (small, small), flags=cv2.INTER_LINEAR
        )
        for part in (MASKED, BARE, REGION)
    ]
    if rng.random() < 0.5:
        state = int(rng.integers(2**32))
        parts[:2] = [change_colours(part, np.random.default_rng(state)) for part in parts[:2]]
    if rng.random() < 0.2:
        # Old or dark pictures, which would else be completed in the colours of bright ones.
        dim = float(np.exp(rng.uniform(np.log(0.25), 0)))
        grey = rng.random() < 0.6
        parts[:2] = [_faded(part, dim, grey=grey) for part in parts[:2]]
    if small < size:
        parts = [cv2.resize(part, (size, size), interpolation=cv2.INTER_LINEAR) for part in parts]
    return np.dstack(parts)


def _faded(image: np.ndarray, dim: float, *, grey: bool) -> np.ndarray:
    if grey:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.convertScaleAbs(image, alpha=dim))


@functools.cache
def _certain(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Of a real mask worn correctly: what it hides for sure, and where that, or the opposite, is sure.

    Both size x size x 1 float32. Sure are the mouth and what is round it, and the eyes and what is above.
    """
    y, x = np.mgrid[0:size, 0:size] / size
    eyes, nose, mouth = (np.array(TEMPLATE)[rows].mean(axis=0) for rows in ([0, 1], [2], [3, 4]))
    drop = mouth[1] - nose[1]
    worn = ((x - mouth[0]) / 0.11) ** 2 + ((y - mouth[1] + 0.1 * drop) / (0.6 * drop)) ** 2 < 1
    free = y < eyes[1] + 0.02
    return worn[..., None].astype(np.float32), (worn | free)[..., None].astype(np.float32)


_RIM = np.ones((3, 3), np.uint8)


def target(images: np.ndarray, known: bool, size: int) -> np.ndarray:
    """What the network should say of one augmented face: the channels named above, float32."""
    out = np.ones((size, size, CHANNELS), np.float32)
    out[..., TRUTH] = images[..., BARE]
    # A pixel further than the mask: its edge casts a shadow, and on real masks it would stay as a thin line.
    region = cv2.dilate(np.ascontiguousarray(images[..., REGION]), _RIM)
    out[..., HIDDEN] = region[..., None] / np.float32(255)
    if not known:
        out[..., HIDDEN], out[..., CERTAIN] = _certain(size)
        out[..., KNOWN] = 0
    return out


SHARES = {"celeba": 0.5, "utkface": 0.2, "fairface": 0.24, "real": 0.06}
"""How often each kind of pack is drawn from."""
NO_MASK = 0.03
"""Share of faces with a truth that are shown bare: there is nothing to segment."""


def load_training(folder: Path) -> dict[str, Hidden]:
    """All training packs of a folder by name, in a fixed order."""
    names = sorted(p.parent.name for p in folder.glob("*/ready") if p.parent.name != "dev")
    return {name: load(folder / name) for name in names}


class UnmaskBatches(Batches):
    """Augmented faces, and what the network should say of them.

    Args:
        folder: of the packs, see `prepare`.
        drawing: see `Batches`.
    """

    def __init__(self, folder: Path, **drawing: int) -> None:
        super().__init__(**drawing)
        found = load_training(folder)
        kinds = [name.rstrip("0123456789") for name in found]
        shares = np.array([SHARES[kind] / kinds.count(kind) for kind in kinds])
        self.packs, self.shares = list(found.values()), shares / shares.sum()

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = self.rng(index)
        x = np.empty((self.batch, self.size, self.size, 3), np.float32)
        y = np.empty((self.batch, self.size, self.size, CHANNELS), np.float32)
        for i, p in enumerate(rng.choice(len(self.packs), self.batch, p=self.shares)):
            pack = self.packs[p]
            row = int(rng.integers(len(pack)))
            known = bool(pack.known[row])
            images = augment(np.asarray(pack.images[row]), self.size, rng)
            if known and rng.random() < NO_MASK:
                images[..., MASKED], images[..., REGION] = images[..., BARE], 0
            x[i] = images[..., MASKED]
            y[i] = target(images, known, self.size)
        return x, y

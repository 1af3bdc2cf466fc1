"""Aligned face crops with what is known of each, packed once: what the attributes model learns from.

Every picture goes the way it will go on the device: our face detector finds the landmarks, on the painted
picture too, and `edge.geometry.align` cuts the face out. Nobody sits in the training part and the scored
part: fairface_dev, lfw, the held-out parts of ilc, maskon and empty_rooms are never packed.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge.camera import read_image
from edge.geometry import align, iou_matrix
from edge.masks import WORN, paint_mask, random_design
from edge.tasks.attributes import TEMPLATE
from edge.tasks.face import FaceDetector
from edge.types import MASK_STATES
from export.data import packs
from export.data.crop_sets import Entry, allowed, detector, entries, found_landmarks
from export.data.occluders import paint_occluder
from export.data.packs import Row
from export.data.scenes import YUNET, Scene, is_held_out, load_teacher, read_scenes

SIDE = 128
MARGIN = 1.15
"""The packed crop is `SIDE` pixels and shows `MARGIN` times what the model sees, so that it can be moved."""
MATCH_IOU = 0.4
MASKON_STATES = {
    "_Mask": "correct",
    "_Mask_Mouth_Chin": "nose_out",
    "_Mask_Chin": "chin",
    "_Mask_Nose_Mouth": None,  # nose and mouth covered, chin bare: worn, but none of the four
}

# Where the five landmarks lie in a face box, in widths and heights of it, for boxes in which no detector
# finds a face: the mean over fairface.
BOX_LANDMARKS = np.array(
    [[0.283, 0.371], [0.71, 0.372], [0.491, 0.58], [0.318, 0.735], [0.68, 0.735]], np.float32
)


@dataclass(slots=True)
class Faces:
    """Packed faces, one row each.

    Attributes:
        images: n x SIDE x SIDE x 3 uint8 RGB.
        mask: n x 4 uint8, 1 for every state that the label allows, in the order of `MASK_STATES`; all ones
            where nothing is known.
        gender: n int8, index into `GENDERS`, -1 unknown.
        age: n int8, index into `AGES`, -1 unknown.
        race: n int8, index into `RACES`, -1 unknown; to draw hard groups more often, never to be learnt.
        face: n int8, 1 a face, 0 none, -1 not to be learnt from.
        embedding: n x 128 int8, the teacher's embedding of the bare face times 127; zeros where unknown.
        side: n float32, side of the face in the source picture, pixels.
    """

    images: np.ndarray
    mask: np.ndarray
    gender: np.ndarray
    age: np.ndarray
    race: np.ndarray
    face: np.ndarray
    embedding: np.ndarray
    side: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


def load(folder: Path) -> Faces:
    """A pack of faces; pictures stay on disk until they are used."""
    return packs.load(folder, Faces)


def load_training(folder: Path) -> dict[str, Faces]:
    """All packs of a folder that are there to be trained on, by name."""
    names = sorted(p.parent.name for p in folder.glob("*/ready") if not p.parent.name.startswith("dev"))
    return {name: load(folder / name) for name in names}


def template(margin: float = 1.0) -> np.ndarray:
    """The landmark template for a crop that shows `margin` times as much."""
    return ((np.array(TEMPLATE) - 0.5) / margin + 0.5).astype(np.float32)


def in_box(box: Sequence[float] | np.ndarray) -> np.ndarray:
    """Where the landmarks of a face in this box (x, y, w, h) should be, 5 x 2, when nobody found them."""
    x, y, w, h = (float(v) for v in box)
    return BOX_LANDMARKS * [w, h] + [x, y]


def maskon_state(stem: str) -> str | None:
    """The state that a maskon file name tells; None for the one that is none of ours."""
    return MASKON_STATES[stem[stem.index("_Mask") :]]


def maskon_is_dev(stem: str) -> bool:
    """Held out: every seventh by the MD5 of the stem, as for ilc."""
    return is_held_out(stem, 7)


SCENE_LABELS = {
    "with_mask": allowed("correct"),
    "without_mask": allowed("none"),
    "with_incorrect_mask": allowed("nose_out", "chin"),
    "face": allowed(),
}


def cut(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """A packed crop, RGB, of a BGR picture.

    Raises:
        ValueError: the landmarks coincide.
    """
    return cv2.cvtColor(align(image, landmarks, template(MARGIN), SIDE), cv2.COLOR_BGR2RGB)


def _row(crop: np.ndarray, mask: np.ndarray, face: int, side: float) -> Row:
    """A packed crop of which no more is known than this."""
    return {
        "images": crop,
        "mask": mask,
        "gender": -1,
        "age": -1,
        "race": -1,
        "face": face,
        "embedding": np.zeros(128, np.int8),
        "side": side,
    }


def _crop_row(task: tuple[Entry, str, int]) -> Row | None:
    """One packed face: bare, painted with a mask, or covered by something else."""
    entry, mode, seed = task
    rng = np.random.default_rng((seed, zlib.crc32(str(entry.path).encode())))
    image = read_image(entry.path)
    mask = entry.mask
    points = entry.landmarks
    if mode != "bare":
        points = (points + found_landmarks(image, points)) / 2
        if mode == "painted":
            worn = WORN[int(rng.choice(3, p=(0.4, 0.33, 0.27)))]
            design = random_design(rng)
            image = paint_mask(image, points, worn=worn, design=design, rng=rng).image
            mask = allowed(worn)
        else:
            image, mask = paint_occluder(image, points, rng=rng).image, allowed("none")
    try:
        crop = cut(image, found_landmarks(image, points))
    except ValueError:
        return None
    row = _row(crop, mask, 1, entry.side) | {
        "gender": entry.gender,
        "age": entry.age,
        "race": entry.race,
    }
    if entry.embedding is not None:
        row["embedding"] = np.round(entry.embedding * 127).astype(np.int8)
    return row


# ------------------------------------------------------------------------------------ faces of the scenes


def scene_faces(scene: Scene, image: np.ndarray) -> Iterator[tuple[int, np.ndarray, bool]]:
    """The faces of one scene: index of the box, landmarks, and whether the detector found them itself.

    In maskon, with one large face a picture and boxes that sometimes show the mask alone, the largest
    detection is the face.
    """
    found = detector().detect(image)
    boxes = np.array([f.box for f in found], np.float32).reshape(-1, 4)
    overlap = iou_matrix(scene.boxes, boxes)
    if scene.set == "maskon":
        if found:
            yield 0, found[int(boxes[:, 2:].prod(axis=1).argmax())].landmarks, True
        return
    for i, box in enumerate(scene.boxes):
        if len(found) and overlap[i].max() >= MATCH_IOU:
            yield i, found[int(overlap[i].argmax())].landmarks, True
        else:
            yield i, in_box(box), False


SMALLEST = {"ilc": 12.0, "kaggle853": 20.0, "celeba_wild": 20.0, "street": 20.0, "maskon": 0.0}


def _scene_rows(task: tuple[Scene, int, str]) -> list[Row]:
    """Faces of one scene, and what is in it that is no face."""
    scene, seed, teacher = task
    rng = np.random.default_rng((seed, zlib.crc32(str(scene.path).encode())))
    image = read_image(scene.path)
    rows = []
    if len(scene.boxes):
        for i, landmarks, own in scene_faces(scene, image):
            side = float(np.sqrt(scene.boxes[i, 2] * scene.boxes[i, 3]))
            if side < SMALLEST[scene.set]:
                continue
            if scene.set == "maskon":
                state = maskon_state(scene.path.stem)
                mask = allowed(state) if state else allowed("chin", "nose_out", "correct")
            else:
                mask = SCENE_LABELS[scene.labels[i]]
            rows.append(_row(cut(image, landmarks), mask, 1, side))
            if own and scene.set in ("ilc", "kaggle853"):  # the same face as a box without landmarks gives it
                rows.append(_row(cut(image, in_box(scene.boxes[i])), mask, 1, side))
    rows += [_row(crop, allowed(), 0, side) for crop, side in _no_faces(scene, image, rng, Path(teacher))]
    return rows


_teacher: Any = None


def _no_faces(
    scene: Scene, image: np.ndarray, rng: np.random.Generator, teacher: Path
) -> Iterator[tuple[np.ndarray, float]]:
    """What the detector takes for faces where none are, at a low threshold, and a few places at random.

    In rooms every find counts. In scenes with people a place counts when it overlaps no labelled face and
    YuNet, looking at it enlarged, sees none either: not every face is labelled.
    """
    height, width = image.shape[:2]
    empty = not len(scene.boxes)
    if scene.set in ("street", "celeba_wild", "maskon"):
        return
    views = [(0, 0, width, height)]
    for _ in range(14 if empty else 2):  # enlarged parts: false alarms of a size that the whole does not show
        share = rng.uniform(0.2, 0.7)
        w, h = max(int(width * share), 8), max(int(height * share), 8)
        views.append((int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h))
    places = []
    finder = FaceDetector(detector().model, score_threshold=0.08)
    for x, y, w, h in views:
        for face in finder.detect(image[y : y + h, x : x + w])[:12]:
            box = np.array(face.box) + [x, y, 0, 0]
            places.append((box, face.landmarks + [x, y]))
    for _ in range(10 if empty else 3):
        side = float(np.exp(rng.uniform(np.log(20), np.log(max(0.7 * min(width, height), 24)))))
        x, y = rng.uniform(0, max(width - side, 1)), rng.uniform(0, max(height - side, 1))
        box = np.array([x, y, side * 0.8, side])
        places.append((box, in_box(box)))
    for box, landmarks in places:
        if not empty:
            grown = np.array([box[0] - 0.25 * box[2], box[1] - 0.25 * box[3], 1.5 * box[2], 1.5 * box[3]])
            if iou_matrix(grown[None], scene.boxes).max() > 0.02 or yunet_sees(image, grown, teacher):
                continue
        try:
            yield cut(image, landmarks), float(np.sqrt(box[2] * box[3]))
        except ValueError:
            continue


def yunet_sees(image: np.ndarray, box: np.ndarray, path: Path) -> bool:
    """Whether YuNet, from the folder `path`, finds a face in the box (x, y, w, h) when it is enlarged."""
    global _teacher
    if _teacher is None:
        _teacher = load_teacher(path / YUNET, size=160, score=0.25)
    scale = 160 / max(float(box[2]), float(box[3]), 1.0)
    matrix = np.array([[scale, 0, -scale * box[0]], [0, scale, -scale * box[1]]])
    return _teacher.detect(cv2.warpAffine(image, matrix, (160, 160)))[1] is not None


# ---------------------------------------------------------------------------------------------- packing

FACE_SETS = ("fairface", "utkface", "genderface", "celeba", "pins", "masks")


_DTYPES = dict.fromkeys((one.name for one in fields(Faces)), np.int8) | {
    "images": np.uint8,
    "mask": np.uint8,
    "side": np.float32,
}


def _collect(function: Any, tasks: Sequence[Any], title: str, folder: Path) -> None:
    packs.collect(function, tasks, title, folder, Faces, _DTYPES)


def prepare(data: Path, teachers: Path, out: Path, *, variants: Sequence[int] = (1, 2)) -> Path:
    """Packs all training faces, one folder a kind; what is packed already is left alone.

    Args:
        data: folder with `scenes/` and `faces/`.
        teachers: folder with YuNet.
        out: folder of the packs.
        variants: seeds of the painted versions of each bare face.
    """
    sets = {name: entries(data / "faces" / name) for name in FACE_SETS}
    bare = [e for name in FACE_SETS for e in sets[name] if e.mask[0]]
    scenes = [s for s in read_scenes(data / "scenes") if not s.is_dev]
    scenes = [s for s in scenes if not (s.set == "maskon" and maskon_is_dev(s.path.stem))]
    _collect(
        _crop_row, [(e, "bare", 0) for name in FACE_SETS for e in sets[name]], "bare faces", out / "bare"
    )
    for seed in variants:
        _collect(
            _crop_row, [(e, "painted", seed) for e in bare], f"painted faces {seed}", out / f"painted{seed}"
        )
    _collect(_scene_rows, [(s, 0, str(teachers)) for s in scenes], "faces in scenes", out / "scenes")
    _collect(_crop_row, [(e, "occluded", 77) for e in bare[::3]], "covered faces", out / "occluded")
    dev = entries(data / "faces" / "fairface_dev")
    held = read_scenes(data / "scenes", ("ilc", "maskon", "empty_rooms"))
    held = [s for s in held if s.is_dev or (s.set == "maskon" and maskon_is_dev(s.path.stem))]
    _collect(_crop_row, [(e, "bare", 0) for e in dev], "held-out bare faces", out / "dev_bare")
    _collect(_crop_row, [(e, "painted", 5) for e in dev], "held-out painted faces", out / "dev_painted")
    for name in ("ilc", "maskon", "empty_rooms"):
        tasks = [(s, 0, str(teachers)) for s in held if s.set == name]
        _collect(_scene_rows, tasks, f"held-out {name}", out / f"dev_{name}")
    return out


def plain_pack(source: Path, out: Path) -> Path:
    """Packs for the plain two-class model that ours is compared with: real pictures, mask or none.

    Worn wrongly counts as a mask, as in the sets such models are usually trained on; nothing is painted.
    """
    for name in ("bare", "scenes"):
        pack = load(source / name)
        rows = pack.face == 1
        if name == "bare":  # of the crops only the set of people with real masks, and those without of it
            rows &= ~pack.embedding.any(axis=1)
        rows &= pack.mask.sum(axis=1) < len(MASK_STATES)
        index = np.flatnonzero(rows)
        worn = pack.mask[index, 0] == 0
        mask = np.where(worn[:, None], allowed("correct"), allowed("none")).astype(np.uint8)
        chosen = Faces(**{one.name: np.array(getattr(pack, one.name)[index]) for one in fields(Faces)})
        chosen.mask = mask
        packs.save(chosen, out / name)
    return out

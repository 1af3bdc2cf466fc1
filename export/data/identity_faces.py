"""What the identity model learns from: aligned faces with what two teachers say of the bare face.

Every picture goes the way it will go on the device: our face detector finds the landmarks, on the painted
picture too. lfw is never packed; of celeba every seventh person is held out. One teacher's embeddings come
with the data, the other one is asked, also about faces that nobody has, see `export.data.teacher`.
"""

from __future__ import annotations

import csv
import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np

from edge.camera import read_image
from edge.geometry import align, similarity
from edge.masks import Worn, paint_mask
from edge.tasks.identity import ARCFACE, ZOOM, side_of_crop, views
from export.data import packs, teacher
from export.data.attribute_batches import augment, plain
from export.data.batches import Batches
from export.data.crop_sets import Entry, entries, found_landmarks, unit_rows
from export.data.occluders import paint_occluder
from export.data.packs import Row

SIDE = 128
ANSWERS = "answers.npy"
"""Beside a pack of bare faces: what those that can be asked say of them, see `teacher.Teachers`."""
NEW_ANSWERS = "imagined.npy"
"""Among the packs: what they say of the faces that nobody has, see `imagined_face`."""
TEACHER = "teacher.tflite"
"""Among the packs: the teacher that is asked."""
MARGIN = SIDE / 112
"""The packed crop is `SIDE` pixels and shows `MARGIN` times what the model learns from, to be moved."""
SETS = ("fairface", "utkface", "genderface", "celeba", "pins")
ASKED = 64  # faces at a time, between two moves of the progress bar
NEW_FACES = 480_000
"""That nobody has; each is seen a few times in a run, another way each time."""
COMPOSED = 5, 2
"""Of every so many of them, so many may be composed: those that are shown bare, see `teacher.share_of`."""
HELD_OUT = 7
"""Of celeba, people whose number this divides are never trained on."""

# Columns of an embedding, and of the targets: what the teacher of the data says, and what the one that is
# asked says.
FIRST = slice(0, 128)
SECOND = slice(FIRST.stop, FIRST.stop + teacher.DIMENSIONS)
DIMENSIONS = SECOND.stop
TARGET = slice(0, DIMENSIONS)
ROW, PERSON = DIMENSIONS, DIMENSIONS + 1
COLUMNS = DIMENSIONS + 2


@dataclass(slots=True)
class People:
    """Packed faces, one row each.

    Attributes:
        images: n x SIDE x SIDE x 3 uint8 RGB.
        points: n x 5 x 2 float32, landmarks in pixels of the crop.
        embedding: n x 128 float16 of length 1, the teacher's of the bare face; once loaded n x DIMENSIONS,
            with those of the other teacher behind them, of length 1 too.
        row: n int32, row of the same face in the pack of bare ones.
        person: n int32, -1 unknown; the same number is the same person.
    """

    images: np.ndarray
    points: np.ndarray
    embedding: np.ndarray
    row: np.ndarray
    person: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


_DTYPES = {
    "images": np.uint8,
    "points": np.float32,
    "embedding": np.float16,
    "row": np.int32,
    "person": np.int32,
}


def load(folder: Path) -> People:
    """A pack; pictures stay on disk until they are used.

    Raises:
        FileNotFoundError: there is none, or no teacher was asked about it.
    """
    pack = packs.load(folder, People)
    said = answers(folder.parent / ("dev_bare" if folder.name.startswith("dev_") else "bare") / ANSWERS)
    pack.embedding = np.hstack([pack.embedding, said[pack.row, : teacher.DIMENSIONS]])
    return pack


def answers(file: Path) -> np.ndarray:
    """What was answered, n x d float16, see `teacher.Teachers`.

    Raises:
        FileNotFoundError: nobody was asked.
    """
    if not file.exists():
        raise FileNotFoundError(
            f"no {file}: run `python -m export prepare identity` with --teacher, it keeps what is packed"
        )
    return np.asarray(np.load(file))


def template() -> np.ndarray:
    """The landmark template of the packed crop, 5 x 2 in its sides."""
    return ((np.array(ARCFACE) - 0.5) / MARGIN + 0.5).astype(np.float32)


def names_of(folder: Path) -> dict[str, str]:
    """Who is seen in each file of a set: by identity.csv, else by the folder; empty where nobody knows."""
    if (folder / "identity.csv").exists():
        with (folder / "identity.csv").open(newline="") as file:
            return {row["file"]: row["identity"] for row in csv.DictReader(file)}
    if folder.name not in ("pins", "lfw"):
        return {}
    with (folder / "landmarks.csv").open(newline="") as file:
        return {row["file"]: Path(row["file"]).parts[0] for row in csv.DictReader(file)}


@dataclass(slots=True, frozen=True)
class Task:
    """A face to be packed: `mode` is "bare", "painted" or "occluded"."""

    entry: Entry
    mode: str
    seed: int
    row: int
    person: int


Cover = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Puts something before a face, given as an RGB picture and 5 x 2 landmarks."""


def cover(image: np.ndarray, landmarks: np.ndarray, mode: str, rng: np.random.Generator) -> np.ndarray:
    """A BGR picture with a mask worn correctly on most faces, or something else over the mouth."""
    if mode == "occluded":
        return paint_occluder(image, landmarks, rng=rng).image
    worn: Worn = "correct" if rng.random() < 0.85 else "nose_out"
    return paint_mask(image, landmarks, worn=worn, rng=rng).image


def _row(task: Task) -> Row | None:
    entry = task.entry
    image, points = read_image(entry.path), entry.landmarks
    if task.mode != "bare":
        rng = np.random.default_rng((task.seed, zlib.crc32(str(entry.path.name).encode())))
        points = (points + found_landmarks(image, points)) / 2
        image = cover(image, points, task.mode, rng)
    found = found_landmarks(image, points)
    try:
        crop = align(image, found, template(), SIDE)
    except ValueError:
        return None
    moved = similarity(found, template() * SIDE)
    return {
        "images": cv2.cvtColor(crop, cv2.COLOR_BGR2RGB),
        "points": found @ moved[:, :2].T + moved[:, 2],
        "embedding": entry.embedding,
        "row": task.row,
        "person": task.person,
    }


def _collect(tasks: Sequence[Task], title: str, folder: Path) -> None:
    packs.collect(_row, tasks, title, folder, People, _DTYPES)


@dataclass(slots=True, frozen=True)
class _Question:
    """Faces to be asked about: rows of a pack of bare faces, or numbers of imagined ones of it."""

    teachers: tuple[Path, Path | None]
    folder: Path
    imagined: bool
    faces: range


@cache
def _teachers(files: tuple[Path, Path | None]) -> teacher.Teachers:
    return teacher.Teachers(*files)


@cache
def _opened(folder: Path) -> tuple[People, np.ndarray]:
    """A pack, and which of its rows to draw."""
    pack = packs.load(folder, People)
    return pack, drawn(pack)


def _answer(question: _Question) -> np.ndarray:
    pack, rows = _opened(question.folder)
    shown = (imagined_face(pack, rows, i) if question.imagined else pack.images[i] for i in question.faces)
    return _teachers(question.teachers).embed([taught(image) for image in shown])


def _ask(
    teachers: tuple[Path, Path | None], width: int, folder: Path, file: Path, *, imagined: int = 0
) -> None:
    """Writes what is said of a pack of bare faces, or of `imagined` ones of it; what is there stays."""
    count = imagined or len(packs.load(folder, People))
    had = np.load(file) if file.exists() else np.empty((0, width), np.float16)
    if had.shape[1] != width:
        had = np.empty((0, width), np.float16)
    if len(had) >= count:
        return
    tasks = [
        _Question(teachers, folder, imagined > 0, range(start, min(start + ASKED, count)))
        for start in range(len(had), count, ASKED)
    ]
    title = f"{'imagined' if imagined else folder.name} faces: the teachers"
    said = packs.on_every_core(_answer, tasks, title, unit=f"{ASKED} faces", chunk=4)
    packs.save_whole(file, np.concatenate([had, *said]))


def drawn(pack: People) -> np.ndarray:
    """Rows of a pack to draw from: those with a known person twice."""
    return np.repeat(np.arange(len(pack)), 1 + (pack.person >= 0))


def may_be_composed(number: int | np.ndarray) -> bool | np.ndarray:
    """Whether an imagined face may be composed, else it is blended: only where it will be shown bare.

    What is hidden should be as guessable from the rest as it is of a true face.
    """
    return number % COMPOSED[0] < COMPOSED[1]


@dataclass(slots=True)
class Recipe:
    """How to make a face that nobody has.

    Attributes:
        one, other: rows of the faces it is made of, in the pack of bare ones.
        share: of the one in it, see `teacher.share_of`.
        rng: source of all further chance.
    """

    one: int
    other: int
    share: float | np.ndarray
    rng: np.random.Generator


def recipe(rows: np.ndarray, count: int, number: int) -> Recipe:
    """How an imagined face is made; the same number is the same face.

    Args:
        rows: of the pack of bare faces, see `drawn`.
        count: of faces in that pack.
        number: from 0 on.
    """
    rng = np.random.default_rng((72, number))
    one, other = int(rows[rng.integers(len(rows))]), int(rng.integers(count))
    share = teacher.share_of(SIDE, rng, composed=0.5 if may_be_composed(number) else 0.0)
    return Recipe(one, other, share, rng)


def imagined_face(pack: People, rows: np.ndarray, number: int, over: Cover | None = None) -> np.ndarray:
    """A face that nobody has, SIDE x SIDE x 3 uint8, of the pack of bare ones.

    Args:
        pack: the bare faces.
        rows, number: as in `recipe`.
        over: puts something before it; only for a face that is not composed.
    """
    how = recipe(rows, len(pack), number)
    image = teacher.blend(pack.images[how.one], pack.images[how.other], how.share)
    if over:
        image = over(image, pack.points[how.one] * how.share + pack.points[how.other] * (1 - how.share))
    return teacher.reshape(image, how.rng)


def made_of(pack: People, numbers: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """What imagined faces of a pack of bare ones are made of: twice rows of it, n int32, and their shares.

    The shares, n float32, are 0..1, on the mean over a face that is composed.
    """
    rows = drawn(pack)
    made = [recipe(rows, len(pack), number) for number in numbers]
    share = np.array([np.mean(how.share) for how in made], np.float32)
    return [
        (np.array([how.one for how in made], np.int32), share),
        (np.array([how.other for how in made], np.int32), 1 - share),
    ]


def prepare(
    data: Path,
    out: Path,
    network: Path,
    helper: Path | None = None,
    *,
    variants: Sequence[int] = (1, 2),
    imagined: int = NEW_FACES,
) -> Path:
    """Packs all faces, one folder a kind; what is packed already is left alone.

    Args:
        data: folder with `faces/`.
        out: folder of the packs.
        network: file of the teacher that is asked, see `teacher.Teacher`; copied to the packs.
        helper: file of another network to ask, see `teacher.Helper`.
        variants: seeds of the painted versions of each bare face.
        imagined: faces that nobody has, about which is asked too.

    Raises:
        ValueError: the network is none that can teach.
        edge.errors.ModelError: a file is missing or damaged.
    """
    teachers = network, helper
    width = _teachers(teachers).dimensions  # refused now, not after all faces are packed
    training: list[tuple[Entry, str]] = []
    held: list[tuple[Entry, str]] = []
    for name in SETS:
        folder = data / "faces" / name
        if not folder.is_dir():
            continue
        known = names_of(folder)
        for entry in entries(folder):
            who = known.get(str(entry.path.relative_to(folder)), "")
            kept = name == "celeba" and int(who) % HELD_OUT == 0
            if entry.embedding is not None:
                (held if kept else training).append((entry, f"{name}/{who}" if who else ""))
    for part, title, prefix in ((training, "", ""), (held, "held-out ", "dev_")):
        numbers = {who: i for i, who in enumerate(sorted({who for _, who in part if who}))}

        def tasks(mode: str, seed: int, every: int = 1, part=part, numbers=numbers) -> list[Task]:
            return [Task(e, mode, seed, i, numbers.get(who, -1)) for i, (e, who) in enumerate(part)][::every]

        _collect(tasks("bare", 0), f"{title}bare faces", out / f"{prefix}bare")
        bare = out / f"{prefix}bare"
        _ask(teachers, width, bare, bare / ANSWERS)
        for seed in variants if part is training else (5,):
            suffix = str(seed) if part is training else ""
            _collect(tasks("painted", seed), f"{title}painted faces {seed}", out / f"{prefix}painted{suffix}")
        if part is training:
            _collect(tasks("occluded", 77, 3), "covered faces", out / "occluded")
    _ask(teachers, width, out / "bare", out / NEW_ANSWERS, imagined=imagined)
    if not (out / TEACHER).exists():
        shutil.copyfile(network, out / TEACHER)
    return out


SHARES = {"bare": 0.36, "painted": 0.56, "occluded": 0.08}
"""How often each kind of pack is drawn from; faces with a known person twice as often as others."""


def painted_over(image: np.ndarray, landmarks: np.ndarray, mode: str, rng: np.random.Generator) -> np.ndarray:
    """As `cover`, on an RGB picture."""
    return cv2.cvtColor(
        cover(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), landmarks, mode, rng), cv2.COLOR_BGR2RGB
    )


@dataclass(slots=True, frozen=True)
class Hardness:
    """What is done to faces while a stage of training lasts.

    A network that is far from fitting its faces learns slower from harder ones: after 500 steps at 64 px its
    cosine to the teacher on people held out was 0.091 with `moved` and `spoilt` 1, and 0.129 with next to
    none. After 13 epochs it fits them better than new ones (0.57 and 0.45), and harder ones are due.

    Attributes:
        moved, spoilt: see `augment`.
        repainted: share of covered faces that get a mask, or what else covers them, that nobody saw before.
        mixed: share of faces that are blended with another one of the batch; the teachers' embeddings of such
            a face are taken to be those between both (mixup, Zhang et al. 2018; a morph of two faces is like
            both, Ferrara et al. 2014, "The magic passport").
        zoom: how many times larger than `MARGIN` has them faces are shown.
        imagined: share of faces that nobody has, see `imagined_face`.
    """

    moved: float = 0.35
    spoilt: float = 0.5
    repainted: float = 0.0
    mixed: float = 0.0
    zoom: float = 1.0
    imagined: float = 0.0


GENTLE = Hardness()
HARD = Hardness(moved=0.7, spoilt=0.8, repainted=0.5, mixed=0.3)
IMAGINED = replace(HARD, mixed=0.0, imagined=0.6)
MORE_IMAGINED = replace(IMAGINED, imagined=0.7)
MOST_IMAGINED = replace(IMAGINED, imagined=0.8)
AS_SEEN = Hardness(repainted=0.5, zoom=1.06, imagined=0.6)
"""Faces much as the device will show them, for the end."""
MORE_AS_SEEN = replace(AS_SEEN, imagined=0.7)


class IdentityBatches(Batches):
    """Augmented faces, and what the network should say of them.

    Args:
        folder: of the packs, see `prepare`.
        hardness: what is done to them.
        told: what the teacher of the data would say of imagined ones, see `train.identity.translated`; needed
            where there are any.
        drawing: see `Batches`.
    """

    def __init__(
        self,
        folder: Path,
        hardness: Hardness = GENTLE,
        *,
        told: np.ndarray | None = None,
        **drawing: int,
    ) -> None:
        super().__init__(**drawing)
        names = sorted(p.parent.name for p in folder.glob("*/ready") if not p.parent.name.startswith("dev"))
        self.hardness = hardness
        if hardness.imagined:
            if told is None:
                raise ValueError("imagined faces need what the teacher of the data would say of them")
            said = answers(folder / NEW_ANSWERS)[:, : teacher.DIMENSIONS]
            self.told = np.hstack([told, said])
            numbers = np.arange(len(said))
            self.numbers = {bare: numbers[may_be_composed(numbers) == bare] for bare in (True, False)}
        self.packs = {name: load(folder / name) for name in names}
        self.kinds = {name: name.rstrip("0123456789") for name in names}
        kinds = list(self.kinds.values())
        shares = np.array([SHARES[kind] / kinds.count(kind) for kind in kinds])
        self.shares = shares / shares.sum()
        self.rows = {name: drawn(pack) for name, pack in self.packs.items()}

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng, how = self.rng(index), self.hardness
        bare = self.packs["bare"]
        images = np.empty((self.batch, self.size, self.size, 3), np.float32)
        targets = np.zeros((self.batch, COLUMNS), np.float32)
        for i, name in enumerate(rng.choice(list(self.packs), self.batch, p=self.shares)):
            pack = self.packs[name]
            row = int(rng.choice(self.rows[name]))
            covered = name != "bare"
            over = partial(painted_over, mode=self.kinds[name], rng=rng) if covered else None
            if rng.random() < how.imagined:
                number = int(rng.choice(self.numbers[not covered]))
                image = imagined_face(bare, self.rows["bare"], number, over)
                targets[i, TARGET] = self.told[number]
                targets[i, ROW] = targets[i, PERSON] = -1
            else:
                image = pack.images[row]
                if over and rng.random() < how.repainted:
                    image = over(bare.images[pack.row[row]], bare.points[pack.row[row]])
                targets[i, TARGET] = pack.embedding[row]
                targets[i, ROW], targets[i, PERSON] = pack.row[row], pack.person[row]
            images[i] = augment(
                image, self.size, rng, margin=MARGIN * how.zoom, moved=how.moved, spoilt=how.spoilt
            )
        return mix(images, targets, rng, how.mixed)


def mix(
    images: np.ndarray, targets: np.ndarray, rng: np.random.Generator, mixed: float
) -> tuple[np.ndarray, np.ndarray]:
    """Blends a share of the faces with another of the batch; their row and person are -1 then."""
    chosen = np.flatnonzero(rng.random(len(images)) < mixed)
    others = (chosen + rng.integers(1, max(len(images), 2), len(chosen))) % len(images)
    share = rng.uniform(0.5, 1, len(chosen)).astype(np.float32)
    before = images[others]
    between = targets[chosen] * share[:, None] + targets[others] * (1 - share[:, None])
    images[chosen] = images[chosen] * share[:, None, None, None] + before * (1 - share[:, None, None, None])
    for part in (FIRST, SECOND):
        targets[chosen, part] = unit_rows(between[:, part])
    targets[chosen, ROW] = targets[chosen, PERSON] = -1
    return images, targets


def taught(image: np.ndarray) -> np.ndarray:
    """A packed face as the teacher wants it: CROP x CROP x 3 uint8."""
    return plain(image, teacher.CROP, margin=MARGIN)


def seen(image: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A packed face as the device would show it, see `edge.tasks.identity.views`: size x size x 3 uint8."""
    return views(plain(image, side_of_crop(size), margin=MARGIN * ZOOM), size)


def dev_batches(pack: People, size: int) -> np.ndarray:
    """Packed faces as the device would show them, 2 views x n x size x size x 3 float32."""
    return np.array([seen(image, size) for image in pack.images], np.float32).swapaxes(0, 1)

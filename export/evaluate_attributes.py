"""Scores the attributes model on faces it never saw: mask state, gender, both together, "is it a face".

Every face goes the device's way: our detector finds it and its landmarks, `edge.geometry.align` cuts it out.
Where the detector finds nothing in a box that people drew, the landmarks are guessed from the box, so that
no face is left out. The crops are cut once; then every precision is shown the same bytes.
"""

from __future__ import annotations

import csv
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from edge.camera import read_image
from edge.geometry import align, iou_matrix
from edge.masks import WORN, paint_mask, random_design
from edge.tasks.attributes import sharpness
from edge.tasks.face import FaceDetector
from edge.tflite import Model, load_manifest, load_model
from edge.types import GENDERS
from export.data import attribute_faces as faces
from export.data import crop_sets
from export.data.scenes import Scene, read_scenes
from export.data.templates import held_out_painting, load_templates, load_textures

SMALLEST = 24  # pixels at the detector's input
SIZES = {"24 to 48": (24.0, 48.0), "48 to 96": (48.0, 96.0), "96 and more": (96.0, np.inf)}
THREE = np.array([0, 1, 1, 2])
"""Mask state to without, worn wrongly, worn correctly."""
AGE_BANDS = {"0-19": (0, 1, 2), "20-39": (3, 4), "40 and older": (5, 6, 7, 8)}
BINS = 15
LOW_SCORE = 0.3
"""A second, lower threshold of the detector for "is it a face": there it has more false alarms to remove."""


@dataclass(slots=True)
class Sample:
    """Faces of one kind, ready to be shown to a model.

    Attributes:
        crops: n x S x S x 3 uint8 RGB.
        mask: n x 4 uint8, 1 for each state that the label allows; all ones where nothing is known.
        gender: n int, index into `GENDERS`, -1 unknown.
        side: n float, side of the face at the detector's input, pixels.
        sharpness: n float, see `edge.tasks.attributes.sharpness`.
        groups: names of further columns to n values: `race`, `age` (index into `crop_sets.AGES`).
    """

    crops: np.ndarray
    mask: np.ndarray
    gender: np.ndarray
    side: np.ndarray
    sharpness: np.ndarray
    groups: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.crops)

    def rows(self, index: np.ndarray) -> Sample:
        """Some of the faces."""
        return Sample(
            self.crops[index],
            self.mask[index],
            self.gender[index],
            self.side[index],
            self.sharpness[index],
            {k: v[index] for k, v in self.groups.items()},
        )


Logits = dict[str, np.ndarray]
"""`mask` n x 4, `gender` n x 2, `face` n x 1, float32."""


class _Collector:
    """Cuts faces out and remembers what is known of them."""

    def __init__(self, size: int) -> None:
        self.size, self.template = size, faces.template()
        self.columns: dict[str, list[Any]] = {}

    def add(self, image: np.ndarray, landmarks: np.ndarray, side: float, **known: Any) -> bool:
        try:
            crop = align(image, landmarks, self.template, self.size)
        except ValueError:
            return False
        row = {
            "crops": cv2.cvtColor(crop, cv2.COLOR_BGR2RGB),
            "side": side,
            "sharpness": sharpness(crop),
            "mask": crop_sets.allowed(),
            "gender": -1,
        }
        for key, value in (row | known).items():
            self.columns.setdefault(key, []).append(value)
        return True

    def sample(self) -> Sample:
        c = {k: np.array(v) for k, v in self.columns.items()}
        if not c:
            empty = np.zeros((0, self.size, self.size, 3), np.uint8)
            none = np.zeros(0)
            return Sample(empty, np.zeros((0, 4), np.uint8), none, none, none)
        own = {k: c.pop(k) for k in ("crops", "mask", "gender", "side", "sharpness")}
        return Sample(**own, groups=c)


def _scale(image: np.ndarray) -> float:
    """Detector's pixels per pixel of the picture."""
    size = crop_sets.detector().size
    return min(size[0] / image.shape[1], size[1] / image.shape[0])


def load_ilc(scenes: Sequence[Scene], size: int) -> Sample:
    """Faces of scenes with boxes drawn by people, from `SMALLEST` pixels up, cut to `size` pixels."""
    out = _Collector(size)
    for scene in tqdm(scenes, desc="ilc", unit="picture", leave=False):
        image = read_image(scene.path)
        for i, landmarks, found in faces.scene_faces(scene, image):
            side = float(np.sqrt(scene.boxes[i, 2] * scene.boxes[i, 3])) * _scale(image)
            if side >= SMALLEST:
                out.add(image, landmarks, side, mask=faces.SCENE_LABELS[scene.labels[i]], found=found)
    return out.sample()


def _maskon(scenes: list[Scene], size: int) -> Sample:
    out = _Collector(size)
    for scene in tqdm(scenes, desc="maskon", unit="picture", leave=False):
        state = faces.maskon_state(scene.path.stem)
        if state is None:
            continue
        image = read_image(scene.path)
        found = list(faces.scene_faces(scene, image))
        points = found[0][1] if found else faces.in_box(scene.boxes[0])
        out.add(image, points, 200.0, mask=crop_sets.allowed(state), found=bool(found))
    return out.sample()


Painter = Callable[[np.ndarray, np.ndarray, Any, np.random.Generator], np.ndarray]


def painter(masks: Path | None) -> tuple[Painter, str]:
    """What paints the scored masks, and a name for it: photographed masks of a folder, else our own designs.

    Args:
        masks: folder with `templates/` and perhaps `textures/`, none of which training has seen.
    """
    if masks is None:
        return (
            lambda image, points, worn, rng: (
                paint_mask(image, points, worn=worn, design=random_design(rng), rng=rng).image
            )
        ), "designs of the trainer's own kinds, other random numbers"
    templates = load_templates(masks / "templates")
    textures = load_textures(masks / "textures") if (masks / "textures").is_dir() else []

    def paint(image: np.ndarray, points: np.ndarray, worn: Any, rng: np.random.Generator) -> np.ndarray:
        return held_out_painting(
            image, points, worn=worn, rng=rng, templates=templates, textures=textures
        ).image

    return paint, f"{len(templates)} photographed masks and {len(textures)} fabrics that training never saw"


def _crops(
    folder: Path, size: int, paint: Painter | None, states: Sequence[str | None], every: int = 1
) -> Sample:
    """A crop set bare (state None) or painted; with more states each face is there once for each."""
    races = {}
    if (folder / "labels.csv").exists():
        with (folder / "labels.csv").open(newline="") as file:
            races = {row["file"]: row.get("race", "") for row in csv.DictReader(file)}
    out = _Collector(size)
    title = folder.name + (" painted" if paint else " bare")
    for entry in tqdm(crop_sets.entries(folder)[::every], desc=title, unit="face", leave=False):
        if entry.gender < 0:
            continue
        original = read_image(entry.path)
        name = str(entry.path.relative_to(folder))
        bare = crop_sets.found_landmarks(original, entry.landmarks)
        for state in states:
            image, points = original, bare
            if paint is not None and state is not None:
                rng = np.random.default_rng((11, WORN.index(state), zlib.crc32(name.encode())))  # type: ignore[arg-type]
                image = paint(original, (entry.landmarks + bare) / 2, state, rng)
                points = crop_sets.found_landmarks(image, entry.landmarks)
            out.add(
                image,
                points,
                100.0,
                mask=crop_sets.allowed(state or "none"),
                gender=entry.gender,
                age=entry.age,
                race=races.get(name, ""),
            )
    return out.sample()


def load_samples(data: Path, size: int, masks: Path | None = None, *, lfw: bool = True) -> dict[str, Sample]:
    """All scored faces, by name of the sample.

    Args:
        data: folder with `scenes/` and `faces/`.
        size: side of the crop, pixels.
        masks: see `painter`.
        lfw: with the faces of lfw, which are many.
    """
    scenes = read_scenes(data / "scenes", ("ilc", "maskon"))
    held = [s for s in scenes if s.is_dev]
    maskon = [s for s in scenes if s.set == "maskon" and faces.maskon_is_dev(s.path.stem)]
    paint, _ = painter(masks)
    dev, wild = data / "faces" / "fairface_dev", data / "faces" / "lfw"
    out = {
        "ilc": load_ilc(held, size),
        "maskon": _maskon(maskon, size),
        "fairface_dev bare": _crops(dev, size, None, [None]),
        "fairface_dev painted": _crops(dev, size, paint, WORN),
    }
    if lfw:
        out["lfw bare"] = _crops(wild, size, None, [None])
        out["lfw painted"] = _crops(wild, size, paint, ["correct"], every=4)
    return out


@dataclass(slots=True)
class Finds:
    """What the detector reports at a low threshold: crops, scores, and whether each is a labelled face.

    Attributes:
        true: 1 a labelled face, 0 no face (in an empty room, or where nothing is labelled and YuNet sees
            nothing either), -1 not counted.
        room: whether the picture is an empty room.
        pictures, rooms: how many there were of each.
    """

    sample: Sample
    score: np.ndarray
    true: np.ndarray
    room: np.ndarray
    pictures: int
    rooms: int


def load_finds(data: Path, teachers: Path | None, size: int) -> Finds:
    """Detections in the held-out scenes and rooms, from a threshold of `LOW_SCORE` up."""
    held = [s for s in read_scenes(data / "scenes", ("ilc", "empty_rooms")) if s.is_dev]
    finder = FaceDetector(
        crop_sets.detector().model, load_manifest().models["face"], score_threshold=LOW_SCORE
    )
    out = _Collector(size)
    for scene in tqdm(held, desc="detections", unit="picture", leave=False):
        image = read_image(scene.path)
        for face in finder.detect(image):
            box = np.array(face.box)
            true = 0
            if len(scene.boxes):
                overlap = float(iou_matrix(box[None], scene.boxes).max())
                near = overlap > 0.05 or teachers is None or faces.yunet_sees(image, box, teachers)
                true = 1 if overlap >= faces.MATCH_IOU else -1 if near else 0
            out.add(
                image,
                face.landmarks,
                float(np.sqrt(box[2] * box[3])) * _scale(image),
                score=face.score,
                true=true,
                room=not len(scene.boxes),
            )
    sample = out.sample()
    g = sample.groups
    rooms = sum(not len(s.boxes) for s in held)
    return Finds(sample, g["score"], g["true"], g["room"], len(held) - rooms, rooms)


# ------------------------------------------------------------------------------------------------- models


def both_ways(run: Callable[[np.ndarray], Logits], crops: np.ndarray) -> Logits:
    """What a model says of faces and of their mirror images, the mean of both, as of photos on the device."""
    one, other = run(crops), run(np.ascontiguousarray(crops[:, :, ::-1]))
    return {head: (one[head] + other[head]) / 2 for head in one}


def logits_of(model: Any, crops: np.ndarray) -> Logits:
    """Runs a `.tflite` model (`edge.tflite.Model`) on crops, see `both_ways`."""
    names = {4: "mask", 2: "gender", 1: "face"}

    def run(views: np.ndarray) -> Logits:
        rows: dict[str, list[np.ndarray]] = {name: [] for name in names.values()}
        for view in views:
            for spec, value in zip(model.outputs, model.run(view[None]), strict=True):
                rows[names[spec.shape[-1]]].append(value[0])
        return {k: np.array(v, np.float32).reshape(len(views), -1) for k, v in rows.items()}

    return both_ways(run, crops)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis."""
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probability of yes."""
    return 1 / (1 + np.exp(-np.clip(logits, -60, 60)))


# ------------------------------------------------------------------------------------------------ figures


def one_state(mask: np.ndarray) -> np.ndarray:
    """Index of the state where the label allows only one, else -1; n int."""
    return np.where(mask.sum(axis=1) == 1, mask.argmax(axis=1), -1)


def three_states(mask: np.ndarray) -> np.ndarray:
    """0 without, 1 worn wrongly, 2 worn correctly, -1 unknown; n int."""
    lows = np.where(mask == 1, THREE, 9).min(axis=1)
    highs = np.where(mask == 1, THREE, -1).max(axis=1)
    return np.where(lows == highs, lows, -1)


def share(right: np.ndarray) -> dict[str, Any]:
    """Share of true values, with n and the half width of its 95 % interval (normal approximation)."""
    n = len(right)
    value = float(np.mean(right)) if n else float("nan")
    return {
        "value": round(value, 4),
        "n": n,
        "ci95": round(1.96 * float(np.sqrt(max(value * (1 - value), 0) / max(n, 1))), 4),
    }


def balanced(right: np.ndarray, wanted: np.ndarray) -> dict[str, Any]:
    """Mean over the classes of the share of right answers, with n."""
    values = [float(np.mean(right[wanted == k])) for k in np.unique(wanted)]
    return {"value": round(float(np.mean(values)), 4), "n": len(wanted)}


def calibration_error(top: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error (Guo et al. 2017, eq. 3) over equally wide bins of the top probability."""
    place = np.minimum((top * bins).astype(int), bins - 1)
    return float(
        sum(abs(right[place == b].mean() - top[place == b].mean()) * (place == b).mean() for b in set(place))
    )


def figures(samples: dict[str, Sample], logits: dict[str, Logits]) -> dict[str, Any]:
    """The headline figures of one model: name to {"value", "n", ...}; those on lfw only if it is there."""
    out: dict[str, Any] = {}
    ilc, mask = samples["ilc"], logits["ilc"]["mask"].argmax(axis=1)
    wanted = three_states(ilc.mask)
    out["ilc 3 states"] = share(THREE[mask] == wanted)
    out["ilc 3 states balanced"] = balanced(THREE[mask] == wanted, wanted)
    out["ilc worn or not"] = share((mask > 0) == (wanted > 0))
    for name, (low, high) in SIZES.items():
        rows = (ilc.side >= low) & (ilc.side < high)
        if rows.any():
            out[f"ilc 3 states, {name} px"] = share((THREE[mask] == wanted)[rows])
    for name in ("maskon", "fairface_dev painted"):
        wanted = one_state(samples[name].mask)
        out[f"{name} 4 states"] = share(logits[name]["mask"].argmax(axis=1) == wanted)
    bare = logits["fairface_dev bare"]["mask"].argmax(axis=1)
    out["fairface_dev bare, taken for bare"] = share(bare == 0)
    for name in ("fairface_dev bare", "fairface_dev painted", "lfw bare", "lfw painted"):
        if name not in samples:
            continue
        right = logits[name]["gender"].argmax(axis=1) == samples[name].gender
        out[f"{name} gender"] = share(right)
        out[f"{name} gender balanced"] = balanced(right, samples[name].gender)
    name = "fairface_dev painted"
    right = (logits[name]["gender"].argmax(axis=1) == samples[name].gender) & (
        logits[name]["mask"].argmax(axis=1) == one_state(samples[name].mask)
    )
    out[f"{name} 8 classes"] = share(right)
    both = np.concatenate(
        [
            right,
            (logits["fairface_dev bare"]["gender"].argmax(axis=1) == samples["fairface_dev bare"].gender)
            & (bare == 0),
        ]
    )
    out["fairface_dev bare and painted 8 classes"] = share(both)
    return out


def groups(sample: Sample, logits: Logits) -> list[dict[str, Any]]:
    """Gender accuracy for each race, gender and age band of a crop set: rows with `race`, `gender`, `age`."""
    right = logits["gender"].argmax(axis=1) == sample.gender
    rows = []
    for race in sorted(set(sample.groups["race"])):
        for g, gender in enumerate(GENDERS):
            chosen = (sample.groups["race"] == race) & (sample.gender == g)
            row = {"race": race, "gender": gender, "all": share(right[chosen])}
            for band, ages in AGE_BANDS.items():
                row[band] = share(right[chosen & np.isin(sample.groups["age"], ages)])
            rows.append(row)
    return rows


def not_a_face(finds: Finds, logits: Logits, threshold: float, score: float) -> dict[str, Any]:
    """False alarms gone and faces lost by rejecting below `threshold`, at one threshold of the detector."""
    shown = finds.score >= score
    kept = sigmoid(logits["face"][:, 0]) >= threshold
    out: dict[str, Any] = {"detector_threshold": score}
    for name, rows in (
        ("rooms", shown & finds.room),
        ("scenes", shown & ~finds.room & (finds.true == 0)),
    ):
        out[f"alarms_{name}"], out[f"alarms_left_{name}"] = int(rows.sum()), int((rows & kept).sum())
    true = shown & (finds.true == 1)
    out["faces"], out["faces_lost"] = int(true.sum()), int((true & ~kept).sum())
    out["n_rooms"], out["n_scenes"] = finds.rooms, finds.pictures
    return out


def answered(top: np.ndarray, right: np.ndarray, threshold: float) -> dict[str, Any]:
    """Share of faces that get an answer at a threshold, and how often it is right then."""
    given = top >= threshold
    return {"coverage": share(given), "right_when_answered": share(right[given])}


def reliability(samples: dict[str, Sample], logits: dict[str, Logits]) -> dict[str, Any]:
    """Per output and kind of face: expected calibration error and the points of the reliability plot."""
    out: dict[str, Any] = {}
    for title, (head, names) in {
        "mask, real faces": ("mask", ("ilc", "maskon")),
        "mask, painted": ("mask", ("fairface_dev painted",)),
        "gender, bare": ("gender", ("fairface_dev bare",)),
        "gender, painted": ("gender", ("fairface_dev painted",)),
        "gender, lfw": ("gender", ("lfw bare",)),
    }.items():
        p = softmax(np.concatenate([logits[n][head] for n in names]))
        if head == "mask":
            allowed = np.concatenate([samples[n].mask for n in names])
            known = allowed.sum(axis=1) < 4
            right = allowed[np.arange(len(p)), p.argmax(axis=1)] == 1
        else:
            gender = np.concatenate([samples[n].gender for n in names])
            known, right = gender >= 0, p.argmax(axis=1) == gender
        top, right = p.max(axis=1)[known], right[known]
        place = np.minimum((top * BINS).astype(int), BINS - 1)
        out[title] = {
            "ece": round(calibration_error(top, right), 4),
            "n": len(top),
            "points": [
                [
                    round(float(top[place == b].mean()), 4),
                    round(float(right[place == b].mean()), 4),
                    int((place == b).sum()),
                ]
                for b in sorted(set(place.tolist()))
            ],
        }
    return out


def confusion(wanted: np.ndarray, got: np.ndarray, classes: int) -> np.ndarray:
    """Counts, classes x classes: rows what it is, columns what was said."""
    out = np.zeros((classes, classes), int)
    np.add.at(out, (wanted, got), 1)
    return out


# ------------------------------------------------------------------------------------------------- others


def aizoo_worn(path: Path, data: Path) -> dict[str, Any]:
    """AIZOO's answer, mask or none, on the same boxes of ilc: it sees each enlarged, and need not find it."""
    from export.evaluate_face import aizoo_raw

    look = aizoo_raw(Model(path))
    right = []
    for scene in [s for s in read_scenes(data / "scenes", ("ilc",)) if s.is_dev]:
        image = read_image(scene.path)
        for box, label in zip(scene.boxes, scene.labels, strict=True):
            side = float(np.sqrt(box[2] * box[3]))
            if side * _scale(image) < SMALLEST:
                continue
            k = 260 / (2.2 * float(max(box[2:])))
            shift = 130 - k * (box[:2] + box[2:] / 2)
            view = cv2.warpAffine(image, np.array([[k, 0, shift[0]], [0, k, shift[1]]]), (260, 260))
            boxes, scores = look(view)
            there = np.concatenate([box[:2] * k + shift, box[2:] * k])
            overlap = iou_matrix(there[None], boxes)[0]
            best = int((overlap * (scores.max(axis=1) + 1e-3)).argmax())
            right.append((scores[best, 0] > scores[best, 1]) == (label != "without_mask"))
    return share(np.array(right))


def majority(samples: dict[str, Sample]) -> dict[str, Any]:
    """What always saying the commonest answer would reach, as a yardstick."""
    wanted = three_states(samples["ilc"].mask)
    out = {"ilc 3 states": share(wanted == np.bincount(wanted).argmax())}
    for name in ("fairface_dev bare", "lfw bare"):
        gender = samples[name].gender
        out[f"{name} gender"] = share(gender == np.bincount(gender).argmax())
    return out


def evaluate(
    data: Path,
    models: Path,
    *,
    teachers: Path | None = None,
    masks: Path | None = None,
    plain: Path | None = None,
    loaded: tuple[dict[str, Sample], Finds] | None = None,
    precisions: Iterable[str] = (),
    report: Path | None = None,
) -> dict[str, Any]:
    """Scores every precision of the shipped attributes model.

    Args:
        data: folder with `scenes/` and `faces/`.
        models: folder with the manifest.
        teachers: folder with AIZOO's detector and YuNet, for comparison and for unlabelled faces.
        masks: folder with photographed masks, see `painter`.
        plain: run folder of the plain two-class model, see `export.train.attributes.train_plain`.
        loaded: samples and finds, where they are at hand already.
        precisions: to score; empty = all there are.
        report: Markdown file to write; JSON and pictures go beside it.
    """
    entry = load_manifest(models).models["attributes"]
    size = int(entry.input["width"])
    samples, finds = loaded or (load_samples(data, size, masks), load_finds(data, teachers, size))
    result: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "painted_with": painter(masks)[1],
        "smallest_px": SMALLEST,
        "thresholds": {name: entry.threshold(name) for name in entry.thresholds},
        "precisions": {},
    }
    chosen = list(precisions) or list(entry.files)
    everything: dict[str, dict[str, Logits]] = {}
    for precision in tqdm(chosen, desc="precisions", unit="file"):
        model = load_model("attributes", precision=precision, models_dir=models, threads=1)
        everything[precision] = {k: logits_of(model, s.crops) for k, s in samples.items()}
        result["precisions"][precision] = figures(samples, everything[precision])
    first = entry.default if entry.default in everything else chosen[0]
    result["default"] = first
    logits = everything[first]
    model = load_model("attributes", precision=first, models_dir=models, threads=1)
    found = logits_of(model, finds.sample.crops)
    detector_threshold = load_manifest(models).models["face"].threshold("score")
    result["not_a_face"] = [
        not_a_face(finds, found, entry.threshold("face"), score) for score in (detector_threshold, LOW_SCORE)
    ]
    result["groups"] = groups(samples["fairface_dev bare"], logits["fairface_dev bare"])
    result["groups_painted"] = groups(samples["fairface_dev painted"], logits["fairface_dev painted"])
    result["reliability"] = reliability(samples, logits)
    result["answered"] = {}
    for name, head in (
        ("ilc", "mask"),
        ("maskon", "mask"),
        ("fairface_dev painted", "mask"),
        ("fairface_dev bare", "gender"),
        ("fairface_dev painted", "gender"),
        ("lfw bare", "gender"),
    ):
        p = softmax(logits[name][head])
        sample, best = samples[name], p.argmax(axis=1)
        right = sample.mask[np.arange(len(p)), best] == 1 if head == "mask" else best == sample.gender
        result["answered"][f"{name} {head}"] = answered(p.max(axis=1), right, entry.threshold(head))
    result["yardsticks"] = {"commonest answer": majority(samples)}
    if teachers and (teachers / "aizoo_face_mask_detection.tflite").exists():
        aizoo = aizoo_worn(teachers / "aizoo_face_mask_detection.tflite", data)
        result["yardsticks"]["AIZOO 260 (mask or none)"] = {"ilc worn or not": aizoo}
    if plain and (plain / "averaged.npz").exists():
        result["yardsticks"]["plain two-class model of the same size"] = plain_figures(plain, samples, size)
    result["confusion"] = {
        "ilc": confusion(
            three_states(samples["ilc"].mask), THREE[logits["ilc"]["mask"].argmax(axis=1)], 3
        ).tolist(),
        "maskon": confusion(
            one_state(samples["maskon"].mask), logits["maskon"]["mask"].argmax(axis=1), 4
        ).tolist(),
        "fairface_dev painted": confusion(
            one_state(samples["fairface_dev painted"].mask),
            logits["fairface_dev painted"]["mask"].argmax(axis=1),
            4,
        ).tolist(),
    }
    for name in ("fairface_dev bare", "fairface_dev painted", "lfw bare"):
        result["confusion"][f"{name} gender"] = confusion(
            samples[name].gender, logits[name]["gender"].argmax(axis=1), 2
        ).tolist()
    if report:
        from export import attributes_report

        attributes_report.write(result, report)
    return result


def plain_figures(run: Path, samples: dict[str, Sample], size: int) -> dict[str, Any]:
    """The plain model on ilc: worn or not, and three states, of which it can only ever say two."""
    from export.train.attributes import load_network

    network = load_network(run, size)
    ilc = samples["ilc"]
    said = network.predict(ilc.crops.astype(np.float32), verbose=0)["mask"].argmax(axis=1)
    wanted = three_states(ilc.mask)
    return {
        "ilc worn or not": share((said > 0) == (wanted > 0)),
        "ilc 3 states": share(THREE[said] == wanted),
    }

"""The sets of face crops: where each face lies, what is known of it, and what our detector sees there."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge.tasks.face import FaceDetector
from edge.tflite import load_model
from edge.types import GENDERS, MASK_STATES

RACES = (
    "Black", "East Asian", "Indian", "Latino_Hispanic", "Middle Eastern", "Southeast Asian", "White",
)  # fmt: skip
AGES = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70")


def allowed(*states: str) -> np.ndarray:
    """Row of `Faces.mask` for a label that allows these states; none given means unknown."""
    return np.array([not states or s in states for s in MASK_STATES], np.uint8)


@dataclass(slots=True, frozen=True)
class Entry:
    """A face crop with its labels, before it is read."""

    path: Path
    landmarks: np.ndarray
    side: float
    gender: int
    age: int
    race: int
    mask: np.ndarray
    embedding: np.ndarray | None


def _age_of(years: int) -> int:
    return int(np.searchsorted([3, 10, 20, 30, 40, 50, 60, 70], years, side="right"))


def _labels(folder: Path, names: list[str]) -> tuple[list[int], list[int], list[int]]:
    """Gender, age and race index of each file, -1 where the set does not tell."""
    unknown = [-1] * len(names)
    kind = folder.name
    if kind in ("fairface", "fairface_dev"):
        with (folder / "labels.csv").open(newline="") as file:
            rows = {row["file"]: row for row in csv.DictReader(file)}
        return (
            [GENDERS.index(rows[n]["gender"].lower()) for n in names],
            [AGES.index(rows[n]["age"]) for n in names],
            [RACES.index(r) if (r := rows[n].get("race", "")) in RACES else -1 for n in names],
        )
    if kind == "utkface":  # AGE_GENDER_RACE_DATE, gender 0 male 1 female
        parts = [Path(n).name.split("_") for n in names]
        return (
            [1 - int(p[1]) if p[1] in "01" else -1 for p in parts],
            [_age_of(int(p[0])) for p in parts],
            unknown,
        )
    if kind == "genderface":
        return [1 if Path(n).parts[0] == "man" else 0 for n in names], unknown, unknown
    if kind == "lfw":
        with (folder / "gender.csv").open(newline="") as file:
            found = {row["file"]: row["gender"].lower() for row in csv.DictReader(file)}
        return [GENDERS.index(found[n]) if n in found else -1 for n in names], unknown, unknown
    return unknown, unknown, unknown


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; those of zeros stay."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def embeddings_of(folder: Path) -> np.ndarray | None:
    """The teacher's embeddings of a set, n x 128 float32 of length 1, in the order of landmarks.csv."""
    path = folder / "teacher_embeddings.npz"
    if not path.exists():
        return None
    with np.load(path) as file:
        e = file["embeddings"].astype(np.float32) * float(file["scale"])
    return unit_rows(e)


def entries(folder: Path) -> list[Entry]:
    """All faces of one crop set with what is known of them."""
    with (folder / "landmarks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [row["file"] for row in rows]
    genders, ages, races = _labels(folder, names)
    embeddings = embeddings_of(folder)
    out = []
    for i, row in enumerate(rows):
        values = [float(v) for v in list(row.values())[5:15]]
        state = allowed("correct") if names[i].startswith("with_mask") else allowed("none")
        out.append(
            Entry(
                folder / names[i],
                np.array(values, np.float32).reshape(5, 2),
                float(row["source_side_px"] or 0),
                genders[i],
                ages[i],
                races[i],
                state,
                None if embeddings is None else embeddings[i],
            )
        )
    return out


_detector: FaceDetector | None = None


def detector() -> FaceDetector:
    """Our own face detector on one thread, one a process; a low threshold, since the faces are known."""
    global _detector
    if _detector is None:
        cv2.setNumThreads(1)
        _detector = FaceDetector(load_model("face", threads=1), score_threshold=0.2)
    return _detector


def found_landmarks(image: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The detector's landmarks of the face whose landmarks lie near `expected`, else `expected`."""
    gap = max(float(np.hypot(*(expected[:2].mean(axis=0) - expected[3:].mean(axis=0)))), 2.0)
    best, distance = expected, 0.6 * gap
    for face in detector().detect(image):
        d = float(np.linalg.norm(face.landmarks - expected, axis=1).mean())
        if d < distance:
            best, distance = face.landmarks, d
    return best

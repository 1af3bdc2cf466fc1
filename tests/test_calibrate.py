"""False and true accepts on one's own people, from embeddings whose cosines are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks import calibrate
from benchmarks.calibrate import Faces
from edge.errors import UsageError
from edge.tasks.identity import Embedding
from edge.types import Face
from edge.unlock.policy import Limits

LANDMARKS = np.array([[20, 20], [44, 20], [32, 32], [22, 44], [42, 44]], np.float32)


def people(count: int, each: int, spread: float, dimensions: int = 64, seed: int = 0) -> Faces:
    """Faces around a centre for each person; masked views are spread as much again."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((count, dimensions))
    person = np.repeat(np.arange(count), each)
    views = {}
    for kind, times in (("bare", 1.0), ("masked", 2.0)):
        found = centres[person] + times * spread * rng.standard_normal((len(person), dimensions))
        views[kind] = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
    return Faces(person, views, [f"p{i}" for i in range(count)], [])


def test_pairs_are_counted_once() -> None:
    rows = {
        row["pairs"]: row
        for row in calibrate.calibrate(people(10, 3, 0.3), [Limits(1e-3, {"bare": 0.5, "masked": 0.6})])
    }
    assert {kind: (row["n_same"], row["n_others"]) for kind, row in rows.items()} == {
        "bare - bare": (30, 405),
        "bare - masked": (60, 810),
        "template - masked": (60, 810),
        "template - bare": (60, 810),
    }
    assert rows["bare - masked"]["threshold"] == 0.5
    assert rows["template - masked"]["threshold"] == rows["template - bare"]["threshold"] == 0.6


def test_rates_are_those_of_the_scores() -> None:
    faces = people(60, 4, 0.6)
    limit = Limits(1e-3, {"bare": 0.3, "masked": 0.3})
    (row, *_) = calibrate.calibrate(faces, [limit])
    false = true = 0
    for i in range(len(faces.person)):
        for j in range(i):
            over = float(faces.views["bare"][i] @ faces.views["bare"][j]) > 0.3
            if faces.person[i] == faces.person[j]:
                true += over
            else:
                false += over
    assert (row["false_accepts"], row["true_accepts"]) == (false, true)
    assert row["own_threshold"] is not None
    assert (faces.views["bare"] @ faces.views["bare"].T).max() > row["own_threshold"]


def test_too_few_pairs_set_no_threshold() -> None:
    rows = calibrate.calibrate(people(5, 2, 0.1), [Limits(1e-4, {"bare": 0.9, "masked": 0.9})])
    assert [row["own_threshold"] for row in rows] == [None] * 4
    text = calibrate.table(rows)
    assert "too few pairs" in text
    assert "below 7.5000% (40)" in text  # three in the number of pairs


class Detector:
    """One face in each picture, none in black ones."""

    def detect(self, image: np.ndarray) -> tuple[Face, ...]:
        return (Face((8, 8, 48, 48), 0.9, LANDMARKS),) if image.any() else ()


class Embedder:
    def embed(self, image: np.ndarray, landmarks: np.ndarray) -> Embedding:
        vector = image.reshape(-1, 3).mean(axis=0).astype(np.float32)
        return Embedding(vector / np.linalg.norm(vector), 0.9)


def read(folder: Path) -> Faces:
    reader: Any = calibrate.read_people
    found: Faces = reader(folder, Detector(), Embedder())
    return found


def test_a_folder_for_each_person(tmp_path: Path) -> None:
    for name, colour in (("ada", (200, 20, 20)), ("grace", (20, 200, 20))):
        (tmp_path / name).mkdir()
        for number in range(2):
            cv2.imwrite(str(tmp_path / name / f"{number}.png"), np.full((64, 64, 3), colour, np.uint8))
    cv2.imwrite(str(tmp_path / "ada" / "none.png"), np.zeros((64, 64, 3), np.uint8))
    (tmp_path / "grace" / "broken.jpg").write_bytes(b"no picture")
    faces = read(tmp_path)
    assert faces.person.tolist() == [0, 0, 1, 1]
    assert [Path(path).name for path in faces.left_out] == ["none.png", "broken.jpg"]
    assert not np.allclose(faces.views["bare"], faces.views["masked"])


def test_folders_that_tell_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no two people"):
        read(tmp_path / "not there")
    (tmp_path / "ada").mkdir()
    cv2.imwrite(str(tmp_path / "ada" / "1.png"), np.full((64, 64, 3), 99, np.uint8))
    with pytest.raises(UsageError, match="no two people"):
        read(tmp_path)

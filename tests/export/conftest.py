"""A small copy of the data's layout, with the one face that is free to use: the built-in clip's."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from export.train.averaging import build_optimizer


@pytest.fixture(scope="session", autouse=True)
def eager() -> None:
    """A few steps of a tiny network take far less time than the graph of one step does to trace."""
    tf.config.run_functions_eagerly(True)


@pytest.fixture
def traced_step() -> Iterator[Callable[[keras.Model, np.ndarray, np.ndarray], None]]:
    """One step of a trainer on a batch, traced as outside of tests: its network learns."""

    def step(trainer: keras.Model, x: np.ndarray, y: np.ndarray) -> None:
        trainer.compile(optimizer=build_optimizer(rate=1e-3, decay=0.01, total=4, warmup=1))
        before = trainer.network.get_weights()
        assert np.isfinite(trainer.train_on_batch(x, y)).all()
        assert any((a != b).any() for a, b in zip(before, trainer.network.get_weights(), strict=True))

    tf.config.run_functions_eagerly(False)
    yield step
    tf.config.run_functions_eagerly(True)


def write_faces(folder: Path, crops: list[tuple[str, np.ndarray, np.ndarray]], size: int) -> None:
    """A crop set with landmarks.csv in the way of the real ones: names with commas, boxes, points."""
    rows = []
    for name, image, points in crops:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), image)
        rows.append([name, 20, 20, 80, 90, *points.ravel().round(1).tolist(), 0.9, 200])
    points5 = [f"{p}_{axis}" for p in ("re", "le", "nose", "rm", "lm") for axis in "xy"]
    with (folder / "landmarks.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "x", "y", "w", "h", *points5, "score", "source_side_px"])
        writer.writerows(rows)
    rng = np.random.default_rng(0)
    np.savez(
        folder / "teacher_embeddings.npz",
        embeddings=rng.integers(-127, 128, (len(rows), 128)).astype(np.int8),
        scale=np.float32(0.01),
    )


def stems(suffixes: list[str], every: int) -> list[str]:
    """Names of four pictures to train on and four held out, the suffixes taking turns in both."""
    found: dict[bool, list[str]] = {True: [], False: []}
    for number in range(400):
        for held, names in found.items():
            stem = f"{number:05}{suffixes[len(names) % len(suffixes)]}"
            if len(names) < 4 and (int(hashlib.md5(stem.encode()).hexdigest(), 16) % every == 0) == held:
                names.append(stem)
                break
    return found[False] + found[True]


@pytest.fixture(scope="session")
def data(demo_clip: Path, demo_truth: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small copy of the data's layout, with the one face that is free to use: the built-in clip's."""
    root = tmp_path_factory.mktemp("data")
    clip = cv2.VideoCapture(str(demo_clip))
    frames, crops = [], []
    for number in range(30):
        image = clip.read()[1]
        truth = demo_truth["frames"][number][0]
        frames.append((image, truth["box"]))
        x, y, w, h = truth["box"]
        k = 128 / (1.5 * h)
        matrix = np.array([[k, 0, 64 - k * (x + w / 2)], [0, k, 64 - k * (y + h / 2)]])
        points = np.array(truth["landmarks"]) @ matrix[:, :2].T + matrix[:, 2]
        crops.append((cv2.warpAffine(image, matrix, (128, 128)), points.astype(np.float32)))
    sets = {
        "fairface": [f"a,{i}.png" for i in range(4)],
        "fairface_dev": [f"{i}.png" for i in range(4)],
        "utkface": [f"{20 + i}_{i % 2}_0_2017.png" for i in range(4)],
        "genderface": ["man/1.png", "woman/2.png"],
        "lfw": [f"{who}/{who}_{i:04}.png" for who in ("Ada_L", "Bob_B") for i in (1, 2)],
        "celeba": [f"{i}.png" for i in range(1, 7)],
        "pins": ["pins_x/1.png"],
        "masks": ["with_mask/1.png", "without_mask/2.png"],
    }
    at = 0
    for name, files in sets.items():
        write_faces(root / "faces" / name, [(f, *crops[(at + i) % 30]) for i, f in enumerate(files)], 128)
        at += len(files)
        if name.startswith("fairface"):
            ages = ["20-29", "0-2", "more than 70", "30-39"]
            rows = [
                {
                    "file": f,
                    "age": ages[i],
                    "gender": ["Male", "Female"][i % 2],
                    "race": ["Black", "Indian"][i % 2],
                }
                for i, f in enumerate(files)
            ]
            with (root / "faces" / name / "labels.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, ["file", "age", "gender", "race"])
                writer.writeheader()
                writer.writerows(rows)
    genders = {"Ada_L": "Female", "Bob_B": "Male"}
    (root / "faces" / "lfw" / "gender.csv").write_text(
        "file,gender\n" + "".join(f"{f},{genders[f[:5]]}\n" for f in sets["lfw"])
    )
    (root / "faces" / "lfw" / "pairs.txt").write_text(
        "2\t1\nAda_L\t1\t2\nAda_L\t2\tBob_B\t1\nBob_B\t1\t2\nBob_B\t2\tAda_L\t1\n"
    )
    people = [5, 5, 6, 7, 7, 14]  # those that 7 divides are held out
    (root / "faces" / "celeba" / "identity.csv").write_text(
        "file,identity\n" + "".join(f"{i + 1}.png,{who}\n" for i, who in enumerate(people))
    )
    for folder, sub in (("fairface", "masks"),):
        (root / "faces" / sub / "teacher_embeddings.npz").unlink()
        assert (root / "faces" / folder / "teacher_embeddings.npz").exists()
    labels = ["with_mask", "without_mask", "with_incorrect_mask"]
    for name in ("ilc", "kaggle853", "maskon", "celeba_wild", "street", "empty_rooms"):
        (root / "scenes" / name / "images").mkdir(parents=True)
        (root / "scenes" / name / "annotations").mkdir()
        suffixes = ["_Mask", "_Mask_Chin", "_Mask_Mouth_Chin", "_Mask_Nose_Mouth"]
        names = stems(suffixes if name == "maskon" else [""], 2 if name == "empty_rooms" else 7)
        for i, stem in enumerate(names):
            image, (x, y, w, h) = frames[i]
            objects = ""
            if name == "empty_rooms":
                image = np.random.default_rng(i).integers(0, 255, (120, 160, 3)).astype(np.uint8)
            else:
                objects = (
                    f"<object><name>{labels[i % 3]}</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin>"
                    f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
                )
            cv2.imwrite(str(root / "scenes" / name / "images" / f"{stem}.jpg"), image)
            (root / "scenes" / name / "annotations" / f"{stem}.xml").write_text(
                f"<annotation>{objects}</annotation>"
            )
    return root

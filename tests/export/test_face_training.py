"""Targets, losses and batches of the face detector."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest

from edge.tasks.face import cells
from export.data import face_batches
from export.data.scenes import CROP_SETS, Scene, read_scenes
from export.models import face as net
from export.models.blocks import fold_normalisation
from export.train.face import FaceTrainer, TrainConfig, load_network, train

SIZE = 128


def points(box: np.ndarray) -> np.ndarray:
    parts = np.array([(0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8)])
    return (box[:2] + parts * (box[2:] - box[:2])).astype(np.float32)


def test_no_face_no_target():
    rows = face_batches.targets(np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), (SIZE, SIZE))
    assert rows.shape == (len(cells((SIZE, SIZE))[0]), 16)
    assert not rows.any()


@pytest.mark.parametrize("side", [6, 12, 40, 100])
def test_every_face_has_a_cell_that_decodes_to_it(side):
    box = np.array([[20, 15, 20 + side, 15 + side]], np.float32)
    rows = face_batches.targets(box, points(box[0])[None], (SIZE, SIZE))
    chosen = np.flatnonzero(rows[:, 0] == 1)
    assert len(chosen)
    centres, strides = cells((SIZE, SIZE))
    for i in chosen:
        middle = centres[i] + strides[i] * rows[i, 1:3]
        half = strides[i] * np.exp(rows[i, 3:5]) / 2
        assert np.concatenate([middle - half, middle + half]) == pytest.approx(box[0], abs=1e-3)
        decoded = centres[i] + strides[i] * rows[i, 5:15].reshape(5, 2)
        assert decoded == pytest.approx(points(box[0]), abs=1e-3)
        assert rows[i, 15] == 1


def test_tiny_faces_are_ignored_and_unknown_landmarks_weigh_nothing():
    tiny = np.array([[20, 20, 24, 24]], np.float32)
    rows = face_batches.targets(tiny, points(tiny[0])[None], (SIZE, SIZE))
    assert not (rows[:, 0] == 1).any()
    box = np.array([[20, 20, 60, 60]], np.float32)
    rows = face_batches.targets(box, np.full((1, 5, 2), np.nan, np.float32), (SIZE, SIZE))
    assert (rows[:, 0] == 1).any()
    assert np.isfinite(rows).all()
    assert not rows[:, 15].any()


def test_the_loss_of_a_perfect_answer_is_zero_and_of_a_wrong_one_is_not():
    box = np.array([[30, 20, 80, 90]], np.float32)
    truth = face_batches.targets(box, points(box[0])[None], (SIZE, SIZE))[None]
    trainer = FaceTrainer(net.build(None, net.FaceConfig(8, (8, 8, 8, 8), (0, 1, 1, 1), 8)), SIZE)
    answer = {
        "scores": np.where(truth[..., :1] > 0, 12.0, -12.0).astype(np.float32),
        "boxes": truth[..., 1:5],
        "landmarks": truth[..., 5:15],
    }

    def loss(**changed: np.ndarray) -> float:
        tensors = {k: keras.ops.convert_to_tensor(v) for k, v in (answer | changed).items()}
        return float(trainer.compute_loss(y=keras.ops.convert_to_tensor(truth), y_pred=tensors))

    assert loss() < 1e-6
    assert loss(scores=-answer["scores"]) > 1
    assert loss(boxes=answer["boxes"] + 0.5) > 0.1
    assert loss(landmarks=answer["landmarks"] + 0.5) > 0.1


def test_folding_the_normalisation_changes_nothing():
    shape = net.FaceConfig(8, (8, 8, 8, 8), (1, 1, 1, 1), 8)
    keras.utils.set_random_seed(1)
    plain = net.build((64, 64), shape, batch=1)
    folded = net.build((64, 64), shape, batch=1, folded=True)
    folded.set_weights(fold_normalisation(plain.get_weights()))
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.float32)
    for a, b in zip(plain(pixels).values(), folded(pixels).values(), strict=True):
        assert np.allclose(a, b, atol=1e-4)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A tiny data folder in the shape of the real one: grey discs as faces on noise."""
    rng = np.random.default_rng(0)
    landmarks: dict[str, list] = {}
    for name in ("ilc", "kaggle853", "maskon", "celeba_wild", "street", "empty_rooms"):
        (tmp_path / "scenes" / name / "images").mkdir(parents=True)
        (tmp_path / "scenes" / name / "annotations").mkdir()
        for i in range(6):
            image = rng.integers(0, 80, (120, 160, 3)).astype(np.uint8)
            objects = ""
            if name != "empty_rooms":
                cv2.circle(image, (60, 60), 25, (190, 200, 210), -1)
                objects = (
                    "<object><name>without_mask</name><bndbox><xmin>35</xmin><ymin>35</ymin>"
                    "<xmax>85</xmax><ymax>85</ymax></bndbox></object>"
                )
                landmarks[f"{name}/{i}"] = [points(np.array([35, 35, 85, 85])).tolist()]
            cv2.imwrite(str(tmp_path / "scenes" / name / "images" / f"{i}.jpg"), image)
            (tmp_path / "scenes" / name / "annotations" / f"{i}.xml").write_text(
                f"<annotation>{objects}</annotation>"
            )
    for name in CROP_SETS:
        (tmp_path / "faces" / name).mkdir(parents=True)
        cv2.imwrite(
            str(tmp_path / "faces" / name / "a,b.png"), rng.integers(0, 255, (64, 64, 3)).astype(np.uint8)
        )
    box = {"box": [12, 12, 40, 40], "landmarks": points(np.array([12, 12, 52, 52])).tolist()}
    table = {"scenes": landmarks, "crops": {f"{name}/a,b.png": box for name in CROP_SETS}}
    (tmp_path / "landmarks.json").write_text(json.dumps(table))
    return tmp_path


def test_held_out_pictures_follow_the_rule_and_only_there():
    import hashlib

    names = [f"{i}" for i in range(300)]
    by_rule = {n for n in names if int(hashlib.md5(n.encode()).hexdigest(), 16) % 7 == 0}
    held = {n for n in names if Scene(Path(f"{n}.jpg"), "ilc", np.zeros((0, 4)), []).is_dev}
    assert held == by_rule
    assert 20 < len(held) < 70
    assert not any(Scene(Path(f"{n}.jpg"), "maskon", np.zeros((0, 4)), []).is_dev for n in names)


def test_batches_are_reproducible_and_their_boxes_lie_inside(data: Path):
    scenes = read_scenes(data / "scenes")
    crops = face_batches.load_crops(data / "faces", data / "landmarks.json")
    assert len(crops) == 4

    def make() -> face_batches.FaceBatches:
        return face_batches.FaceBatches(scenes, crops, size=SIZE, batch=4, steps=2, seed=3)

    first, again = make()[1], make()[1]
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert first[0].shape == (4, SIZE, SIZE, 3)
    assert 0 <= first[0].min() < first[0].max() <= 255
    batches, rng = make(), np.random.default_rng(0)
    seen = 0
    for _ in range(60):
        image, boxes, landmarks = batches.sample(rng)
        assert image.shape == (SIZE, SIZE, 3)
        assert len(boxes) == len(landmarks)
        assert (boxes >= 0).all()
        assert (boxes <= SIZE).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        seen += len(boxes)
    assert seen > 20


TINY = net.FaceConfig(8, (8, 8, 8, 8), (0, 1, 1, 1), 8)


def test_a_step_traces_as_a_graph(data: Path, traced_step):
    crops = face_batches.load_crops(data / "faces", data / "landmarks.json")
    batches = face_batches.FaceBatches(
        read_scenes(data / "scenes"), crops, size=SIZE, batch=2, steps=1, seed=3
    )
    traced_step(FaceTrainer(net.build((SIZE, SIZE), TINY), SIZE), *batches[0])


def test_training_goes_on_where_it_stopped(data: Path):
    def stage(epochs: int, **options) -> TrainConfig:
        return TrainConfig(size=64, batch=2, steps=5, epochs=epochs, warmup=2, **options)

    run = data / "face"
    train(data, run, [stage(1)], TINY)
    assert len((run / "stage1" / "history.jsonl").read_text().splitlines()) == 1
    train(data, run, [stage(2), stage(1, seed=2)], TINY)
    lines = [json.loads(line) for line in (run / "stage1" / "history.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]
    assert (run / "stage2" / "history.jsonl").exists()
    assert load_network(run, (64, 64), batch=1).count_params() > 0


def test_missing_landmarks_and_missing_weights_say_what_to_run(data: Path, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="prepare"):
        train(data, tmp_path / "elsewhere" / "face")
    with pytest.raises(FileNotFoundError, match="train"):
        load_network(tmp_path / "nothing")

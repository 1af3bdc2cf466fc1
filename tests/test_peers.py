"""Our models against others: decoders, turns, accuracy, and the whole run."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks import accuracy, detectors, intervals, peers
from benchmarks.accuracy import Answers, Labelled
from benchmarks.detectors import Found
from benchmarks.machine import Spent
from edge.errors import SinkError, UsageError
from edge.tflite import Model
from export.scoring import Detections
from export.scoring import average_precision as reference_ap
from tests import tiny_models

pytestmark = pytest.mark.once


def write_model(path: Path, size: int, outputs: dict[str, np.ndarray]) -> Model:
    path.write_bytes(tiny_models.constant_model((1, size, size, 3), outputs, dtype="float32"))
    return Model(path, threads=1)


# ------------------------------------------------------------------------------------------------ decoders


def test_blazeface_anchors_are_those_of_mediapipe() -> None:
    """Short range: 16 x 16 cells with two, 8 x 8 with six (three layers share stride 16); full: 48 x 48."""
    short = detectors.blazeface_anchors(128, (8, 16, 16, 16), 2)
    assert short.shape == (896, 2)
    assert short[:3].tolist() == [[0.03125, 0.03125], [0.03125, 0.03125], [0.09375, 0.03125]]
    assert short[511].tolist() == [0.96875, 0.96875]
    assert short[512:518].tolist() == [[0.0625, 0.0625]] * 6
    full = detectors.blazeface_anchors(192, (4,), 1)
    assert full.shape == (2304, 2)
    assert np.allclose(full[[0, 1, 48, -1]] * 48, [[0.5, 0.5], [1.5, 0.5], [0.5, 1.5], [47.5, 47.5]])


@pytest.mark.parametrize(("size", "count", "anchor"), [(128, 896, 512 + 6 * 9), (192, 2304, 48 * 3 + 5)])
def test_a_blazeface_box_comes_back_in_pixels_of_the_picture(
    tmp_path: Path, size: int, count: int, anchor: int
) -> None:
    raw, logits = np.zeros((1, count, 16)), np.full((1, count, 1), -1000.0)
    raw[0, anchor, :4] = (3.0, -2.0, 20.0, 30.0)  # offset of the centre and size, input pixels
    logits[0, anchor] = 2.0
    model = write_model(tmp_path / "m.tflite", size, {"boxes": raw, "scores": logits})
    # Twice as wide as high: above and below is a quarter of the input each.
    found = detectors.blazeface(model)(np.zeros((size, 2 * size, 3), np.uint8))
    anchors = detectors.blazeface_anchors(size, *(((8, 16, 16, 16), 2) if size == 128 else ((4,), 1)))
    x, y = anchors[anchor] * size + (3.0, -2.0)
    expected = np.array([x - 10, y - 15 - size / 4, 20, 30]) * 2
    assert np.allclose(found.boxes, [expected], atol=1e-3)
    assert found.scores == pytest.approx([1 / (1 + np.exp(-2.0))])


def test_only_the_picture_reaches_blazeface_in_its_range(tmp_path: Path) -> None:
    """Pixels are -1..1, RGB, and the border is black."""
    seen: list[np.ndarray] = []

    class Spy(Model):
        def run(self, *arrays: np.ndarray) -> list[np.ndarray]:
            seen.append(arrays[0].copy())
            return super().run(*arrays)

    write_model(tmp_path / "m.tflite", 128, {"b": np.zeros((1, 896, 16)), "s": np.full((1, 896, 1), -9.0)})
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[:] = (255, 0, 51)  # BGR
    found = detectors.blazeface(Spy(tmp_path / "m.tflite", threads=1))(picture)
    assert found.boxes.shape == (0, 4)
    assert seen[0][0, 64, 64].tolist() == pytest.approx([-0.6, -1.0, 1.0])
    assert seen[0][0, 31, 64].tolist() == seen[0][0, 96, 64].tolist() == [-1.0, -1.0, -1.0]


def test_overlapping_boxes_are_merged_by_score() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 10, 10], [50, 50, 10, 10], [4, 0, 10, 10]], np.float32)
    found = detectors.merged(boxes, np.array([0.9, 0.6, 0.5, 0.3]))
    assert found.scores.tolist() == [0.9, 0.5]
    mean = (0.9 * 0 + 0.6 * 1 + 0.3 * 4) / 1.8
    assert np.allclose(found.boxes, [[mean, 0, 10, 10], [50, 50, 10, 10]])
    assert len(detectors.merged(np.zeros((0, 4)), np.zeros(0)).boxes) == 0
    assert len(detectors.merged(np.zeros((2, 4)), np.array([0.9, 0.8])).boxes) == 2  # without area


def test_another_model_is_no_blazeface(tmp_path: Path) -> None:
    other = write_model(tmp_path / "a", 64, {"b": np.zeros((1, 9, 16)), "s": np.zeros((1, 9, 1))})
    with pytest.raises(ValueError, match="128 or 192"):
        detectors.blazeface(other)
    fewer = write_model(tmp_path / "b", 128, {"b": np.zeros((1, 9, 16)), "s": np.zeros((1, 9, 1))})
    with pytest.raises(ValueError, match="anchors"):
        detectors.blazeface(fewer)


def test_an_aizoo_box_and_its_mask(tmp_path: Path) -> None:
    anchors = detectors.aizoo_anchors()
    assert anchors.shape == (5972, 4)
    assert np.allclose(anchors[0], [0.5 / 33, 0.5 / 33, 0.04, 0.04])
    boxes, scores = np.zeros((1, 5972, 4)), np.zeros((1, 5972, 2))
    boxes[0, 3000] = (1.0, -1.0, 2.0, 0.0)
    scores[0, 3000] = (0.9, 0.1)  # with a mask
    scores[0, 5000] = (0.2, 0.7)  # without
    model = write_model(tmp_path / "m.tflite", 260, {"boxes": boxes, "scores": scores})
    found = detectors.aizoo(model)(np.zeros((100, 200, 3), np.uint8))
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])
    assert found.worn is not None
    assert found.worn.tolist() == [True, False]
    x, y, w, h = anchors[3000]
    width = w * np.exp(0.2 * 2.0)
    expected = [(x + 0.1 * w - width / 2) * 200, (y - 0.1 * h - h / 2) * 100, width * 200, h * 100]
    assert np.allclose(found.boxes[0], expected, atol=1e-3)


@pytest.mark.parametrize("name", peers.FILES)
def test_others_find_the_face_of_the_clip(name: str, demo_clip: Path, demo_truth: dict[str, Any]) -> None:
    """The real files, where MASKEDGE_PEERS names their folder: a decoder that is off by a little misses."""
    folder = os.environ.get("MASKEDGE_PEERS")
    if not folder or not (Path(folder) / peers.FILES[name]).is_file():
        pytest.skip("set MASKEDGE_PEERS to the folder with the model files of others")
    number, face = next(
        (number, faces[0])
        for number, faces in enumerate(demo_truth["frames"])
        if len(faces) == 1 and faces[0]["mask"] == "none" and not faces[0]["partial"]
    )
    capture = cv2.VideoCapture(str(demo_clip))
    frame = [capture.read()[1] for _ in range(number + 1)][-1]
    found = peers.load_detector(name, Path(folder), threads=1)(frame)
    assert len(found.boxes) == 1
    overlap = accuracy.iou_matrix(found.boxes, np.array([face["box"]]))
    # Each draws its box by its own rule: with or without forehead and chin.
    assert overlap[0, 0] > 0.5
    if found.worn is not None:
        assert found.worn.tolist() == [False]


# --------------------------------------------------------------------------------------------------- turns


def row(name: str, log: list[tuple[str, tuple[int, ...]]], fail_at: int = -1) -> peers.Row:
    def run(items: Sequence[int]) -> peers.Turn:
        if len(log) == fail_at:
            raise KeyboardInterrupt
        log.append((name, tuple(items)))
        return peers.Turn([1.0] * len(items), [0.0] * len(items), Spent(wall=1.0))

    return peers.Row(name, "face", "int8", "runtime", 1, 10, "picture", run)


def test_rows_take_turns_on_the_same_pictures_there_and_back() -> None:
    log: list[tuple[str, tuple[int, ...]]] = []
    rows = [row(name, log) for name in "ABC"]
    assert peers.take_turns(rows, 7, rounds=3)
    assert "".join(name for name, _ in log) == "ABCCBAABC"
    first, second = (0, 1, 2, 3, 4), (5, 6, 0, 1, 2)
    assert [items for _, items in log[:6]] == [first] * 3 + [second] * 3
    assert all(len(one.rounds) == 3 and len(one.at_s) == 15 for one in rows)
    assert rows[0].spent.wall == 3.0


def test_a_round_that_was_interrupted_is_dropped_from_all_rows() -> None:
    log: list[tuple[str, tuple[int, ...]]] = []
    rows = [row(name, log, fail_at=4) for name in "ABC"]
    assert not peers.take_turns(rows, 5, rounds=9)
    assert [len(one.rounds) for one in rows] == [1, 1, 1]


def test_the_first_of_a_turn_is_not_counted() -> None:
    done: list[int] = []
    turn = peers.timed(done.append, [4, 5, 6])
    assert done == [4, 4, 5, 6]
    assert len(turn.times_ms) == len(turn.begun) == 3
    assert turn.spent.wall > 0


def test_a_result_row_has_numpys_percentiles() -> None:
    one = row("A", [])
    one.rounds = [np.array([1.0, 2.0, 3.0]), np.array([4.0, 10.0])]
    one.at_s = [0.0, 1, 2, 3, 4]
    found = one.result()
    assert found["p90"] == round(float(np.percentile([1, 2, 3, 4, 10], 90)), 4)
    assert found["p50"] == 3.0
    assert found["p50_ci"][0] <= 3.0 <= found["p50_ci"][1]
    assert found["samples_ms"] == [1.0, 2.0, 3.0, 4.0, 10.0]


# ------------------------------------------------------------------------------------------------ accuracy


def labelled(rng: np.random.Generator, pictures: int = 30) -> tuple[Labelled, list[Found]]:
    """Random scenes and detections: hits that are off a little, false alarms, faces too small to count."""
    boxes, found, worn = [], [], []
    for _ in range(pictures):
        n = int(rng.integers(0, 4))
        sides = rng.uniform(8, 90, n)
        truth = np.column_stack([rng.uniform(0, 230, (n, 2)), sides, sides]).reshape(-1, 4)
        hits = truth[rng.uniform(size=n) < 0.8] * rng.uniform(0.9, 1.1, (1, 4))
        alarms = np.column_stack([rng.uniform(0, 230, (2, 2)), rng.uniform(10, 60, (2, 2))])
        every = np.concatenate([hits, alarms])
        scores = np.concatenate([rng.uniform(0.3, 1, len(hits)), rng.uniform(0, 0.7, 2)])
        boxes.append(truth)
        worn.append(rng.uniform(size=n) < 0.5)
        found.append(Found(every, scores, rng.uniform(size=len(every)) < 0.5))
    return Labelled("random", [np.zeros((320, 320, 3), np.uint8)] * pictures, boxes, worn), found


def test_average_precision_is_that_of_the_scorer() -> None:
    for seed in range(5):
        data, found = labelled(np.random.default_rng(seed))
        expected = reference_ap(
            data.boxes,
            [Detections(one.boxes, one.scores) for one in found],
            iou=accuracy.IOU,
            side=(accuracy.SMALLEST_FACE, np.inf),
            scales=[1.0] * len(found),
        )
        matched = accuracy.matches(data, found)
        assert accuracy.average_precision(matched) == pytest.approx(expected.ap, abs=1e-12)
        assert sum(one.faces for one in matched) == expected.faces


def test_worn_or_not_counts_faces_that_were_not_found_as_wrong() -> None:
    boxes = np.array([[0, 0, 40, 40], [100, 0, 40, 40], [200, 0, 40, 40], [0, 200, 10, 10]], np.float32)
    picture = np.zeros((320, 320, 3), np.uint8)
    data = Labelled("x", [picture], [boxes], [np.array([True, True, False, True])])
    found = Found(boxes[[0, 1]], np.array([0.9, 0.8]), np.array([True, False]))
    told = accuracy.worn_right(data, [found])
    assert told[0].tolist() == [1, 0, -1]  # the last is too small to count
    facts = accuracy.Accuracies(data, {"a": Answers([], told)}).worn("a")
    assert facts is not None
    assert (facts["n"], facts["found"], facts["of_found"]) == (3, 2, 0.5)
    assert facts["value"] == pytest.approx(1 / 3, abs=1e-4)


def test_differences_are_of_the_same_pictures() -> None:
    data, found = labelled(np.random.default_rng(1), 60)
    rng = np.random.default_rng(2)
    worse = [
        Found(one.boxes, one.scores * (rng.uniform(size=len(one.scores)) < 0.7), one.worn) for one in found
    ]
    same = accuracy.matches(data, found)
    both = accuracy.Accuracies(
        data,
        {
            "a": Answers(same, accuracy.worn_right(data, found)),
            "twin": Answers(same, accuracy.worn_right(data, found)),
            "b": Answers(accuracy.matches(data, worse), None),
        },
    )
    assert both.ap_ahead("a", "twin") == intervals.Interval(0.0, 0.0, 0.0)
    ahead = both.ap_ahead("a", "b")
    assert 0 < ahead.low < ahead.value < ahead.high
    assert peers.verdict(ahead, 0.0) == "ahead"
    assert peers.verdict(both.ap_ahead("b", "a"), 0.0) == "behind"
    assert peers.verdict(both.ap_ahead("a", "twin"), 0.0) == "level"
    assert both.worn_ahead("a", "b") is None


def write_scene(folder: Path, name: str, label: str | None) -> None:
    for part in ("images", "annotations"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / "images" / f"{name}.jpg"), np.zeros((50, 60, 3), np.uint8))
    face = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>31</xmax><ymax>42</ymax></bndbox>"
    objects = f"<object><name>{label}</name>{face}</object>" if label else ""
    (folder / "annotations" / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")


def test_a_labelled_folder(tmp_path: Path) -> None:
    pytest.importorskip("tqdm", reason="labelled folders are read as the training does, with tqdm")
    for name, label in (("a", "with_mask"), ("b", "without_mask"), ("c", "with_incorrect_mask"), ("d", None)):
        write_scene(tmp_path / "mine", name, label)
    data = accuracy.read_labelled(tmp_path / "mine")
    assert data.name == "mine"
    assert [one.tolist() for one in data.worn] == [[True], [False], [True], []]
    assert data.boxes[0].tolist() == [[1, 2, 30, 40]]
    assert data.scale(0) == 320 / 60


def test_pictures_that_were_trained_on_prove_nothing(tmp_path: Path) -> None:
    pytest.importorskip("tqdm", reason="labelled folders are read as the training does, with tqdm")
    write_scene(tmp_path / "kaggle853", "a", "with_mask")
    with pytest.raises(UsageError, match="trained on all of kaggle853"):
        accuracy.read_labelled(tmp_path / "kaggle853")
    for number in range(40):
        write_scene(tmp_path / "ilc", f"picture{number}", "with_mask")
    data = accuracy.read_labelled(tmp_path / "ilc")
    assert data.name == "held-out ilc"
    assert 0 < len(data.pictures) < 40


def test_folders_that_are_no_scenes(tmp_path: Path) -> None:
    pytest.importorskip("tqdm", reason="labelled folders are read as the training does, with tqdm")
    with pytest.raises(UsageError, match="images/ and annotations/"):
        accuracy.read_labelled(tmp_path)
    write_scene(tmp_path / "empty", "a", None)
    with pytest.raises(UsageError, match="no faces"):
        accuracy.read_labelled(tmp_path / "empty")
    (tmp_path / "empty" / "annotations" / "a.xml").write_text("<annotation>")
    with pytest.raises(UsageError, match="cannot read"):
        accuracy.read_labelled(tmp_path / "empty")


# --------------------------------------------------------------------------------------------- the command


def run(*options: str) -> int:
    parser = argparse.ArgumentParser()
    peers.add_arguments(parser)
    return peers.main(parser.parse_args([*options]))


def test_a_run_on_the_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two of the others are there: one that works, one whose file is damaged."""
    folder = tmp_path / "peers"
    folder.mkdir()
    outputs = {"boxes": np.zeros((1, 896, 16)), "scores": np.full((1, 896, 1), -9.0)}
    write_model(folder / "face_detection_short_range.tflite", 128, outputs)
    (folder / "aizoo_face_mask_detection.tflite").write_bytes(b"TFL3 is what it is not")
    out = tmp_path / "peers.json"
    options = ["--peers", str(folder), "--rounds", "2", "--pictures", "4", "--threads", "1", "--no-keras"]
    before = cv2.getNumThreads()
    assert run(*options, "--json", str(out)) == 0
    assert cv2.getNumThreads() == before
    result = json.loads(out.read_text())
    assert (result["version"], result["kind"]) == (1, "peers")
    assert result["pictures"]["count"] == 4
    rows = {one["model"]: one for one in result["rows"]}
    ours = {peers.OURS_FACE, peers.OURS_BOTH, peers.OURS_ATTRIBUTES}
    assert set(rows) == ours | {"BlazeFace short range"}
    assert all(one["runs"] == 8 and one["rounds"] == 2 for one in rows.values())
    assert rows[peers.OURS_BOTH]["p50"] > rows[peers.OURS_FACE]["min"] > 0
    skipped = {one["model"]: one["reason"] for one in result["skipped"]}
    assert set(skipped) == {
        "YuNet 320 px",
        "YuNet 640 px",
        "BlazeFace full range",
        "AIZOO 260 px",
        peers.KERAS,
    }
    assert skipped[peers.KERAS] == "--no-keras"
    [comparison] = result["comparisons"]
    assert (comparison["peer"], comparison["ours"]) == ("BlazeFace short range", peers.OURS_FACE)
    assert comparison["more_accurate"] is None
    shown = capsys.readouterr().out
    assert "accuracy not compared" in shown
    assert "ahead in both" not in shown


@pytest.mark.slow
@pytest.mark.data
def test_accuracy_stands_beside_latency(tmp_path: Path, scenes: Path) -> None:
    pytest.importorskip("tqdm", reason="labelled folders are read as the training does, with tqdm")
    out = tmp_path / "peers.json"
    options = ["--scenes", str(scenes / "ilc"), "--rounds", "1", "--threads", "1", "--no-keras"]
    assert run(*options, "--json", str(out)) == 0
    rows = {one["model"]: one for one in json.loads(out.read_text())["rows"]}
    found = rows[peers.OURS_FACE]["accuracy"]
    assert found["n"] == 315
    assert found["value"] == pytest.approx(0.932, abs=0.01)
    assert found["ci"][0] < found["value"] < found["ci"][1]
    assert rows[peers.OURS_BOTH]["worn_or_not"]["n"] == 259
    assert rows[peers.OURS_FACE]["worn_or_not"] is None


@pytest.mark.slow
def test_the_keras_network_runs_in_its_own_process() -> None:
    pytest.importorskip("tensorflow")
    worker = peers.KerasWorker([np.zeros((50, 40, 3), np.uint8)] * 2, threads=1)
    try:
        turn = worker.run([0, 1])
        assert len(turn.times_ms) == 2
        assert min(turn.times_ms) > 0
        assert "TensorFlow" in worker.runtime
    finally:
        worker.close()


@pytest.mark.slow
def test_the_keras_network_is_the_one_that_was_published() -> None:
    """SmallerVGGNet at 96 px: 3 x 3 convolutions of 32, 64, 64, 128, 128, and 1024 units."""
    pytest.importorskip("keras")
    model = peers.gender_cnn()
    shapes = [tuple(w.shape) for w in model.trainable_weights if len(w.shape) > 1]
    assert shapes == [
        (3, 3, 3, 32),
        (3, 3, 32, 64),
        (3, 3, 64, 64),
        (3, 3, 64, 128),
        (3, 3, 128, 128),
        (8 * 8 * 128, 1024),
        (1024, 2),
    ]


@pytest.mark.parametrize("text", ["0", "x", "", "1,-1", "999"])
def test_bad_threads(text: str) -> None:
    with pytest.raises(UsageError, match="bad --threads"):
        peers.thread_counts(text)


def test_threads() -> None:
    assert peers.thread_counts("1,1,2") == [1, 2]
    assert peers.thread_counts("all")[0] >= 1


def test_bad_folders_are_said_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "measure", None)
    for options in (["--peers", str(tmp_path / "no")], ["--scenes", str(tmp_path / "no")]):
        with pytest.raises(UsageError, match="is no folder"):
            run(*options)
    with pytest.raises(UsageError, match="is a folder"):
        run("--json", str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="cannot write"):
        run("--json", str(tmp_path / "file" / "x.json"))

"""The shipped models in the whole loop, on the built-in clip: what a user sees with `make run`."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.states import MATCH, Segment, run_demo, segments, table
from edge.camera import open_source
from edge.geometry import iou
from edge.tflite import load_manifest
from edge.types import Analysis, Face

PRECISIONS = list(load_manifest().entry("face").files)


@pytest.fixture(scope="module")
def analyses() -> list[Analysis]:
    return run_demo()


def in_full_view(truth: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [face for face in truth if not face["partial"]]


def test_no_frame_is_lost(analyses, demo_truth):
    assert [a.frame for a in analyses] == list(range(len(demo_truth["frames"])))


def test_faces_are_found_in_nearly_every_frame_that_has_one(analyses, demo_truth):
    with_face = complete = 0
    missed = []
    for analysis, truth in zip(analyses, demo_truth["frames"], strict=True):
        wanted = in_full_view(truth)
        if not wanted:
            continue
        with_face += 1
        hit = all(any(iou(face.box, w["box"]) >= MATCH for face in analysis.faces) for w in wanted)
        complete += hit
        if not hit:
            missed.append(analysis.frame)
    assert with_face > 250
    assert complete >= 0.95 * with_face, f"not all faces found in frames {missed}"


def test_every_way_of_wearing_a_mask_is_found(analyses, demo_truth):
    seen: dict[str, list[bool]] = {}
    for analysis, truth in zip(analyses, demo_truth["frames"], strict=True):
        for wanted in in_full_view(truth):
            found = any(iou(face.box, wanted["box"]) >= MATCH for face in analysis.faces)
            seen.setdefault(wanted["mask"], []).append(found)
    assert set(seen) == {"none", "chin", "nose_out", "correct"}
    assert {state: np.mean(hits) >= 0.95 for state, hits in seen.items()} == dict.fromkeys(seen, True)


def test_nothing_is_found_where_nobody_is(analyses, demo_truth):
    alarms = sum(
        len(analysis.faces)
        for analysis, truth in zip(analyses, demo_truth["frames"], strict=True)
        if not truth
    )
    empty = sum(not truth for truth in demo_truth["frames"])
    assert empty >= 25
    assert alarms <= 0.02 * empty


def test_ids_stay_with_their_person(analyses, demo_truth):
    ids: dict[int, set[int]] = {}
    for analysis, truth in zip(analyses, demo_truth["frames"], strict=True):
        for wanted in in_full_view(truth):
            for face in analysis.faces:
                if iou(face.box, wanted["box"]) >= MATCH:
                    ids.setdefault(wanted["id"], set()).add(face.track)
    assert len(ids) == 4
    assert all(len(tracks) == 1 for tracks in ids.values()), ids
    assert len(set.union(*ids.values())) == 4, "two people share an id"


def test_landmarks_lie_where_the_face_has_them(analyses, demo_truth):
    errors = []
    for analysis, truth in zip(analyses, demo_truth["frames"], strict=True):
        for wanted in in_full_view(truth):
            if wanted["mask"] != "none" or wanted.get("changing"):
                continue
            points = np.array(wanted["landmarks"])
            for face in analysis.faces:
                if iou(face.box, wanted["box"]) >= MATCH:
                    eyes = np.linalg.norm(points[0] - points[1])
                    errors.append(np.linalg.norm(face.landmarks - points, axis=1).mean() / eyes)
    assert len(errors) > 50
    # The clip's own landmarks were set by hand and differ from a detector's by about 0.05.
    assert np.mean(errors) < 0.15


@pytest.fixture(scope="module", params=PRECISIONS)
def others(request: pytest.FixtureRequest) -> list[Analysis]:
    """What each precision finds."""
    return run_demo(request.param)


def test_every_precision_finds_the_same_faces(analyses, others):
    counts = [len(a.faces) == len(b.faces) for a, b in zip(analyses, others, strict=True)]
    assert np.mean(counts) > 0.9
    for a, b in zip(analyses, others, strict=True):
        for face in a.faces:
            if face.score > 0.7:
                assert any(iou(face.box, other.box) > 0.8 for other in b.faces)


def test_the_state_is_right_in_every_segment_and_changes_once(others, demo_truth):
    found = segments(others, demo_truth["frames"])
    assert len(found) == 17
    assert {one.state for one in found} == {"none", "chin", "nose_out", "correct"}
    people: set[int] = set()
    for one in found:
        # Of fewer than 20 frames one is more than 5 %.
        assert one.right >= min(0.95 * one.frames, one.frames - 1), f"\n{table(found)}"
        assert one.changes <= (one.person in people), f"\n{table(found)}"
        people.add(one.person)


def test_gender_is_told_and_stays(analyses, demo_truth):
    shown: dict[int | None, list[str | None]] = {}
    for analysis, truth in zip(analyses, demo_truth["frames"], strict=True):
        for wanted in in_full_view(truth):
            for face in analysis.faces:
                if iou(face.box, wanted["box"]) >= MATCH and face.gender:
                    shown.setdefault(face.track, []).append(face.gender["label"])
    assert len(shown) == 4
    for labels in shown.values():
        # Of this one photo the model is not sure; then it has to say nothing rather than something wrong.
        assert labels.count("male") <= 0.1 * len(labels)
        assert labels.count("female") >= 0.35 * len(labels)
        told = [label for label in labels if label]
        assert sum(a != b for a, b in itertools.pairwise(told)) <= 2


def clip_of(*states: str | None) -> list[Analysis]:
    """A face at one place, shown in that state in each frame; None where it is not found."""
    return [
        Analysis(
            None,
            number,
            number / 25,
            64,
            48,
            (Face((9, 9, 20, 20), 0.9, np.zeros((5, 2), np.float32), 1, {"state": state}),) if state else (),
        )
        for number, state in enumerate(states)
    ]


def test_segments_are_compared_frame_by_frame():
    def there(mask: str, changing: bool = False, partial: bool = False) -> list[dict[str, Any]]:
        fixed = {"id": 4, "box": [9, 9, 20, 20]}
        return [fixed | {"mask": mask, "changing": changing, "partial": partial}]

    truth = [
        there("none", partial=True),
        *[there("none")] * 4,
        there("none", changing=True),
        there("chin", changing=True),
        *[there("chin")] * 4,
    ]
    shown = ["chin", "none", "none", None, "none", "chin", "none", "none", "chin", "chin", "none"]
    assert segments(clip_of(*shown), truth) == [
        Segment(4, "none", 1, 4, 4, 3, 0, 0, {3: "-"}),
        # From frame 3 on: none, chin, none, chin, none.
        Segment(4, "chin", 7, 10, 4, 2, 2, 4, {7: "none", 10: "none"}),
    ]
    assert segments([], []) == []
    assert "0 of 0 frames" in table([])


def maskedge(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge", *args], capture_output=True, text=True, timeout=120, **options
    )


def test_the_command_line_runs_the_clip_and_writes_results(tmp_path: Path):
    result = maskedge(
        "run",
        "--source",
        "demo",
        "--frames",
        "100",
        "--sink",
        f"jsonl:{tmp_path / 'faces.jsonl'}",
        "--sink",
        f"video:{tmp_path / 'out.mp4'}",
        "--sink",
        "summary",
    )
    assert result.returncode == 0, result.stderr
    assert "100 frames" in result.stdout
    lines = [json.loads(line) for line in (tmp_path / "faces.jsonl").read_text().splitlines()]
    assert len(lines) == 100
    assert lines[50]["version"] == 1
    assert (lines[50]["width"], lines[50]["height"]) == (640, 480)
    face = lines[50]["faces"][0]
    assert set(face) == {"box", "score", "track", "landmarks", "mask", "gender"}
    assert face["mask"]["state"] == "correct"
    assert len(face["landmarks"]) == 5
    assert set(lines[50]["timing_ms"]) == {"capture", "face", "attributes", "total", "frame_age"}
    with open_source(str(tmp_path / "out.mp4")) as clip:
        assert sum(1 for _ in clip.frames()) == 100


def test_gender_is_nowhere_when_it_is_not_asked_for():
    result = maskedge("run", "--source", "demo", "--frames", "60", "--tasks", "mask", "--sink", "jsonl:-")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("nose_out") >= 60
    assert not any(word in result.stdout for word in ("gender", "male", "woman"))


def test_a_damaged_model_is_refused_in_one_line(tmp_path: Path):
    source = load_manifest().folder
    for path in source.iterdir():
        data = path.read_bytes()
        (tmp_path / path.name).write_bytes(data[:-1000] if path.name == "face.int8.tflite" else data)
    result = maskedge("run", "--source", "demo", "--models", str(tmp_path))
    assert result.returncode == 3
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.stderr


def test_photos_with_boxes_come_out(tmp_path: Path, demo_clip: Path):
    import cv2

    clip = cv2.VideoCapture(str(demo_clip))
    image = clip.read()[1]
    clip.release()
    cv2.imwrite(str(tmp_path / "a.png"), image)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    result = maskedge(
        "image", "--json", str(tmp_path / "a.png"), str(tmp_path / "broken.jpg"), "--out", str(tmp_path / "o")
    )
    assert result.returncode == 1
    first, second = (json.loads(line) for line in result.stdout.splitlines())
    assert first["image"].endswith("a.png")
    assert len(first["faces"]) == 1
    assert first["faces"][0]["track"] is None
    assert first["faces"][0]["mask"]["state"] == "none"
    assert "error" in second
    assert (tmp_path / "o" / "a.jpg").exists()

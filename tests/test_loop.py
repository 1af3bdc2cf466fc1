"""The benchmark of the camera loop: its scenes, what it counts as overhead, its result, and how it ends."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks import loop
from benchmarks.loop import Machinery, Probe, compose, make_scenes
from benchmarks.machine import Guard
from benchmarks.resultfile import PARTS, read_result
from edge.camera.video import VideoFile
from edge.cli import main as cli
from edge.config import Config
from edge.errors import InputError, ModelError, SinkError, UsageError
from edge.pipeline import Pipeline
from edge.tasks.face import FaceDetector, Prepared
from edge.types import Face
from tests import tiny_models
from tests.test_tflite import write_models

pytestmark = pytest.mark.clock

DOCS = Path(__file__).parents[1] / "docs" / "benchmarks.md"
# The older runtime is slow with int8 on some processors.
SHORT = ("--precision", "float32", "--seconds", "0.2")


def run(*options: str) -> int:
    parser = argparse.ArgumentParser()
    loop.add_arguments(parser)
    return loop.main(parser.parse_args([*options]))


@pytest.fixture(scope="module")
def machinery() -> Machinery:
    return Machinery.load(Config(precision="float32"), threads=1)


@pytest.fixture(scope="module")
def scenes(machinery: Machinery, tmp_path_factory: pytest.TempPathFactory) -> dict[int | None, loop.Scene]:
    folder = tmp_path_factory.mktemp("scenes")
    made = make_scenes("demo", [None, 0, 1, 4, 10], machinery.detector, folder)
    return {scene.faces: scene for scene in made}


class Slow(FaceDetector):
    """Takes so much longer, beside its model, for every frame."""

    delay_s = 0.0

    def detect_prepared(self, picture: Prepared) -> tuple[Face, ...]:
        faces = super().detect_prepared(picture)
        time.sleep(self.delay_s)
        return faces


def slow(machinery: Machinery, delay_s: float) -> Machinery:
    detector = Slow(machinery.bare_face)
    detector.delay_s = delay_s
    return Machinery(
        detector,
        machinery.estimator,
        machinery.seen,
        machinery.config,
        machinery.bare_face,
        machinery.bare_attributes,
    )


def probe_of(machinery: Machinery, scene: loop.Scene, seconds: float = 0.2) -> Probe:
    machinery.seen.clear()
    probe = Probe(machinery, seconds, 0.0, Guard())
    source = VideoFile(scene.path, loop=True)
    Pipeline(source, machinery.detector, [probe], labeller=machinery.voter()).run()
    return probe


# ------------------------------------------------------------------------------------------------- scenes


@pytest.mark.parametrize("wanted", [0, 1, 4, 10])
def test_scenes_show_as_many_faces_as_they_say(
    scenes: dict[int | None, loop.Scene], machinery: Machinery, wanted: int
) -> None:
    with VideoFile(scenes[wanted].path) as clip:
        found = [len(machinery.detector.detect(frame.image)) for frame in clip.frames()]
    assert len(found) == loop.LENGTH
    assert np.mean(np.array(found) == wanted) > 0.9


def test_the_clip_as_it_is_is_not_copied(scenes: dict[int | None, loop.Scene]) -> None:
    assert scenes[None].path == str(loop.DEMO_CLIP)


@pytest.mark.parametrize(("faces", "grid"), [(1, (1, 1)), (2, (2, 1)), (4, (2, 2)), (10, (4, 3))])
def test_faces_fill_the_cells_of_a_grid_and_the_rest_has_none(faces: int, grid: tuple[int, int]) -> None:
    one, none = (np.full((480, 640, 3), value, np.uint8) for value in (200, 50))
    picture = compose(faces, [one], [none], (320, 240), 0)
    cells = [cell for row in np.array_split(picture, grid[1]) for cell in np.array_split(row, grid[0], 1)]
    values = [int(np.median(cell)) for cell in cells]
    assert values == [200] * faces + [50] * (len(cells) - faces)


def test_a_narrow_cell_keeps_the_face_in_view() -> None:
    picture = np.zeros((480, 640, 3), np.uint8)
    picture[200:280, 560:640] = 255
    left, right = (compose(10, [picture], [], (x, 240), 0)[:160, :160] for x in (0, 600))
    assert left.max() < 128 < right.max()


def test_a_clip_runs_to_and_fro_without_a_jump() -> None:
    places = [loop._to_and_fro(step, 4) for step in range(12)]
    assert places == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1]
    assert {loop._to_and_fro(step, 1) for step in range(5)} == {0}


def write_clip(path: Path, pictures: Sequence[np.ndarray]) -> str:
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.CAP_ANY, cv2.VideoWriter.fourcc(*"MJPG"), 25, (width, height))
    assert writer.isOpened()
    for picture in pictures:
        writer.write(picture)
    writer.release()
    return str(path)


def test_a_clip_without_what_scenes_need_is_refused(tmp_path: Path, machinery: Machinery) -> None:
    empty = write_clip(tmp_path / "empty.avi", [np.full((240, 320, 3), 90, np.uint8)] * 5)
    with pytest.raises(InputError, match="exactly one face"):
        make_scenes(empty, [0, 1], machinery.detector, tmp_path)
    (scene,) = make_scenes(empty, [0], machinery.detector, tmp_path)
    assert Path(scene.path).stat().st_size > 0
    with VideoFile(str(loop.DEMO_CLIP)) as clip:
        faces = [frame.image for frame, _ in zip(clip.frames(), range(5), strict=False)]
    full = write_clip(tmp_path / "full.avi", faces)
    with pytest.raises(InputError, match="every frame"):
        make_scenes(full, [0], machinery.detector, tmp_path)


# --------------------------------------------------------------------------------------------- what counts


def test_the_bare_models_get_what_the_loop_showed_them(
    machinery: Machinery, scenes: dict[int | None, loop.Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[np.ndarray] = []
    bare: list[np.ndarray] = []
    detect = FaceDetector.detect_prepared

    def note(self: FaceDetector, picture: Prepared) -> tuple[Face, ...]:
        shown.append(picture.pixels)
        return detect(self, picture)

    time_bare = Probe._time_bare

    def note_bare(self: Probe, block: Any, *, count: bool) -> tuple[float, float]:
        bare.extend(seen.pixels for seen in block)
        return time_bare(self, block, count=count)

    monkeypatch.setattr(FaceDetector, "detect_prepared", note)
    monkeypatch.setattr(Probe, "_time_bare", note_bare)
    probe = probe_of(machinery, scenes[4])
    counted = len(probe.faces)
    assert counted >= loop.BLOCK - loop.SETTLE
    assert counted % (loop.BLOCK - loop.SETTLE) == 0
    assert len(probe.bare["face"]) == len(probe.bare_frames) == counted
    assert len(probe.bare["attributes"]) == sum(probe.looks) > 0
    assert len(probe.ratios) == counted // (loop.BLOCK - loop.SETTLE)
    # All but those that settle, in the same order.
    at = 0
    for pixels in bare:
        at += next(step for step, one in enumerate(shown[at:]) if one is pixels) + 1


def test_the_parts_add_up_to_the_loop(machinery: Machinery, scenes: dict[int | None, loop.Scene]) -> None:
    probe = probe_of(machinery, scenes[1], 0.5)
    parts = probe.parts()
    assert parts is not None
    assert set(parts) == {*PARTS, "loop"}
    assert sum(parts[key] for key in PARTS) == pytest.approx(parts["loop"], abs=1e-3)
    every = {stage: np.asarray(values) for stage, values in probe.times.items()}
    assert {len(values) for values in every.values()} == {len(probe.faces)}
    assert np.all(every["face"] >= every["invoke"])
    assert np.all(every["attributes"] >= every["attributes_invoke"])
    assert np.all(every["loop"] >= every["busy"])
    busy = every["face"] + every["track"] + every["attributes"]
    np.testing.assert_allclose(busy, every["busy"], atol=1e-6)


def test_a_delay_in_the_loop_shows_where_it_is_and_as_overhead(
    machinery: Machinery, scenes: dict[int | None, loop.Scene]
) -> None:
    late = probe_of(slow(machinery, 0.02), scenes[1], 0.5)
    parts = late.parts()
    assert parts is not None
    assert parts["decode"] >= 20
    outside = np.asarray(late.times["face"]) - np.asarray(late.times["invoke"])
    assert outside.min() >= 20
    # The delay is in the time of the loop, and not in that of the bare models it is compared with.
    counted = loop.BLOCK - loop.SETTLE
    whole, bare = (
        np.reshape(times, (-1, counted)).sum(axis=1) for times in (late.times["loop"], late.bare_frames)
    )
    np.testing.assert_allclose(late.ratios, whole / bare)
    models = np.asarray(late.times["invoke"]) + np.asarray(late.times["attributes_invoke"])
    assert np.all(whole >= np.reshape(models, (-1, counted)).sum(axis=1) + 20 * counted)
    every = sum(late.bare["face"]) + sum(late.bare["attributes"])
    assert sum(late.bare_frames) == pytest.approx(every)


def test_faces_alone_need_no_second_model(scenes: dict[int | None, loop.Scene]) -> None:
    alone = Machinery.load(Config(precision="float32", tasks=("face",)), threads=1)
    assert alone.bare_attributes is None
    probe = probe_of(alone, scenes[1])
    assert sum(probe.looks) == len(probe.bare["attributes"]) == 0
    assert probe.ratios


def test_a_camera_that_is_too_fast_drops_frames_and_stays_fresh(
    machinery: Machinery, scenes: dict[int | None, loop.Scene]
) -> None:
    row = loop.run_scene(scenes[1], "camera", slow(machinery, 0.03), seconds=2, fps=100, guard=Guard())
    assert row is not None
    assert row["dropped"] > row["frames"] // 2
    assert row["fps"] < 40
    assert row["overhead"] is row["parts"] is None
    # The newest one waits for at most a frame of the loop, while a queue would grow for two seconds.
    assert row["frame_age"]["p50"] < 500
    assert (
        row["frame_age"]["p50"] >= row["stages"]["busy"]["min" if "min" in row["stages"]["busy"] else "p50"]
    )


class Costly:
    """Completes a face in every frame, and takes the loop's time for it."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s, self.asked, self.closed = delay_s, 0, False
        self.finished_ms = [4.0]

    def label(self, image: np.ndarray, faces: Sequence[Face]) -> tuple[Face, ...]:
        return tuple(faces)

    def update(
        self, image: np.ndarray, faces: Sequence[Face], time_s: float, tracks: Any
    ) -> tuple[Face, ...]:
        time.sleep(self.delay_s)
        self.asked += 1
        return tuple(faces)

    def close(self) -> None:
        self.closed = True


def test_unmasking_takes_turns_and_what_it_costs_is_told(
    machinery: Machinery, scenes: dict[int | None, loop.Scene]
) -> None:
    costly = Costly(0.02)
    turns = loop.Turns(costly)
    probe = Probe(machinery, 0.5, None, Guard(), turns)
    source = VideoFile(scenes[0].path, loop=True)
    Pipeline(source, machinery.detector, [probe], labeller=machinery.voter(), unmasker=turns).run()
    assert costly.closed
    figures = turns.to_json()
    assert figures is not None
    # The delay is in no frame without it, in every one with it, and in no other stage.
    assert figures["busy_with"]["p50"] - figures["busy_without"]["p50"] == pytest.approx(20, abs=5)
    assert figures["overhead"] > 1 + 20 / (2 * figures["busy_without"]["p50"])
    assert figures["invoke"]["p50"] == 4
    assert figures["completions"] == costly.asked
    assert np.median(probe.times["track"]) < 5
    counted = loop.BLOCK - loop.SETTLE
    assert {len(times) for times in (*turns.with_ms, *turns.without_ms)} == {counted}
    assert abs(costly.asked / loop.BLOCK - len(turns.with_ms)) <= loop.WARM_UP


def test_a_pair_of_blocks_without_a_completion_does_not_count() -> None:
    costly = Costly()
    turns = loop.Turns(costly)
    picture = np.zeros((8, 8, 3), np.uint8)
    for times, finished, count in (
        ([9.0, 9.0], [], False),  # without: warming up
        ([9.0, 9.0], [1.0], False),
        ([2.0, 4.0], [], True),  # without
        ([5.0, 5.0], [], True),  # nothing was completed
        ([2.0, 4.0], [], True),
        ([3.0, 6.0], [1.0], True),
    ):
        costly.finished_ms = finished
        on = turns.on
        turns.update(picture, (), 0.0, ())
        turns.end_block(times, count=count)
        assert turns.on is not on
    figures = turns.to_json()
    assert figures is not None
    assert (figures["pairs"], figures["overhead"]) == (1, 1.5)
    assert loop.Turns(costly).to_json() is None
    assert "no mask" in loop.unmask_words(None)


# --------------------------------------------------------------------------------------------- the result


def test_unmasking_has_a_row_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ai_edge_litert", reason="the unmask model is slow in float32 with the older runtime")
    path = tmp_path / "loop.json"
    options = ("--faces", "clip", "--tasks", "mask,unmask", "--fps", "60", "--seconds", "3")
    assert run(*options, "--json", str(path)) == 0
    said = capsys.readouterr().out
    row = json.loads(path.read_text())["rows"][-1]
    assert (row["mode"], row["scene"], row["dropped"] is None) == ("unmask", "clip", False)
    assert "the clip, unmask" in said
    figures = row["unmask"]
    assert figures["pairs"] > 0 < figures["completions"]
    low, high = figures["overhead_ci"]
    assert low <= figures["overhead"] <= high
    assert f"{figures['overhead']:.2f} (" in said
    documented = set(re.findall(r"[a-z_0-9]+", DOCS.read_text(encoding="utf-8")))
    assert set(figures) <= documented

    from benchmarks.report import tables

    data = read_result(path)
    data.rows[-1] |= {"valid": True, "notes": []}
    (table,) = (table for table in tables([data]) if table.title == "Unmasking beside the loop")
    assert {len(cells) for cells in table.rows} == {len(table.head)}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("loop") / "new" / "loop.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "SERIES_S", 0.1)
        patch.setattr(loop, "SUSTAINED_BARE_S", 0.1)
        options = ("--faces", "clip,1", "--fps", "50", "--minutes", "0.02")
        assert run(*options, *SHORT, "--json", str(path)) == 0
    return path


def test_the_result_keeps_the_contract(result: Path) -> None:
    data = json.loads(result.read_text())
    assert (data["version"], data["kind"]) == (1, "loop")
    rows = data["rows"]
    assert [(row["scene"], row["mode"]) for row in rows] == [
        ("clip", "burst"),
        ("1", "burst"),
        ("1", "camera"),
        ("1", "sustained"),
    ]
    for row in rows:
        assert row["frames"] > 0
        assert row["seconds"] >= (1.2 if row["mode"] == "sustained" else 0.2)
        assert row["fps"] > 0 < row["cpu_percent"]
        for figures in row["stages"].values():
            assert figures["p50"] <= figures["p90"] <= figures["p99"]
        assert len(row["samples_ms"]) == len(row["samples_at_s"]) == min(row["frames"], loop.MOST_SAMPLES)
        assert row["valid"] == (not row["notes"])
        low, high = row["overhead_ci"] or (0, 0)
        assert low <= (row["overhead"] or 0) <= high
    assert rows[1]["faces_found"] == pytest.approx(1, abs=0.1)
    assert rows[1]["as_wanted"] > 0.9
    assert rows[0]["as_wanted"] is None
    assert len(rows[3]["series"]) > 3
    assert [item["at_s"] for item in rows[3]["series"]] == sorted(item["at_s"] for item in rows[3]["series"])
    # The figures are of all samples, which were few enough to be kept.
    short = rows[1]
    if short["frames"] <= loop.MOST_SAMPLES:
        for q in (50, 90, 99):
            value = np.percentile(short["samples_ms"], q)
            assert short["stages"]["loop"][f"p{q}"] == pytest.approx(value, abs=2e-4)


def test_every_field_is_in_the_documentation(result: Path) -> None:
    documented = set(re.findall(r"[a-z_0-9]+", DOCS.read_text(encoding="utf-8")))
    data = json.loads(result.read_text())
    fields = set(data) | set(data["machine"])
    for row in data["rows"]:
        fields |= set(row) | set(row["stages"]) | set(row["parts"] or ())
        fields |= {key for item in row["series"] for key in item}
    assert fields <= documented


def test_the_report_reads_it(result: Path) -> None:
    from benchmarks.report import tables

    data = read_result(result)
    for row in data.rows:
        row |= {"valid": True, "notes": []}
    found = {table.title.split(":")[0]: table for table in tables([data])}
    assert [row[1] for row in found["The camera loop"].rows] == [
        "the clip, burst",
        "1 face(s), burst",
        "1 face(s), sustained",
    ]
    assert len(found["The camera loop behind a camera"].rows) == 1
    assert found["Where the loop's time goes, one face"].rows[-1][-1] == "100 %"
    for table in found.values():
        assert {len(row) for row in table.rows} == {len(table.head)}


def test_the_table_for_people(result: Path) -> None:
    data = json.loads(result.read_text())
    data["rows"][2] |= {"watts": 2.5, "millijoules": 50.0, "energy_source": "powercap"}
    data["rows"][3]["series"][0] |= {"temperature_c": 50.0, "mhz": 1800.0}
    data["rows"][3]["series"][-1] |= {"temperature_c": 71.0, "mhz": 1500.0}
    text = loop.table(data)
    for block in text.split("\n\n"):
        assert len({line.count("|") for line in block.splitlines() if line.startswith("|")}) <= 1
    assert "2.50 W, 50.0 mJ a frame (powercap)" in text
    assert "50 to 71 °C, 1800 to 1500 MHz" in text


def test_interrupted_it_keeps_the_rows_that_are_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "loop.json"
    run_scene = loop.run_scene

    def interrupt(scene: loop.Scene, *values: Any, **options: Any) -> dict[str, Any] | None:
        if scene.faces == 1:
            raise KeyboardInterrupt
        return run_scene(scene, *values, **options)

    monkeypatch.setattr(loop, "run_scene", interrupt)
    assert run("--faces", "clip,1", "--fps", "0", *SHORT, "--json", str(out)) == 130
    data = json.loads(out.read_text())
    assert data["interrupted"]
    assert [row["scene"] for row in data["rows"]] == ["clip"]
    assert run("--faces", "1", "--fps", "0", *SHORT, "--json", str(tmp_path / "none.json")) == 130
    assert not (tmp_path / "none.json").exists()


def test_a_row_that_is_interrupted_does_not_count(
    machinery: Machinery, scenes: dict[int | None, loop.Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    count = Probe._count

    def interrupt(self: Probe, *values: Any) -> None:
        count(self, *values)
        raise KeyboardInterrupt

    monkeypatch.setattr(Probe, "_count", interrupt)
    row = loop.run_scene(scenes[1], "burst", machinery, seconds=5, fps=30, guard=Guard())
    assert row is not None
    assert not row["valid"]
    assert "it was interrupted before its time was over" in row["notes"]


# ---------------------------------------------------------------------------------------------- bad input


def models_with(folder: Path, content: bytes) -> Path:
    """A models folder whose face model is whole as far as the manifest knows."""
    digest = hashlib.sha256(content).hexdigest()
    write_models(folder, sha256=digest, bytes=len(content))
    (folder / "face.int8.tflite").write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"not a model at all", "face"), (tiny_models.custom_op_model(), "custom op")],
)
def test_models_that_are_none_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    folder = models_with(tmp_path / "models", content)
    with pytest.raises(ModelError, match=words):
        run("--models", str(folder), "--tasks", "face", "--seconds", "0.2")


@pytest.mark.parametrize("faces", ["", "x", "-1", "65", "1;2", "1.5"])
def test_numbers_of_faces_that_are_none(faces: str) -> None:
    with pytest.raises(UsageError, match="bad --faces"):
        run("--faces", faces)


def test_repeated_numbers_of_faces_count_once() -> None:
    assert loop.face_counts("clip, 4,clip,4,0") == [None, 4, 0]


@pytest.mark.parametrize("place", ["file/loop.json", "/proc/nowhere/loop.json"])
def test_a_result_that_cannot_be_written_is_refused_before_measuring(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(loop, "measure", lambda *_, **__: pytest.fail("it measured"))
    with pytest.raises(SinkError, match="cannot write"):
        run("--json", str(tmp_path / place))


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--seconds", "0"], 2),
        (["--seconds", "x"], 2),
        (["--minutes", "0"], 2),
        (["--threads", "0"], 2),
        (["--threads", "999"], 2),
        (["--fps", "-1"], 2),
        (["--precision", "int3"], 2),
        (["--source", "nowhere.mp4"], 1),
        (["--models", "nowhere"], 3),
    ],
)
def test_wrong_use_gets_one_line_and_a_code(
    options: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(["bench", "loop", *options]) == code
    out = capsys.readouterr()
    # How far it is, where that takes long, is a line of its own.
    assert out.err.count("maskedge: error: ") == 1
    assert "Traceback" not in out.err
    assert out.err.count("\n") <= 2
    assert out.out == ""

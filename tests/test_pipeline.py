from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.camera.base import Source
from edge.errors import CameraError, MaskedgeError, SinkError
from edge.pipeline import Pipeline
from edge.sinks import Canvas, Sink, open_sink
from edge.sinks.summary import RunReport
from edge.tasks.attributes import TEMPLATE, AttributesEstimator, AttributesVoter
from edge.tasks.face import FaceDetector
from edge.tflite import Model
from edge.types import Analysis, Face, Frame
from tests.tiny_models import attributes_model, constant_model

ROOT = Path(__file__).parent.parent
POINTS = np.zeros((5, 2), np.float32)


class Clip(Source):
    """A file of `count` frames, or with live=True a camera of 1 / pause frames per second."""

    def __init__(
        self,
        count: int,
        *,
        live: bool = False,
        pause: float = 0.0,
        fps: float | None = 25.0,
        error: Exception | None = None,
    ) -> None:
        self.live = live
        super().__init__("clip", fps=fps)
        self.count, self.pause, self.error = count, pause, error

    def _produce(self) -> Generator[Frame, None, None]:
        for number in range(self.count):
            if self._stop.wait(self.pause) if self.pause else self._stop.is_set():
                return
            yield Frame(np.full((48, 64, 3), number % 256, np.uint8), number, time.monotonic())
        if self.error:
            raise self.error


class OneFace:
    """Finds one face, which moves two pixels per frame; needs `seconds` for it."""

    last_invoke_ms = 0.5

    def __init__(self, seconds: float = 0.0, fail_at: int = -1, faces: int = 1) -> None:
        self.seconds, self.fail_at, self.faces, self.calls = seconds, fail_at, faces, 0

    def detect(self, image: np.ndarray) -> tuple[Face, ...]:
        if self.calls == self.fail_at:
            raise MaskedgeError("the detector broke")
        self.calls += 1
        time.sleep(self.seconds)
        return tuple(Face((2.0 * self.calls + 50 * i, 5, 20, 20), 0.9, POINTS) for i in range(self.faces))


class Kept(Sink):
    """Keeps every analysis."""

    def __init__(self, *, fail_at: int = -1, stop_at: int = -1) -> None:
        self.name = "kept"
        self.fail_at, self.stop_at = fail_at, stop_at
        self.got: list[Analysis] = []
        self.reports: list[RunReport] = []
        self.closed = 0

    def write(self, frame: Frame, analysis: Analysis) -> None:
        if frame.id == self.fail_at:
            raise SinkError("the sink broke")
        self.got.append(analysis)
        self.stop_requested = frame.id == self.stop_at

    def finish(self, report: RunReport) -> None:
        assert self.closed
        self.reports.append(report)

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_a_file_loses_no_frame(count: int) -> None:
    kept = Kept()
    report = Pipeline(Clip(count), OneFace(), [kept]).run()
    assert [one.frame for one in kept.got] == list(range(count))
    assert (report.frames, report.dropped, report.faces, report.with_faces) == (count, 0, count, count)
    assert report.tracks == min(count, 1)
    assert report.ended == "end"
    assert kept.reports == [report]
    assert kept.closed == 1


def test_what_a_sink_gets() -> None:
    kept = Kept()
    Pipeline(Clip(10), OneFace(0.002), [kept]).run()
    assert [face.track for one in kept.got for face in one.faces] == [1] * 10
    assert [one.time for one in kept.got] == pytest.approx(
        [n / 25 for n in range(10)]
    )  # position in the clip
    for one in kept.got:
        assert (one.image, one.width, one.height) == (None, 64, 48)
        timing = one.timing_ms
        assert timing.keys() == {"capture", "face", "total", "frame_age"}
        assert timing["face"] >= 2
        assert timing["total"] >= timing["capture"] + timing["face"] - 1e-6
        assert timing["frame_age"] >= timing["face"]
        json.dumps(one.to_json(), allow_nan=False)


def test_without_faces_and_without_sinks() -> None:
    report = Pipeline(Clip(5), OneFace(faces=0)).run()
    assert (report.frames, report.faces, report.with_faces, report.tracks) == (5, 0, 0, 0)


def test_a_live_source_drops_what_is_too_much_and_stays_fresh() -> None:
    kept = Kept()
    report = Pipeline(Clip(60, live=True, pause=0.005), OneFace(0.03), [kept]).run()
    numbers = [one.frame for one in kept.got]
    assert numbers == sorted(set(numbers))
    assert report.frames == len(numbers) < 30
    assert report.dropped == 60 - report.frames
    # Not older than the time to analyse one frame plus the wait for the one before.
    assert max(one.timing_ms["frame_age"] for one in kept.got) < 200
    assert [one.time for one in kept.got] == sorted(one.time for one in kept.got)


def test_a_viewer_that_hangs_does_not_hold_up_a_live_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge.sinks.jsonl import JsonlSink

    class Count(Kept):
        def write(self, frame: Frame, analysis: Analysis) -> None:
            super().write(frame, analysis)
            if len(self.got) == 15:
                enough.set()

    enough, in_time = threading.Event(), []
    monkeypatch.setattr(JsonlSink, "write", lambda *_: in_time.append(enough.wait(10)))
    sink = open_sink(f"jsonl:{tmp_path}/a.jsonl", live=True)
    Pipeline(Clip(10_000, live=True, pause=0.001), OneFace(), [sink, Count()], frames=15).run()
    assert in_time
    assert all(in_time)


LIMITS = [
    ({"frames": 7}, "frames"),
    ({"seconds": 0.2}, "seconds"),
]


@pytest.mark.parametrize(("limit", "ended"), LIMITS)
@pytest.mark.parametrize("live", [True, False])
def test_limits(limit: dict[str, float], ended: str, live: bool) -> None:
    start = time.monotonic()
    report = Pipeline(Clip(10_000, live=live, pause=0.001), OneFace(), **limit).run()  # type: ignore[arg-type]
    assert report.ended == ended
    assert 0 < report.frames < 1000
    if ended == "frames":
        assert report.frames == 7
    assert time.monotonic() - start < 20


def test_the_time_limit_also_holds_while_no_frame_comes() -> None:
    start = time.monotonic()
    report = Pipeline(Clip(1, live=True, pause=30), OneFace(), seconds=0.2).run()
    assert report.ended == "seconds"
    assert report.frames == 0
    assert time.monotonic() - start < 15


def test_a_sink_can_end_the_loop() -> None:
    kept = Kept(stop_at=4)
    report = Pipeline(Clip(1000), OneFace(), [kept]).run()
    assert (report.frames, report.ended) == (5, "kept")


def test_it_can_be_stopped_from_another_thread() -> None:
    pipeline = Pipeline(Clip(1, live=True, pause=30), OneFace())
    timer = threading.Timer(0.1, pipeline.stop)
    timer.start()
    assert pipeline.run().ended == "stopped"


FAILURES: list[tuple[str, Callable[[], tuple[Source, OneFace, Kept]], type[MaskedgeError], int]] = [
    ("source", lambda: (Clip(3, error=CameraError("gone")), OneFace(), Kept()), CameraError, 3),
    ("detector", lambda: (Clip(9), OneFace(fail_at=3), Kept()), MaskedgeError, 3),
    ("sink", lambda: (Clip(9), OneFace(), Kept(fail_at=3)), SinkError, 3),
]


@pytest.mark.parametrize(
    ("make", "kind", "frames"), [one[1:] for one in FAILURES], ids=[one[0] for one in FAILURES]
)
def test_a_failure_closes_everything_and_still_reports(
    make: Callable[[], tuple[Source, OneFace, Kept]], kind: type[MaskedgeError], frames: int
) -> None:
    source, detector, kept = make()
    other = Kept()
    with pytest.raises(kind, match=r"gone|broke"):
        Pipeline(source, detector, [kept, other]).run()
    assert kept.closed == other.closed == 1
    assert other.reports[0].frames == frames
    assert other.reports[0].ended == "error"


def test_a_sink_that_fails_at_the_end_does_not_keep_the_others_open() -> None:
    class Torn(Kept):
        def close(self) -> None:
            super().close()
            raise SinkError("torn")

    torn, other = Torn(), Kept()
    with pytest.raises(SinkError, match="torn"):
        Pipeline(Clip(3), OneFace(), [torn, other]).run()
    assert other.closed == 1
    assert len(other.reports) == 1


def test_the_first_result_is_announced_before_any_sink_gets_it() -> None:
    kept = Kept()
    seen: list[int] = []
    report = Pipeline(Clip(5), OneFace(), [kept], on_first=lambda: seen.append(len(kept.got))).run()
    assert seen == [0]
    assert report.first_result is not None


def test_frames_per_second_are_told_to_the_canvas() -> None:
    canvas = Canvas()
    Pipeline(Clip(40), OneFace(0.01), canvas=canvas).run()
    assert canvas.fps is not None
    assert 20 < canvas.fps < 101


def test_the_stages_add_up() -> None:
    report = Pipeline(Clip(50), OneFace(0.002), [Kept()]).run()
    mean = {stage: histogram.mean for stage, histogram in report.stages.items()}
    assert all(histogram.count == 50 for histogram in report.stages.values())
    assert mean["loop"] == pytest.approx(mean["total"] + mean["sinks"], abs=0.2)
    assert mean["total"] == pytest.approx(mean["capture"] + mean["face"] + mean["track"], abs=0.2)
    assert mean["invoke"] == pytest.approx(0.5)


def face_model() -> Model:
    """A face model of 64 x 64 pixels that always finds two faces."""
    cells = 8 * 8 + 4 * 4 + 2 * 2
    scores = np.full((1, cells, 1), -9, np.float32)
    scores[0, [9, 45], 0] = 3
    boxes = np.tile(np.float32([0, 0, 1, 1]), (1, cells, 1))
    points = 3 * (np.float32(TEMPLATE) - 0.5).ravel()
    outputs = {"scores": scores, "boxes": boxes, "landmarks": np.tile(points, (1, cells, 1))}
    return Model(constant_model((1, 64, 64, 3), outputs), name="face", threads=1)


class Pictures(Clip):
    """Like a clip, of pictures that each stand for themselves."""

    def _produce(self) -> Generator[Frame, None, None]:
        for frame in super()._produce():
            yield Frame(frame.image, frame.id, frame.time, f"{frame.id}.jpg")


class Labels:
    """Labels every face with how it was asked; finds none in every fifth frame. Needs `seconds` for it."""

    last_invoke_ms = 0.25
    rejected = 7

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.tracks: list[set[int]] = []
        self.times: list[float] = []

    def label(self, image: np.ndarray, faces: Sequence[Face]) -> tuple[Face, ...]:
        return tuple(replace(face, mask={"how": "alone"}) for face in faces)

    def update(
        self, image: np.ndarray, faces: Sequence[Face], time_s: float, tracks: Collection[int]
    ) -> tuple[Face, ...]:
        time.sleep(self.seconds)
        self.tracks.append(set(tracks))
        self.times.append(time_s)
        return (
            () if len(self.times) % 5 == 0 else tuple(replace(face, mask={"how": "vote"}) for face in faces)
        )


def test_faces_are_labelled_after_they_are_tracked() -> None:
    kept, labels = Kept(), Labels(0.002)
    report = Pipeline(Clip(10), OneFace(0.001), [kept], labeller=labels).run()
    assert labels.tracks == [{1}] * 10
    assert labels.times == pytest.approx([n / 25 for n in range(10)])
    assert [len(one.faces) for one in kept.got] == [1, 1, 1, 1, 0] * 2
    assert all((face.track, face.mask) == (1, {"how": "vote"}) for one in kept.got for face in one.faces)
    assert (report.faces, report.with_faces, report.tracks, report.rejected) == (8, 8, 1, 7)
    assert "1 track, 7 of them taken for no face" in report.text()
    assert report.to_json()["rejected"] == 7
    for one in kept.got:
        timing = one.timing_ms
        assert timing.keys() == {"capture", "face", "attributes", "total", "frame_age"}
        assert timing["attributes"] >= 2
        assert timing["total"] >= timing["capture"] + timing["face"] + timing["attributes"] - 1e-6
    mean = {stage: histogram.mean for stage, histogram in report.stages.items()}
    parts = ("capture", "face", "track", "attributes")
    assert mean["total"] == pytest.approx(sum(mean[part] for part in parts), abs=0.2)
    assert mean["attributes_invoke"] == pytest.approx(0.25)


def test_pictures_of_a_set_are_labelled_each_by_itself() -> None:
    kept, labels = Kept(), Labels()
    Pipeline(Pictures(5), OneFace(), [kept], labeller=labels).run()
    assert labels.tracks == []
    assert [face.mask for one in kept.got for face in one.faces] == [{"how": "alone"}] * 5


def test_without_a_labeller_there_is_no_such_stage() -> None:
    report = Pipeline(Clip(3), OneFace()).run()
    assert not {"attributes", "attributes_invoke"} & report.stages.keys()
    assert report.rejected == 0
    assert "taken for no face" not in report.text()


def test_memory_stays_flat_over_2000_frames(tmp_path: Path) -> None:
    page = os.sysconf("SC_PAGE_SIZE")

    class Memory(Sink):
        name = "memory"
        used: list[int] = []  # noqa: RUF012

        def write(self, frame: Frame, analysis: Analysis) -> None:
            if frame.id % 500 == 499:
                self.used.append(int(Path("/proc/self/statm").read_text().split()[1]) * page)

    canvas = Canvas()
    specs = (f"video:{tmp_path}/a.avi", f"jsonl:{tmp_path}/a.jsonl", "none")
    sinks = [open_sink(spec, canvas=canvas, fps=25, jsonl_max_bytes=100_000) for spec in specs]
    voter = AttributesVoter(AttributesEstimator(Model(attributes_model(), threads=1)), reject=False)
    report = Pipeline(
        Clip(2000), FaceDetector(face_model()), [*sinks, Memory()], labeller=voter, canvas=canvas
    ).run()
    assert report.frames == 2000
    assert report.faces == 4000
    assert report.tracks == 2
    assert max(Memory.used[1:]) - Memory.used[0] < 6_000_000


SCRIPT = """
import sys, time
from tests.test_pipeline import Clip, OneFace
from edge.pipeline import Pipeline
from edge.sinks import open_sink
class Told:
    def __call__(self): print("first", flush=True)
sinks = [open_sink("jsonl:" + sys.argv[1]), open_sink("video:" + sys.argv[2]), open_sink("summary")]
source = Clip(100_000, live=sys.argv[3] == "wait", pause=float(sys.argv[4]))
report = Pipeline(source, OneFace(0.005), sinks, on_first=Told()).run(handle_signals=True)
print("ended", report.ended)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("busy", [True, False], ids=["busy", "waiting"])
def test_a_signal_ends_the_loop_cleanly(tmp_path: Path, number: signal.Signals, busy: bool) -> None:
    lines, video = tmp_path / "a.jsonl", tmp_path / "a.avi"
    arguments = [str(lines), str(video), *(("read", "0.0001") if busy else ("wait", "0.4"))]
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "first\n"
    time.sleep(0.1)
    start = time.monotonic()
    process.send_signal(number)
    text, _ = process.communicate(timeout=20)
    assert time.monotonic() - start < 15
    assert process.returncode == 0
    assert "fps" in text
    assert text.endswith(f"ended {number.name}\n")
    written = [json.loads(line) for line in lines.open()]
    assert len(written) >= 1
    assert f"{len(written)} frame" in text

from __future__ import annotations

import io
import json
import os
import resource
import stat
import subprocess
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.errors import SinkError, UsageError
from edge.sinks import Background, Canvas, Sink, open_sink, parse_sink
from edge.sinks.folder import FolderSink
from edge.sinks.jsonl import JsonlSink
from edge.sinks.summary import Histogram, RunReport, StatusSink, SummarySink
from edge.sinks.video import VideoSink
from edge.sinks.window import WindowSink, why_no_window
from edge.types import Analysis, Face, Frame

ROOT = Path(__file__).parent.parent


def result(
    number: int = 0,
    *,
    size: tuple[int, int] = (64, 48),
    time_s: float = 0.0,
    name: str | None = None,
    level: int = 90,
) -> tuple[Frame, Analysis]:
    """A frame of one grey level with one face."""
    image = np.full((size[1], size[0], 3), level, np.uint8)
    face = Face((8.0, 8.0, 20.0, 24.0), 0.9, np.full((5, 2), 12, np.float32), track=1)
    return Frame(image, number, time_s, name), Analysis(name, number, time_s, *size, (face,), {"face": 2.0})


def read_video(path: Path) -> list[np.ndarray]:
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames


# ------------------------------------------------------------------------------------------ by name

SPECS = [
    ("window", ("window", "")),
    ("summary", ("summary", "")),
    ("none", ("none", "")),
    ("video:a.mp4", ("video", "a.mp4")),
    ("video:/x/a:b.AVI", ("video", "/x/a:b.AVI")),
    ("clip.mp4", ("video", "clip.mp4")),
    ("clip.avi", ("video", "clip.avi")),
    ("jsonl:-", ("jsonl", "-")),
    ("jsonl:a", ("jsonl", "a")),
    ("a.jsonl", ("jsonl", "a.jsonl")),
    ("folder:out", ("folder", "out")),
]
WRONG_SPECS = [
    "",
    ":",
    "windows",
    "window:",
    "window:1",
    "video",
    "video:",
    "video:a.txt",
    "jsonl:",
    "folder:",
    "a.png",
]


@pytest.mark.parametrize(("spec", "parsed"), SPECS)
def test_the_text_form_of_a_sink(spec: str, parsed: tuple[str, str]) -> None:
    assert parse_sink(spec) == parsed


@pytest.mark.parametrize("spec", WRONG_SPECS)
def test_a_wrong_text_form_is_refused_with_a_remedy(spec: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_sink(spec)
    assert caught.value.remedy


def test_each_kind_can_be_opened_by_its_text_form(tmp_path: Path) -> None:
    for spec in (
        f"video:{tmp_path}/a.mp4",
        f"jsonl:{tmp_path}/a.jsonl",
        f"folder:{tmp_path}/a",
        "summary",
        "none",
    ):
        for live in (False, True):
            with open_sink(spec, live=live, fps=25) as sink:
                sink.write(*result())
    assert len(read_video(tmp_path / "a.mp4")) == 1
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 2
    assert os.listdir(tmp_path / "a") == ["frame-000000.jpg"]


# ------------------------------------------------------------------------------------- shared picture


def test_a_picture_is_drawn_once_and_only_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import edge.drawing

    drawn = []
    real = edge.drawing.annotate
    monkeypatch.setattr(edge.drawing, "annotate", lambda *a, **k: drawn.append(a[1].frame) or real(*a, **k))
    canvas = Canvas()
    with JsonlSink(str(tmp_path / "a.jsonl")) as lines, FolderSink(str(tmp_path / "f"), canvas) as folder:
        lines.write(*result(1))
        assert drawn == []
        for number in (2, 3):
            frame, analysis = result(number)
            folder.write(frame, analysis)
            assert canvas.picture(frame, analysis) is canvas.picture(frame, analysis)
    assert drawn == [2, 3]


# ------------------------------------------------------------------------------------------- video


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv", ".mov"])
@pytest.mark.parametrize("size", [(64, 48), (65, 47), (1280, 720)])
def test_a_video_has_every_frame(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    path = tmp_path / f"a b{suffix}"
    with VideoSink(str(path), Canvas(), fps=25) as sink:
        for number in range(12):
            sink.write(*result(number, size=size, level=20 * number))
    frames = read_video(path)
    assert len(frames) == 12
    levels = [float(np.median(frame)) for frame in frames]
    assert np.allclose(levels, [20 * n for n in range(12)], atol=12)
    assert abs(frames[0].shape[1] - size[0]) <= 1


def test_frames_of_other_sizes_are_fitted_into_the_first(tmp_path: Path) -> None:
    with VideoSink(str(tmp_path / "a.avi"), Canvas()) as sink:
        for number, size in enumerate([(64, 48), (200, 20), (20, 200), (1, 1)]):
            sink.write(*result(number, size=size, level=200))
    assert [frame.shape for frame in read_video(tmp_path / "a.avi")] == [(48, 64, 3)] * 4


def test_a_live_video_keeps_real_time(tmp_path: Path) -> None:
    # 10 fps: a frame too early is left out, a gap is filled, but not a gap of an hour.
    times = [0.0, 0.02, 0.1, 0.5, 3600.0]
    with VideoSink(str(tmp_path / "a.avi"), Canvas(), live=True, fps=10) as sink:
        for number, at in enumerate(times):
            sink.write(*result(number, time_s=100 + at, level=50 * number))
    levels = [round(float(np.median(frame)) / 50) for frame in read_video(tmp_path / "a.avi")]
    assert levels == [0, 2, 3, 3, 3, 3] + [4] * 20


@pytest.mark.parametrize("path", ["/proc/no/such.mp4", "/dev/full/a.mp4"])
def test_a_video_that_cannot_be_written(path: str) -> None:
    with pytest.raises(SinkError, match="cannot write"):
        open_sink(f"video:{path}")


def test_a_video_of_an_impossible_size_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="100000x2"), VideoSink(str(tmp_path / "a.mp4"), Canvas()) as sink:
        sink.write(*result(size=(100_000, 2)))
    assert os.listdir(tmp_path) == []


def test_a_full_disk_ends_a_video_before_it_is_spoilt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    free = [1 << 30]
    monkeypatch.setattr("edge.sinks.video.shutil.disk_usage", lambda path: usage(1 << 40, 0, free[0]))
    monkeypatch.setattr("edge.sinks.video._CHECK_S", 0.0)
    sink = VideoSink(str(tmp_path / "a.mp4"), Canvas())
    sink.write(*result(0))
    free[0] = 1000
    with pytest.raises(SinkError, match="full"):
        sink.write(*result(1))
    sink.close()
    assert len(read_video(tmp_path / "a.mp4")) == 2


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv"])
def test_a_video_that_was_cut_off_is_noticed(tmp_path: Path, suffix: str) -> None:
    # The limit of the file size stands in for a disk that fills up between two looks at it.
    script = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
import numpy as np
from edge.errors import SinkError
from edge.sinks import Canvas
from edge.sinks.video import VideoSink
from edge.types import Analysis, Frame
random = np.random.default_rng(0)
try:
    with VideoSink({str(tmp_path / f"a.{suffix}")!r}, Canvas()) as sink:
        for n in range(60):
            image = random.integers(0, 255, (120, 160, 3), np.uint8)
            sink.write(Frame(image, n, 0.0), Analysis(None, n, 0, 160, 120))
except SinkError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert "is not complete" in done.stdout
    assert done.stderr == ""


# ------------------------------------------------------------------------------------------- jsonl


def test_jsonl_appends_whole_lines_at_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.jsonl"
    for first in (0, 2):
        with JsonlSink(str(path)) as sink:
            for number in (first, first + 1):
                sink.write(*result(number))
                assert json.loads(path.read_text().splitlines()[-1])["frame"] == number  # before it is closed
    frames = [json.loads(line) for line in path.read_text().splitlines()]
    assert [one["frame"] for one in frames] == [0, 1, 2, 3]
    assert frames[0] == result(0)[1].to_json()


def test_jsonl_goes_on_after_a_line_torn_by_a_power_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"frame": 0}\n{"fra')
    with JsonlSink(str(path)) as sink:
        sink.write(*result(7))
    lines = path.read_text().splitlines()
    assert lines[:2] == ['{"frame": 0}', '{"fra']
    assert json.loads(lines[2])["frame"] == 7


@pytest.mark.parametrize(
    ("max_bytes", "backups", "files"), [(0, 3, 1), (1000, 2, 3), (1000, 0, 1), (1, 3, 4)]
)
def test_jsonl_rotates(tmp_path: Path, max_bytes: int, backups: int, files: int) -> None:
    path = tmp_path / "a.jsonl"
    with JsonlSink(str(path), max_bytes=max_bytes, backups=backups) as sink:
        for number in range(20):
            sink.write(*result(number))
    names = ["a.jsonl", *(f"a.jsonl.{n}" for n in range(1, files))]
    assert sorted(os.listdir(tmp_path)) == names
    newest_last = [json.loads(line)["frame"] for name in reversed(names) for line in (tmp_path / name).open()]
    assert newest_last == list(range(20))[-len(newest_last) :]
    if max_bytes > 1:
        assert all(os.path.getsize(tmp_path / name) <= max_bytes for name in names)


def test_jsonl_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    with open_sink("jsonl:-") as sink:
        sink.write(*result(5))
    assert json.loads(capsys.readouterr().out)["frame"] == 5


@pytest.mark.parametrize("path", ["/dev/full", "/proc/no/such", "/"])
def test_jsonl_that_cannot_be_written(path: str) -> None:
    with pytest.raises(SinkError, match="cannot write") as caught, JsonlSink(path) as sink:
        sink.write(*result())
    assert "\n" not in str(caught.value)


def test_a_full_disk_costs_jsonl_no_earlier_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    size = len(json.dumps(result(0)[1].to_json())) + 1
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    sink = JsonlSink(str(path))
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (size * 2 + size // 2, before[1])
    )  # room for two and a half lines
    try:
        sink.write(*result(0))
        sink.write(*result(1))
        with pytest.raises(SinkError, match="cannot write"):
            sink.write(*result(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sink.close()
    assert [json.loads(line)["frame"] for line in path.open()] == [0, 1]


# ------------------------------------------------------------------------------------------- folder


def test_a_folder_never_overwrites_an_input_nor_mixes_up_equal_names(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "deep").mkdir(parents=True)
    inputs = [tmp_path / "x.jpg", out / "x.jpg", out / "deep" / "X.JPG", tmp_path / "x.png"]
    for path in inputs:
        path.write_bytes(b"input")
    names = [*map(str, inputs), "http://host/a%20b/x.webp?key=1", "http://host/"]
    with FolderSink(str(out), Canvas(), inputs=map(str, inputs)) as sink:
        written = [sink.save(*result(number, name=name)) for number, name in enumerate(names)]
    assert [path.read_bytes() for path in inputs] == [b"input"] * 4
    assert len({str(path).lower() for path in written}) == len(names)
    assert [path.name for path in written] == [
        "x-2.jpg", "x-3.jpg", "X-4.jpg", "x-5.jpg", "x-6.jpg", "picture.jpg",
    ]  # fmt: skip
    assert all(cv2.imread(str(path)).shape == (48, 64, 3) for path in written)
    with FolderSink(
        str(out), Canvas(), inputs=map(str, inputs)
    ) as sink:  # a second run writes the same files
        assert [sink.save(*result(number, name=name)) for number, name in enumerate(names)] == written


@pytest.mark.parametrize("folder", ["/proc/no", "/dev/full", "/dev/null/x"])
def test_a_folder_that_cannot_be_made(folder: str) -> None:
    with pytest.raises(SinkError, match="cannot write into"):
        open_sink(f"folder:{folder}")


def test_a_picture_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    sink = FolderSink(str(tmp_path), Canvas())
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(SinkError, match="cannot write"):
            sink.write(*result())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == []
    with pytest.raises(SinkError, match="70000x1"):
        sink.write(*result(size=(70_000, 1)))


# ------------------------------------------------------------------------------------------- window


def test_without_a_display_there_is_no_window_but_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(SinkError, match="no display"):
        open_sink("window")


def test_a_display_that_does_not_answer_does_not_end_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    # With a headless OpenCV the reason is that; with another one its toolkit would abort this very process.
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", "nowhere.invalid:77")
    assert why_no_window() is not None


class Screen:
    """Stands in for OpenCV's window functions; there is no display where tests run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[np.ndarray] = []
        self.key, self.visible, self.closed = -1, 1.0, 0
        fakes = {
            "namedWindow": lambda *a: None,
            "resizeWindow": lambda *a: None,
            "imshow": lambda title, image: self.shown.append(image),
            "waitKey": self.wait,
            "getWindowProperty": lambda *a: self.visible,
            "destroyWindow": lambda title: setattr(self, "closed", self.closed + 1),
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(cv2, name, fake)
        monkeypatch.setattr("edge.sinks.window.why_no_window", lambda: None)

    def wait(self, ms: int) -> int:
        time.sleep(ms / 1000)
        return self.key


def test_a_window_ends_the_loop_on_q_and_when_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch)
    for key, visible, stops in [
        (-1, 1.0, False),
        (ord("x"), 1.0, False),
        (ord("q"), 1.0, True),
        (27, 1.0, True),
        (-1, 0.0, True),
    ]:
        screen.key = -1
        with WindowSink(Canvas(), fps=1000) as sink:
            sink.write(*result(0))
            screen.key, screen.visible = key, visible
            sink.write(*result(1))
            assert sink.stop_requested is stops
        screen.visible = 1.0
    assert screen.closed == 5


def test_a_window_plays_a_file_at_its_pace_and_skips_for_a_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch)
    start = time.monotonic()
    with WindowSink(Canvas(), fps=50) as sink:
        for number in range(11):
            sink.write(*result(number))
    assert time.monotonic() - start > 0.18
    assert len(screen.shown) == 11
    screen.shown.clear()
    with WindowSink(Canvas(), live=True, fps=500) as sink:
        start = time.monotonic()
        number = 0
        while time.monotonic() - start < 0.3:
            sink.write(*result(number))
            number += 1
    assert 2 <= len(screen.shown) <= 12


# --------------------------------------------------------------------------------------- background


class Slow(Sink):
    """Takes its time, and remembers what it got and in which thread."""

    name = "slow"

    def __init__(self, seconds: float = 0.0, fail_at: int | None = None) -> None:
        self.seconds, self.fail_at = seconds, fail_at
        self.got: list[int] = []
        self.threads: set[int] = set()
        self.closed = 0

    def write(self, frame: Frame, analysis: Analysis) -> None:
        time.sleep(self.seconds)
        self.threads.add(threading.get_ident())
        if self.fail_at is not None and frame.id >= self.fail_at:
            raise SinkError("broken", remedy="mend it")
        self.got.append(frame.id)

    def close(self) -> None:
        self.closed += 1


def test_a_slow_sink_does_not_hold_up_a_live_loop() -> None:
    inner = Slow(0.05)
    with Background(inner, capacity=2, drop=True) as sink:
        start = time.monotonic()
        for number in range(50):
            sink.write(*result(number))
        assert time.monotonic() - start < 1.5
    assert inner.got == sorted(inner.got)
    assert inner.got[-1] == 49  # the newest is never the one that is given up
    assert sink.skipped == 50 - len(inner.got) > 30
    assert inner.closed == 1
    assert inner.threads.isdisjoint({threading.get_ident()})


def test_a_slow_sink_gets_every_frame_of_a_file() -> None:
    inner = Slow(0.002)
    with Background(inner, capacity=2, drop=False) as sink:
        for number in range(40):
            sink.write(*result(number))
    assert inner.got == list(range(40))
    assert sink.skipped == 0


def write_all(sink: Sink) -> None:
    for number in range(1000):
        sink.write(*result(number))
        time.sleep(0.002)


@pytest.mark.parametrize("drop", [True, False])
def test_an_error_of_a_background_sink_reaches_the_loop(drop: bool) -> None:
    inner = Slow(0.001, fail_at=5)
    with pytest.raises(SinkError, match="mend it"), Background(inner, capacity=2, drop=drop) as sink:
        write_all(sink)
    before = [0, 1, 2, 3, 4]
    assert set(inner.got) <= set(before) if drop else inner.got == before
    assert inner.closed == 1


def test_an_error_at_the_very_end_is_not_lost() -> None:
    sink = Background(Slow(0.02, fail_at=0), capacity=2, drop=True)
    sink.write(*result(0))
    with pytest.raises(SinkError, match="broken"):
        sink.close()


# ------------------------------------------------------------------------------------------ summary

VALUES: list[list[float]] = [
    [],
    [1.0],
    [0.0],
    [5.0] * 100,
    list(np.random.default_rng(0).lognormal(1, 1, 5000)),
    [1e-9, 1e9],
]


@pytest.mark.parametrize("values", VALUES, ids=["empty", "one", "zero", "equal", "many", "extremes"])
def test_percentiles(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    assert histogram.count == len(values)
    assert histogram.max == max(values, default=0.0)
    assert histogram.mean == pytest.approx(np.mean(values) if values else 0.0)
    for percent in (1, 50, 99, 100):
        exact = float(np.percentile(values, percent, method="inverted_cdf")) if values else 0.0
        if 1e-3 < exact < 1e6 or not exact:
            assert histogram.percentile(percent) == pytest.approx(exact, rel=0.011, abs=0.002)


def report() -> RunReport:
    made = RunReport("clip.mp4", frames=200, seconds=4.0, dropped=3, faces=1, with_faces=1, tracks=2)
    for number in range(100):
        made.add("face", 2.0 + number / 100)
    made.add("frame_age", 7.5)
    made.skipped["video a.mp4"] = 12
    return made


def test_the_summary_says_what_matters() -> None:
    stream = io.StringIO()
    with SummarySink(stream) as sink:
        sink.write(*result())
        assert stream.getvalue() == ""
        sink.finish(report())
    text = stream.getvalue()
    assert "clip.mp4: 200 frames in 4.00 s, 50.0 fps, 3 dropped" in text
    assert "1 face in 1 frame, 2 tracks" in text
    assert "video a.mp4 could not keep up: 12 frames left out" in text
    (line,) = (line.split() for line in text.splitlines() if line.startswith("face "))
    assert [float(number) for number in line[1:4]] == pytest.approx([2.5, 2.98, 2.99], abs=0.03)


def test_the_summary_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    SummarySink().finish(RunReport("x", ended="error"))
    assert capsys.readouterr().out == ""  # the error alone is shown
    assert "0 frames in 0.00 s, 0.0 fps" in RunReport("x").text()
    assert RunReport("x").to_json()["stages_ms"] == {}


def test_the_report_as_json() -> None:
    made = json.loads(json.dumps(report().to_json()))
    assert made["fps"] == 50.0
    assert made["stages_ms"]["frame_age"]["p99"] == pytest.approx(7.5, rel=0.01)


def test_the_status_line_is_rewritten_at_most_five_times_a_second_and_wiped_at_the_end() -> None:
    stream, canvas = io.StringIO(), Canvas()
    canvas.fps = 31.4
    with StatusSink(canvas, stream) as sink:
        start = time.monotonic()
        while time.monotonic() - start < 0.5:
            sink.write(*result())
            time.sleep(0.002)
    lines = stream.getvalue().split("\r")[1:]
    assert 2 <= len(lines) - 1 <= 4
    assert lines[0] == "1 frames  1 face  2.0 ms  31 fps\x1b[K"
    assert lines[-1] == "\x1b[K"


def test_files_are_readable_for_others(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with JsonlSink(str(tmp_path / "a.jsonl")) as sink:
            sink.write(*result())
        with FolderSink(str(tmp_path), Canvas()) as folder:
            folder.write(*result())
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o644}

"""Time of the whole camera loop against its bare models: `maskedge bench loop`.

The floor is `invoke()` alone, on the very inputs that the loop has just shown its models. Loop and floor take
turns every few frames, so that a busy machine or a changing clock hits both. docs/benchmarks.md says how, and
what the fields of the result mean.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from array import array
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks import intervals
from benchmarks.latency import PERCENTILES, check_output, write_result
from benchmarks.machine import (
    EnergyMeter,
    Guard,
    Spent,
    frequency_mhz,
    machine,
    machine_after,
    peak_rss_mb,
    reset_peak_rss,
    rss_mb,
    thin,
    usage,
)
from benchmarks.resultfile import BEHIND_CAMERA, PARTS
from benchmarks.terminal import number_to, progress, some_time, whole_number
from edge import assembly, board
from edge.camera.base import LiveSource, to_bgr8
from edge.camera.demo import DEMO_CLIP
from edge.camera.video import VideoFile
from edge.config import Config, load_config
from edge.errors import InputError, UsageError
from edge.pipeline import Completer, Pipeline
from edge.sinks.base import Sink
from edge.tasks.attributes import AttributesEstimator, AttributesVoter
from edge.tasks.face import FaceDetector, Prepared
from edge.tasks.unmask import Unmasker
from edge.tflite import Model, load_manifest, load_model
from edge.types import Analysis, Face, Frame
from edge.unmasking import LiveUnmasker

BLOCK = 12
"""Frames between two turns of the bare models: a few hundredths of a second, so that both see one machine."""
SETTLE = 2
"""Of these, frames that do not count: they were read and prepared while the bare models ran."""
WARM_UP = 4
"""Blocks that do not count: first touch of memory, and tracks that are new."""
SIZE = (640, 480)
KEPT = 60
"""Frames of a clip, with one face and with none, that scenes are composed of."""
LENGTH = 240
RATE = 25.0
MOST_FACES = 64
SUSTAINED_BARE_S = 2.0
"""In the long run the bare models have a turn this often only: the heat is to be that of the loop."""
SERIES_S = 10.0
MOST_SAMPLES = 1000

STAGES = (
    "capture",
    "face",
    "invoke",
    "track",
    "attributes",
    "attributes_invoke",
    "busy",
    "loop",
    "frame_age",
    "processor",
)
EPILOG = """examples:
  maskedge bench loop                                 the built-in clip, then 0, 1, 4 and 10 faces
  maskedge bench loop --faces 1 --seconds 30 --json loop.json
  maskedge bench loop --faces 1 --minutes 10          until the machine is warm: heat and clock over time
  maskedge bench loop --source visitors.mp4 --tasks mask --threads 2
  maskedge bench loop --faces clip --tasks mask,gender,unmask   also what unmasking beside the loop costs it

burst      as fast as the machine can; overhead is the time of a frame over that of the bare models
camera     a stand-in for a camera at --fps that drops what nobody took in time: frame age, drops, CPU
sustained  burst for --minutes
unmask     as camera, with --tasks ...,unmask: masked faces are completed in every other block of frames;
           the figure is the loop's time a frame with that over without. The other rows run without it

exit codes:
  0 done   1 the clip does not do, or the result could not be written   2 wrong use
  3 a model is missing or damaged   130 interrupted: rows that are done are shown and written"""


# ------------------------------------------------------------------------------------------------- scenes


@dataclass(slots=True, frozen=True)
class Scene:
    """A clip to run the loop on: `faces` in view, or None for the clip as it is."""

    name: str
    faces: int | None
    path: str


def compose(
    faces: int, one: Sequence[np.ndarray], none: Sequence[np.ndarray], centre: tuple[float, float], step: int
) -> np.ndarray:
    """A picture with so many faces, of pictures with one face and with none.

    Args:
        faces: how many.
        one, none: SIZE pictures, BGR; `none` may be empty, black fills then.
        centre: of the faces in `one`, pixels, which cells that are not as wide keep in view.
        step: number of the picture; each cell shows another moment, forwards and backwards.

    Returns:
        A picture of SIZE: a grid of cells, each a whole picture of `one` or as much of it as the cell's shape
        lets in.
    """
    columns = max(1, math.ceil(math.sqrt(faces)))
    rows = max(1, math.ceil(faces / columns))
    width, height = SIZE[0] // columns, SIZE[1] // rows
    out = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    for cell in range(rows * columns):
        pictures = one if cell < faces else none
        if not pictures:
            continue
        # Cells are spread over the clip, so that not all of them show the same.
        picture = pictures[_to_and_fro(step + cell * len(pictures) // (rows * columns), len(pictures))]
        scale = max(width / SIZE[0], height / SIZE[1])
        cut = min(SIZE[0], round(width / scale)), min(SIZE[1], round(height / scale))
        x, y = (
            round(min(max(middle - side / 2, 0), whole - side))
            for middle, side, whole in zip(centre, cut, SIZE, strict=True)
        )
        column, row = cell % columns, cell // columns
        out[row * height : (row + 1) * height, column * width : (column + 1) * width] = cv2.resize(
            picture[y : y + cut[1], x : x + cut[0]], (width, height), interpolation=cv2.INTER_AREA
        )
    return out


def _to_and_fro(step: int, count: int) -> int:
    """Place in a row that is walked forwards and backwards: a clip that starts anew would make faces jump."""
    place = step % max(1, 2 * count - 2)
    return min(place, 2 * count - 2 - place) if count > 1 else 0


def make_scenes(
    source: str, wanted: Sequence[int | None], detector: FaceDetector, folder: Path
) -> list[Scene]:
    """Write a clip for each number of faces.

    Args:
        source: `demo`, or the path of a video.
        wanted: numbers of faces; None is the clip as it is.
        detector: says which frames have one face, and which none.
        folder: takes the clips.

    Raises:
        InputError: the source is no video, or has no frame with exactly one face (or none) to compose of.
    """
    path = str(DEMO_CLIP) if source == "demo" else source
    one: list[np.ndarray] = []
    none: list[np.ndarray] = []
    centres = []
    composed = any(count is not None for count in wanted)
    with VideoFile(path, name=source) as clip:
        for frame in clip.frames():
            picture = _fitted(frame.image) if composed else frame.image
            faces = detector.detect(picture)
            if len(faces) == 1 and len(one) < KEPT:
                one.append(picture)
                x, y, w, h = faces[0].box
                centres.append((x + w / 2, y + h / 2))
            elif not faces and len(none) < KEPT:
                none.append(picture)
            if not composed or len(one) == len(none) == KEPT:
                break
    if any(wanted) and not one:
        remedy = "give a clip that shows one face at a time, or --faces clip"
        raise InputError(f"no frame of {source} shows exactly one face", remedy=remedy)
    if 0 in wanted and not none:
        raise InputError(f"every frame of {source} shows a face", remedy="leave 0 out of --faces")
    middle = np.median(centres, axis=0).tolist() if centres else (SIZE[0] / 2, SIZE[1] / 2)
    scenes = []
    for count in wanted:
        if count is None:
            scenes.append(Scene("clip", None, path))
            continue
        target = str(folder / f"{count}.avi")
        writer = cv2.VideoWriter(target, cv2.CAP_ANY, cv2.VideoWriter.fourcc(*"MJPG"), RATE, SIZE)
        if not writer.isOpened():
            raise InputError(f"OpenCV cannot write {target}", remedy="check the free space; or --faces clip")
        for step in range(LENGTH):
            writer.write(compose(count, one, none, middle, step))
        writer.release()
        scenes.append(Scene(str(count), count, target))
    return scenes


def _fitted(image: np.ndarray) -> np.ndarray:
    """The picture at SIZE, its shape kept, black around it."""
    height, width = image.shape[:2]
    if (width, height) == SIZE:
        return image
    scale = min(SIZE[0] / width, SIZE[1] / height)
    new = max(1, round(width * scale)), max(1, round(height * scale))
    x, y = (SIZE[0] - new[0]) // 2, (SIZE[1] - new[1]) // 2
    out = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    out[y : y + new[1], x : x + new[0]] = cv2.resize(image, new, interpolation=cv2.INTER_AREA)
    return out


class ClipCamera(LiveSource):
    """A clip in place of a camera: a frame every 1/fps seconds, and the newest one only."""

    def __init__(self, path: str, fps: float) -> None:
        super().__init__("clip as camera", timeout=10, call_limit=1, remedy="give another clip", fps=fps)
        self._path, self._rate = path, fps

    def _capture(self) -> Generator[tuple[np.ndarray, np.ndarray | None, float], None, None]:
        due = time.monotonic()
        while not self._stop.is_set():
            capture = cv2.VideoCapture(self._path)
            try:
                while not self._stop.is_set() and capture.grab():
                    due = self._keep_pace(due, 1 / self._rate)
                    captured = time.monotonic()
                    fine, image = capture.retrieve()
                    if not fine:
                        break
                    yield to_bgr8(image), None, captured
            finally:
                capture.release()


# -------------------------------------------------------------------------------------------------- probe


class _Remembering:
    """A model that keeps a copy of what it is shown, so that the bare invoke gets the same."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.inputs, self.outputs, self.name = model.inputs, model.outputs, model.name
        self.seen: list[np.ndarray] = []

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        self.seen.append(pixels.copy())  # it costs the loop about a microsecond, which counts as overhead
        return self.model.run(pixels)


@dataclass(slots=True)
class Machinery:
    """The models of the loop, loaded once for all rows."""

    detector: FaceDetector
    estimator: AttributesEstimator | None
    seen: list[np.ndarray]
    config: Config
    bare_face: Model
    bare_attributes: Model | None
    unmasker: Unmasker | None = None

    @classmethod
    def load(cls, config: Config, *, threads: int) -> Machinery:
        """As `maskedge run` does.

        Raises:
            ModelError: a model is missing or damaged.
        """
        manifest = load_manifest(config.models)
        options: dict[str, Any] = {"precision": config.precision, "threads": threads}
        options["models_dir"] = config.models
        face = load_model("face", **options)
        detector = FaceDetector(face, manifest.entry("face"))
        if set(config.tasks) == {"face"}:
            return cls(detector, None, [], config, face, None)
        second = load_model("attributes", **options)
        remembering: Any = _Remembering(second)
        estimator = AttributesEstimator(remembering, manifest.entry("attributes"), tasks=config.tasks)
        completes = assembly.unmasker(config, threads=1) if "unmask" in config.tasks else None
        return cls(detector, estimator, remembering.seen, config, face, second, completes)

    def voter(self) -> AttributesVoter | None:
        """A new one, which knows no tracks."""
        if self.estimator is None:
            return None
        config = self.config
        return AttributesVoter(self.estimator, every_s=config.attributes_seconds, reject=config.reject)


class Turns:
    """Unmasks in every other block of frames, so that the loop with and without it sees one machine.

    Attributes:
        on: whether this block's faces are completed.
        finished_ms: as of `edge.unmasking.LiveUnmasker`.
        invoke_ms: all of them.
        with_ms, without_ms: times of the frames of each pair of blocks, all but the wait for the frame,
            milliseconds. A pair is a block without and the next one, with it; it counts if that one
            completed a face.
    """

    def __init__(self, completer: Completer) -> None:
        self.on = False
        self.finished_ms: list[float] = []
        self.invoke_ms = array("d")
        self.with_ms: list[np.ndarray] = []
        self.without_ms: list[np.ndarray] = []
        self._completer = completer
        self._completed = 0
        self._before: np.ndarray | None = None

    def label(self, image: np.ndarray, faces: Sequence[Face]) -> tuple[Face, ...]:
        return self._completer.label(image, faces)

    def update(
        self, image: np.ndarray, faces: Sequence[Face], time_s: float, tracks: Collection[int]
    ) -> tuple[Face, ...]:
        self.finished_ms = []
        if self.on:
            faces = self._completer.update(image, faces, time_s, tracks)
            self.finished_ms = self._completer.finished_ms
            self._completed += len(self.finished_ms)
            self.invoke_ms.extend(self.finished_ms)
        return tuple(faces)

    def close(self) -> None:
        self._completer.close()

    def end_block(self, busy_ms: Sequence[float], *, count: bool) -> None:
        """Take the times of a block's frames, and change over."""
        times = np.asarray(busy_ms)
        if not self.on:
            self._before = times if count else None
        elif self._before is not None and self._completed:
            self.without_ms.append(self._before)
            self.with_ms.append(times)
        self.on, self._completed = not self.on, 0

    def to_json(self) -> dict[str, Any] | None:
        """`unmask` of the result file; None where no pair of blocks counts."""
        if not self.with_ms:
            return None
        # Of means, which also see the few frames that share the processor with the model.
        pairs = zip(self.with_ms, self.without_ms, strict=True)
        ratio = intervals.quantile([np.array([one.mean() / other.mean()]) for one, other in pairs])
        return {
            "overhead": round(ratio.value, 4),
            "overhead_ci": ratio.to_json(),
            "pairs": len(self.with_ms),
            "completions": len(self.invoke_ms),
            "invoke": _figures(self.invoke_ms),
            "busy_with": _figures(np.concatenate(self.with_ms)),
            "busy_without": _figures(np.concatenate(self.without_ms)),
        }


@dataclass(slots=True)
class _Seen:
    """One frame of a block: its times by stage, how many faces, and what the models were shown."""

    ms: dict[str, float]
    faces: int
    pixels: np.ndarray
    crops: list[np.ndarray]


@dataclass
class Probe(Sink):
    """Notes the times of every frame and, between blocks of frames, lets the bare models have their turn.

    Its own time is part of no frame.

    Attributes:
        machinery: the models.
        seconds: of the loop, after which it ends.
        bare_every_s: the bare models have a turn when this long has passed; None for never.
        guard: what watches governor and throttling.
        turns: completes faces in every other block, and is told of the blocks' ends; None for never.
        times: milliseconds by stage, of all frames that count, in order.
        at_s: when each of them ended, `time.monotonic()`.
        faces, looks: how many each shows, and how many of them the attributes model looked at.
        bare: milliseconds of bare invokes by model.
        bare_frames: the same, summed over the models by frame.
        ratios, processor_ratios: loop over bare, of each block that had both: of the clock, and of the
            processor time of this thread.
        spent: processor time of the loop alone.
    """

    machinery: Machinery
    seconds: float
    bare_every_s: float | None
    guard: Guard
    turns: Turns | None = None
    times: dict[str, array[float]] = field(default_factory=lambda: {stage: array("d") for stage in STAGES})
    at_s: array[float] = field(default_factory=lambda: array("d"))
    faces: array[int] = field(default_factory=lambda: array("i"))
    looks: array[int] = field(default_factory=lambda: array("i"))
    bare: dict[str, array[float]] = field(
        default_factory=lambda: {"face": array("d"), "attributes": array("d")}
    )
    bare_frames: array[float] = field(default_factory=lambda: array("d"))
    ratios: list[float] = field(default_factory=list)
    processor_ratios: list[float] = field(default_factory=list)
    spent: Spent = field(default_factory=Spent)
    problems: list[str] = field(default_factory=list)
    series: list[dict[str, Any]] = field(default_factory=list)
    stop_requested: bool = False
    _block: list[_Seen] = field(default_factory=list)
    _blocks: int = 0
    _settle: int = 0
    _resumed: float = 0.0
    _resumed_processor: float = 0.0
    _last_bare: float = 0.0
    _last_series: tuple[int, float] = (0, 0.0)
    _before: Any = None

    def write(self, frame: Frame, analysis: Analysis) -> None:
        now, processor = time.perf_counter(), time.thread_time()
        machinery, timing = self.machinery, analysis.timing_ms
        attributes = timing.get("attributes", 0.0)
        capture, face, total = timing["capture"], timing["face"], timing["total"]
        loop = (now - self._resumed) * 1e3 if self._resumed else total
        prepared = frame.prepared
        if not isinstance(prepared, Prepared):
            prepared = machinery.detector.prepare(frame.image)
        estimator = machinery.estimator
        ms = {
            "capture": capture,
            "face": face,
            "invoke": machinery.detector.last_invoke_ms,
            "track": total - capture - face - attributes - timing.get("unmask", 0.0),
            "attributes": attributes,
            "attributes_invoke": estimator.last_invoke_ms if estimator else 0.0,
            "busy": total - capture,
            "loop": loop,
            "frame_age": timing["frame_age"],
            "processor": (processor - self._resumed_processor) * 1e3,
        }
        self._block.append(_Seen(ms, len(analysis.faces), prepared.pixels, [*machinery.seen]))
        machinery.seen.clear()
        if len(self._block) == BLOCK:
            self._end_block()
        self._resumed_processor = time.thread_time()
        self._resumed = time.perf_counter()

    def _end_block(self) -> None:
        block, now = self._block[self._settle :], time.monotonic()
        self._blocks += 1
        counts = self._blocks > WARM_UP
        if counts:
            self.spent.add(self._before, usage())
            self._count(block, now)
        self._settle = 0
        if self.bare_every_s is not None and now - self._last_bare >= self.bare_every_s:
            ratio, processor = self._time_bare(block, count=counts)
            if counts:
                self.ratios.append(ratio)
                self.processor_ratios.append(processor)
            self._last_bare, self._settle = time.monotonic(), SETTLE
        if self.turns is not None:
            self.turns.end_block([seen.ms["busy"] for seen in block], count=counts)
            self._settle = SETTLE
        self._block.clear()
        self._before = usage()

    def _count(self, block: Sequence[_Seen], now: float) -> None:
        for seen in block:
            for stage, ms in seen.ms.items():
                self.times[stage].append(ms)
            self.faces.append(seen.faces)
            self.looks.append(len(seen.crops))
            self.at_s.append(now)
        mhz = frequency_mhz()
        self.spent.add_clock(mhz)
        loop = self.times["loop"]
        first, begun = self._last_series
        if not begun:
            self._last_series = 0, now
        elif now - begun >= SERIES_S:
            self._last_series = len(loop), now
            part = np.asarray(loop[first:])
            self.series.append(
                {
                    "at_s": round(now - self.at_s[0], 1),
                    "p50": round(float(np.median(part)), 4),
                    "p90": round(float(np.percentile(part, 90)), 4),
                    "fps": round(1e3 / float(part.mean()), 2),
                    "temperature_c": board.temperature_c(),
                    "mhz": mhz,
                }
            )
            self.problems += self.guard.problems()
            progress(f"{self.spent.wall:.0f} of {self.seconds:.0f} s")
        self.stop_requested = self.spent.wall >= self.seconds

    def _time_bare(self, block: Sequence[_Seen], *, count: bool) -> tuple[float, float]:
        """Time the bare models on what the frames of a block showed them, in the same order.

        Returns:
            The block's time in the loop over this; the same of the processor time of this thread, which a
            busy machine does not stretch.
        """
        face, attributes, clock = self.machinery.bare_face, self.machinery.bare_attributes, time.perf_counter
        face.set_inputs(block[0].pixels)
        face.invoke()  # uncounted: it comes after other work
        whole = processor = 0.0
        for seen in block:
            of_frame = 0.0
            work = [("face", face, seen.pixels), *(("attributes", attributes, crop) for crop in seen.crops)]
            for name, model, pixels in work:
                assert model is not None
                model.set_inputs(pixels)
                start, begun = clock(), time.thread_time()
                model.invoke()
                processor += (time.thread_time() - begun) * 1e3
                ms = (clock() - start) * 1e3
                of_frame += ms
                if count:
                    self.bare[name].append(ms)
            whole += of_frame
            if count:
                self.bare_frames.append(of_frame)
        loop, own = (sum(seen.ms[stage] for seen in block) for stage in ("loop", "processor"))
        return loop / whole, own / processor

    def parts(self) -> dict[str, float] | None:
        """Milliseconds of a frame by `PARTS`; they add up to `loop`, which is there as well.

        Means over the half of the frames, and of the bare invokes, that are neither among the fastest nor
        among the slowest quarter: on a disturbed machine the mean of all says more about the disturbance.
        None where the bare models had no turn.
        """
        if not self.bare_frames:
            return None
        every = {stage: np.asarray(self.times[stage]) for stage in STAGES}
        middle = _middle(every["loop"])
        mean = {stage: float(values[middle].mean()) for stage, values in every.items()}
        face = _trimmed(self.bare["face"])
        # As many looks as the frames chosen have, which may be other than those of all.
        looks = float(np.asarray(self.looks)[middle].mean())
        attributes = looks * _trimmed(self.bare["attributes"]) if self.bare["attributes"] else 0.0
        found = {
            "face_bare": face,
            "attributes_bare": attributes,
            "face_call": mean["invoke"] - face,
            "attributes_call": mean["attributes_invoke"] - attributes,
            "decode": mean["face"] - mean["invoke"],
            "track": mean["track"],
            "attributes_rest": mean["attributes"] - mean["attributes_invoke"],
            "hand_over": mean["capture"],
        }
        found["other"] = mean["loop"] - sum(found.values())
        return {key: round(value, 4) for key, value in found.items()} | {"loop": round(mean["loop"], 4)}


def _middle(values: np.ndarray) -> np.ndarray:
    """Places of the values between the first and the third quartile."""
    low, high = np.percentile(values, (25, 75))
    return np.flatnonzero((values >= low) & (values <= high))


def _trimmed(values: Sequence[float]) -> float:
    every = np.asarray(values)
    return float(every[_middle(every)].mean())


# -------------------------------------------------------------------------------------------------- rows


def run_scene(
    scene: Scene, mode: str, machinery: Machinery, *, seconds: float, fps: float, guard: Guard
) -> dict[str, Any] | None:
    """Run the loop on a scene, and say how it went.

    Args:
        scene: the clip.
        mode: burst, camera or sustained; see `EPILOG`.
        machinery: the models.
        seconds: of the loop, at least.
        fps: of the stand-in for a camera.
        guard: what watches governor and throttling.

    Returns:
        The row of the result file; None after a KeyboardInterrupt, as far as nothing counts yet.
    """
    bare_every_s = {"burst": 0.0, "sustained": SUSTAINED_BARE_S}.get(mode)
    turns = None
    if mode == "unmask" and machinery.unmasker is not None:
        turns = Turns(LiveUnmasker(machinery.unmasker, every_s=machinery.config.unmask_seconds))
    probe = Probe(machinery, seconds, bare_every_s, guard, turns)
    behind_camera = mode in BEHIND_CAMERA
    source = ClipCamera(scene.path, fps) if behind_camera else VideoFile(scene.path, loop=True)
    machinery.seen.clear()
    interrupted = False
    reset_peak_rss()
    with EnergyMeter() as meter:
        try:
            Pipeline(source, machinery.detector, [probe], labeller=machinery.voter(), unmasker=turns).run()
        except KeyboardInterrupt:
            interrupted = True
    if not probe.faces:
        return None
    problems = [*probe.problems, *guard.problems(last=True)]
    if interrupted:
        problems.append("it was interrupted before its time was over")
    # The loop waits for its own reader thread where cores are few: that is part of what is measured.
    probe.spent.waited = None
    notes = [*dict.fromkeys(problems + probe.spent.problems())]
    frames, wall = len(probe.faces), probe.spent.wall
    loop, found = np.asarray(probe.times["loop"]), np.asarray(probe.faces)
    samples, at = thin(probe.times["loop"], [one - probe.at_s[0] for one in probe.at_s], MOST_SAMPLES)
    row: dict[str, Any] = {
        "mode": mode,
        "scene": scene.name,
        "faces_wanted": scene.faces,
        "faces_found": round(float(found.mean()), 3),
        "as_wanted": None if scene.faces is None else round(float((found == scene.faces).mean()), 4),
        "tasks": list(machinery.config.tasks),
        "runtime": machinery.bare_face.runtime,
        "threads": machinery.bare_face.threads,
        "models": [model.name for model in (machinery.bare_face, machinery.bare_attributes) if model],
        "frames": frames,
        "seconds": round(wall, 3),
        "fps": round(1e3 / float(loop.mean()), 2),
        "stages": {stage: _figures(values) for stage, values in probe.times.items()},
        "frame_age": _figures(probe.times["frame_age"]),
        "dropped": source.dropped if behind_camera else None,
        "looks": round(float(np.mean(probe.looks)), 4),
        "bare": {name: _figures(values) for name, values in probe.bare.items() if values} or None,
        "overhead": None,
        "overhead_ci": None,
        "overhead_means": None,
        "overhead_processor": None,
        "parts": probe.parts(),
        "unmask": turns.to_json() if turns else None,
        "cpu_percent": round(100 * probe.spent.own / wall, 1),
        "rss_mb": rss_mb(),
        "peak_rss_mb": peak_rss_mb(),
        "energy_source": None,
        "watts": None,
        "millijoules": None,
        "series": probe.series,
        **probe.spent.to_json(),
        "valid": not notes,
        "notes": notes,
        "samples_ms": [round(value, 4) for value in samples],
        "samples_at_s": [round(value, 3) for value in at],
    }
    if probe.ratios:
        overhead = intervals.quantile([np.array([ratio]) for ratio in probe.ratios])
        row |= {"overhead": round(overhead.value, 4), "overhead_ci": overhead.to_json()}
        row["overhead_processor"] = round(float(np.median(probe.processor_ratios)), 4)
        row["overhead_means"] = round(float(loop.mean() / np.mean(probe.bare_frames)), 4)
    if mode != "burst" and meter.watts is not None:  # in a burst half of it would be that of the bare models
        row |= {"energy_source": meter.source, "watts": round(meter.watts, 3)}
        row["millijoules"] = round(meter.watts * wall / frames * 1e3, 3)
    return row


def _figures(times_ms: Sequence[float]) -> dict[str, float]:
    times = np.asarray(times_ms, np.float64)
    figures = {f"p{q}": np.percentile(times, q) for q in PERCENTILES} | {"mean": times.mean()}
    return {key: round(float(value), 4) for key, value in figures.items()}


def measure(
    source: str = "demo",
    *,
    faces: Sequence[int | None] = (None, 0, 1, 4, 10),
    seconds: float = 10.0,
    minutes: float = 0.0,
    fps: float = 30.0,
    threads: int = 1,
    config: Config | None = None,
) -> dict[str, Any]:
    """Run the whole loop, scene by scene.

    Args:
        source: `demo`, or the path of a video.
        faces: how many are to be in view, row by row; None is the clip as it is.
        seconds: of the loop, each row.
        minutes: of the sustained row, which shows one face, or else the first of `faces`; 0 for none.
        fps: of the stand-in for a camera; 0 leaves its rows out.
        threads: of the models, and of OpenCV.
        config: tasks, precision, models folder, and how often faces are looked at; by default the defaults.

    Returns:
        The result file, `kind` loop; docs/benchmarks.md names the fields. After a KeyboardInterrupt it has
        what was measured so far.

    Raises:
        KeyboardInterrupt: when nothing was measured yet.
        ModelError: a model is missing or damaged.
        InputError: the source is no video, or scenes cannot be composed of it.
    """
    facts, whole, before = machine(), Spent(), usage()
    machinery = Machinery.load(config or Config(), threads=threads)
    cv2_threads = cv2.getNumThreads()
    cv2.setNumThreads(threads)
    rows: list[dict[str, Any]] = []
    interrupted = False
    try:
        with tempfile.TemporaryDirectory(prefix="maskedge-loop-") as folder:
            progress("composing the scenes")
            scenes = make_scenes(source, faces, machinery.detector, Path(folder))
            plan = [(scene, "burst", seconds) for scene in scenes]
            plan += [(scene, "camera", seconds) for scene in scenes if fps and scene.faces is not None]
            if machinery.unmasker is not None and fps:
                plan.append((scenes[0], "unmask", seconds))
            if minutes:
                steady = next((scene for scene in scenes if scene.faces == 1), scenes[0])
                plan.append((steady, "sustained", minutes * 60))
            for number, (scene, mode, long) in enumerate(plan, 1):
                shown = "the clip" if scene.faces is None else f"{scene.faces} face(s)"
                progress(f"row {number} of {len(plan)}: {shown}, {mode}, {long:.0f} s")
                row = run_scene(scene, mode, machinery, seconds=long, fps=fps, guard=Guard())
                if row is not None:
                    rows.append(row)
                if row is None or any("interrupted" in note for note in row["notes"]):
                    interrupted = True
                    break
    except KeyboardInterrupt:
        interrupted = True
    finally:
        cv2.setNumThreads(cv2_threads)
        progress("")
    if not rows:
        raise KeyboardInterrupt
    whole.add(before, usage())
    result: dict[str, Any] = {
        "version": 1,
        "kind": "loop",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": facts | machine_after(whole),
        "source": source,
        "fps": fps or None,
        "rows": rows,
        "notes": [],
    }
    invalid = sum(not row["valid"] for row in rows)
    if invalid:
        result["notes"].append(f"{invalid} of {len(rows)} rows are invalid: compare them with nothing")
    if interrupted:
        result["interrupted"] = True
    return result


# ---------------------------------------------------------------------------------------------- the command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `maskedge bench loop`."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--source", default="demo", metavar="CLIP", help="demo, or a video file (default %(default)s)"
    )
    parser.add_argument(
        "--faces",
        default="clip,0,1,4,10",
        help="faces in view, composed of frames of the clip; clip is the clip as it is (default %(default)s)",
    )
    parser.add_argument(
        "--seconds", type=some_time, default=10.0, help="of the loop, each row (default %(default)s)"
    )
    parser.add_argument(
        "--minutes", type=some_time, default=0.0, help="of a sustained row besides (default: none)"
    )
    parser.add_argument(
        "--fps",
        type=_rate,
        default=30.0,
        help="of the stand-in for a camera; 0 leaves its rows out (default %(default)s)",
    )
    parser.add_argument(
        "--threads", type=whole_number, default=1, help="of the models and OpenCV (default %(default)s)"
    )
    parser.add_argument("--precision", help="of the models (default: the manifest's)")
    parser.add_argument("--tasks", metavar="TASK[,TASK]", help="as of maskedge run (default: its default)")
    parser.add_argument("--models", metavar="DIR", help="folder of the models and their manifest.json")
    parser.add_argument("--json", metavar="FILE", help="write the result there; - for standard output")


def main(args: argparse.Namespace) -> int:
    """Measure, print the tables, write the JSON; returns the exit code.

    Raises:
        ModelError: a model is missing, damaged, or does not fit the runtime.
        UsageError: a bad option.
        InputError: the source is no clip, or has too few different frames.
        SinkError: the result cannot be written.
    """
    check_output(args.json)
    names = ("precision", "tasks", "models")
    config = load_config(overrides={name: getattr(args, name) for name in names})
    if args.threads > 256:
        raise UsageError(f"bad --threads {args.threads}", remedy="give a number from 1 to 256")
    try:
        result = measure(
            args.source,
            faces=face_counts(args.faces),
            seconds=args.seconds,
            minutes=args.minutes,
            fps=args.fps,
            threads=args.threads,
            config=config,
        )
    except KeyboardInterrupt:
        print("interrupted before anything was measured: nothing was written", file=sys.stderr)
        return 130
    print(table(result), file=sys.stderr if args.json == "-" else sys.stdout)
    write_result(result, args.json)
    if result.get("interrupted"):
        print("interrupted: rows that are not complete are marked invalid", file=sys.stderr)
        return 130
    return 0


def face_counts(text: str) -> list[int | None]:
    """`clip,0,1` as numbers, None for clip, without repeats.

    Raises:
        UsageError: something else is in it.
    """
    found: list[int | None] = []
    for part in (part.strip() for part in text.split(",")):
        if part == "clip":
            found.append(None)
        elif part.isascii() and part.isdigit() and int(part) <= MOST_FACES:
            found.append(int(part))
        else:
            remedy = f"give numbers from 0 to {MOST_FACES}, or clip, as clip,0,1"
            raise UsageError(f"bad --faces {text!r}", remedy=remedy)
    return [*dict.fromkeys(found)]


def _rate(text: str) -> float:
    return number_to(text, 1000, "number of frames per second")


def table(result: Mapping[str, Any]) -> str:
    """The result for a reader, in Markdown."""
    facts, rows = result["machine"], result["rows"]
    first = rows[0]
    lines = [
        (
            f"{facts['cpu']}, {facts['usable_cores']} of {facts['cores']} cores, {first['runtime']}, "
            f"{' + '.join(first['models'])}, {first['threads']} thread(s), clip {result['source']}; ms"
        )
    ]
    fast = [row for row in rows if row["mode"] not in BEHIND_CAMERA]
    if fast:
        lines += [
            "",
            "| scene | faces found | looks | p50 | p90 | p99 | fps | loop / bare invokes | CPU % | peak MB |",
            "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        ]
    for row in fast:
        loop = row["stages"]["loop"]
        cells = [_scene(row), f"{row['faces_found']:.2f}", f"{row['looks']:.2f}"]
        cells += [f"{loop[key]:.2f}" for key in ("p50", "p90", "p99")] + [f"{row['fps']:.0f}"]
        cells += [_overhead(row), f"{row['cpu_percent']:.0f}", str(row["peak_rss_mb"] or "-")]
        lines.append(f"| {' | '.join(cells)} |")
    camera = [row for row in rows if row["mode"] in BEHIND_CAMERA]
    if camera:
        lines += [
            "",
            f"| camera, {result['fps']:g} fps | found | fps | dropped | busy | age p50 | p90 | p99 | CPU % |",
            "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
        ]
    for row in camera:
        age = row["frame_age"]
        cells = [_scene(row), f"{row['faces_found']:.2f}", f"{row['fps']:.1f}", str(row["dropped"])]
        cells += [f"{row['stages']['busy']['p50']:.2f}"] + [
            f"{age[key]:.2f}" for key in ("p50", "p90", "p99")
        ]
        cells.append(f"{row['cpu_percent']:.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    chosen = next((row for row in fast if row["faces_wanted"] == 1 and row["parts"]), None)
    if chosen is not None:
        lines += ["", parts_table(chosen["parts"])]
    for row in rows:
        if row["watts"] is not None:
            power = f"{row['watts']:.2f} W, {row['millijoules']:.1f} mJ a frame ({row['energy_source']})"
            lines.append(f"\nEnergy, {_scene(row)}, {row['mode']}: {power}")
        if row["mode"] == "sustained" and row["series"]:
            lines.append(f"\n{_drift(row['series'])}")
        if row["mode"] == "unmask":
            lines.append(f"\n{unmask_words(row['unmask'])}")
    invalid = [row for row in rows if not row["valid"]]
    lines += ["", "! does not count:"] if invalid else []
    lines += [f"- {_scene(row)}, {row['mode']}: {'; '.join(row['notes'])}" for row in invalid]
    lines += [f"\nNote: {note}" for note in result["notes"]]
    return "\n".join(lines)


def unmask_words(figures: Mapping[str, Any] | None) -> str:
    """What unmasking beside the loop costs it, in a sentence."""
    if figures is None:
        return "Unmasking: the clip shows no mask over a mouth for long enough, or --seconds is too short."
    low, high = figures["overhead_ci"]
    busy = "{:.2f} and {:.2f}".format(*(figures[key]["p50"] for key in ("busy_with", "busy_without")))
    return (
        f"Unmasking beside the loop: {figures['overhead']:.2f} ({low:.2f} to {high:.2f}) times its time "
        f"a frame without ({figures['pairs']} pairs of blocks in turns; p50 {busy} ms), "
        f"{figures['completions']} completions of {figures['invoke']['p50']:.2f} ms."
    )


def parts_table(parts: Mapping[str, float]) -> str:
    """What a frame with one face is made of, in Markdown."""
    lines = ["| one face: stage | µs | share |", "|---|--:|--:|"]
    for key, words in PARTS.items():
        if parts[key]:
            lines.append(f"| {words} | {parts[key] * 1e3:.0f} | {100 * parts[key] / parts['loop']:.1f} % |")
    lines.append(f"| the whole loop | {parts['loop'] * 1e3:.0f} | 100 % |")
    return "\n".join(lines)


def _drift(series: Sequence[Mapping[str, Any]]) -> str:
    """The first and the last part of a long run."""
    one, last = series[0], series[-1]
    told = [f"p90 {one['p90']:.2f} to {last['p90']:.2f} ms", f"{one['fps']:.0f} to {last['fps']:.0f} fps"]
    for key, unit in (("temperature_c", "°C"), ("mhz", "MHz")):
        if one[key] is not None and last[key] is not None:
            told.append(f"{one[key]:.0f} to {last[key]:.0f} {unit}")
    return f"From {one['at_s']:.0f} s to {last['at_s']:.0f} s: {', '.join(told)}"


def _scene(row: Mapping[str, Any]) -> str:
    name = "the clip" if row["faces_wanted"] is None else f"{row['faces_wanted']} face(s)"
    long = f", {row['seconds'] / 60:.1f} min" if row["mode"] == "sustained" else ""
    long += ", unmask" if row["mode"] == "unmask" else ""
    return name + long + ("" if row["valid"] else " !")


def _overhead(row: Mapping[str, Any]) -> str:
    if row["overhead"] is None:
        return "-"
    low, high = row["overhead_ci"]
    return f"{row['overhead']:.2f} ({low:.2f} to {high:.2f})"

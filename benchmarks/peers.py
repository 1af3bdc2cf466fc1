"""Our models against what one would take instead: `maskedge bench peers`.

Everything is timed on the same pictures with its own pre- and postprocessing, and takes turns in short
rounds, so that a machine that slows down slows all alike. docs/benchmarks.md says how, and how figures are
compared.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks import detectors, intervals
from benchmarks.accuracy import Accuracies, Answers, Labelled, matches, read_labelled, worn_right
from benchmarks.detectors import Detector
from benchmarks.latency import check_output, write_result
from benchmarks.machine import Guard, Spent, frequency_mhz, machine, machine_after, thin, usage
from benchmarks.terminal import progress, whole_number
from edge.camera import open_source
from edge.errors import InputError, MaskedgeError, UsageError
from edge.tasks.attributes import AttributesEstimator
from edge.tasks.face import FaceDetector
from edge.tflite import Model, available_cores, find_runtime, load_manifest, load_model
from edge.types import Face

ROUND = 5
"""Pictures a turn: long enough for the caches to settle, short enough for a drift to hit all rows alike."""
MOST_SAMPLES = 1000
LOW_SCORE = 0.02  # precision-recall curves start here

FILES = {
    "YuNet 320 px": "face_detection_yunet_2026may.onnx",
    "YuNet 640 px": "face_detection_yunet_2026may.onnx",
    "BlazeFace short range": "face_detection_short_range.tflite",
    "BlazeFace full range": "face_detection_full_range.tflite",
    "AIZOO 260 px": "aizoo_face_mask_detection.tflite",
}
OURS_FACE, OURS_BOTH, OURS_ATTRIBUTES = "maskedge face", "maskedge face + attributes", "maskedge attributes"
KERAS = "Keras gender CNN 96 px"
RIVALS = dict.fromkeys(FILES, OURS_FACE) | {"AIZOO 260 px": OURS_BOTH, KERAS: OURS_ATTRIBUTES}
"""Which of ours does the same job."""

EXAMPLES = """examples:
  maskedge bench peers --peers peers/                       latency of all that is there
  maskedge bench peers --peers peers/ --scenes ilc/ --json peers.json
                                                            with accuracy on a labelled folder beside it

--peers is a folder with the files of others, under the names they are published with:
  face_detection_yunet_2026may.onnx (OpenCV Zoo), face_detection_short_range.tflite and
  face_detection_full_range.tflite (MediaPipe), aizoo_face_mask_detection.tflite (AIZOO)
The Keras network needs TensorFlow; its weights are random, so that it has a latency and no accuracy.
What is missing is skipped and said."""


# ------------------------------------------------------------------------------------------------- rows


@dataclass(slots=True)
class Row:
    """One competitor at one thread count, and what was measured of it.

    Attributes:
        name, task, precision, runtime, threads, bytes: what it is.
        unit: what one sample is: `picture` or `face`.
        run: does the work for item i of the run once.
        rounds: milliseconds by round.
        at_s: seconds since the first round, of every sample.
        spent: processor time during its turns.
    """

    name: str
    task: str
    precision: str
    runtime: str
    threads: int
    bytes: int | None
    unit: str
    run: Callable[[Sequence[int]], Turn]
    rounds: list[np.ndarray] = field(default_factory=list)
    at_s: list[float] = field(default_factory=list)
    spent: Spent = field(default_factory=Spent)
    problems: list[str] = field(default_factory=list)
    accuracy: dict[str, Any] | None = None
    worn: dict[str, Any] | None = None

    def result(self) -> dict[str, Any]:
        """The row of the result file."""
        times = np.concatenate(self.rounds)
        figures = {"mean": times.mean(), "min": times.min(), "max": times.max(), "std": times.std()}
        figures |= {f"p{q}": np.percentile(times, q) for q in (50, 90, 95, 99)}
        samples, at = thin(times.tolist(), self.at_s, MOST_SAMPLES)
        notes = list(dict.fromkeys([*self.problems, *self.spent.problems()]))
        return {
            "model": self.name,
            "task": self.task,
            "unit": self.unit,
            "precision": self.precision,
            "runtime": self.runtime,
            "threads": self.threads,
            "runs": len(times),
            "rounds": len(self.rounds),
            **{key: round(float(value), 4) for key, value in figures.items()},
            "p50_ci": intervals.quantile(self.rounds, 0.5).to_json(),
            "p90_ci": intervals.quantile(self.rounds, 0.9).to_json(),
            "bytes": self.bytes,
            "accuracy": self.accuracy,
            "worn_or_not": self.worn,
            **self.spent.to_json(),
            "valid": not notes,
            "notes": notes,
            "samples_ms": [round(value, 4) for value in samples],
            "samples_at_s": [round(value, 3) for value in at],
        }


@dataclass(slots=True, frozen=True)
class Turn:
    """What one turn measured: milliseconds an item, when each began (`time.monotonic`), processor time."""

    times_ms: list[float]
    begun: list[float]
    spent: Spent


def timed(work: Callable[[int], object], items: Sequence[int]) -> Turn:
    """Do the work for all items; first once uncounted, since the caches are full of the row before."""
    work(items[0])
    spent, before = Spent(), usage()
    times, begun = [], []
    for item in items:
        begun.append(time.monotonic())
        start = time.perf_counter()
        work(item)
        times.append((time.perf_counter() - start) * 1e3)
    spent.add(before, usage())
    return Turn(times, begun, spent)


def take_turns(
    rows: Sequence[Row],
    items: int,
    *,
    rounds: int,
    guard: Guard | None = None,
    told: Callable[[int], object] = lambda done: None,
) -> bool:
    """Let the rows take turns until all had `rounds` of them; every other round in reverse order (A B B A).

    Args:
        rows: their `run` is called with the numbers of the items of the round, the same for all.
        items: how many there are to go through, again and again.
        rounds: turns of each row.
        guard: what watches governor and throttling; None means no one.
        told: after each round, how many are done.

    Returns:
        False if it was interrupted (Ctrl-C); a round that was begun is then dropped from all rows.
    """
    begun = time.monotonic()
    for number in range(rounds):
        chosen = [(number * ROUND + k) % items for k in range(min(ROUND, items))]
        turns: list[tuple[Row, Turn]] = []
        try:
            for row in rows if number % 2 == 0 else reversed(rows):
                turns.append((row, row.run(chosen)))
        except KeyboardInterrupt:
            return False
        clock = frequency_mhz()
        watched = guard.problems(last=number == rounds - 1) if guard else []
        for row, turn in turns:
            row.rounds.append(np.array(turn.times_ms))
            row.at_s += [at - begun for at in turn.begun]
            row.spent.join(turn.spent)
            row.spent.add_clock(clock)
            row.problems += watched
        told(number + 1)
    return True


# ---------------------------------------------------------------------------------------- the competitors


@dataclass(slots=True)
class Material:
    """What is shown to the rows: `pictures` (BGR), and the largest face in each."""

    pictures: list[np.ndarray]
    faces: list[Face]


def _in_this_process(work: Callable[[int], object], threads: int) -> Callable[[Sequence[int]], Turn]:
    def run(items: Sequence[int]) -> Turn:
        cv2.setNumThreads(threads)  # one setting for the whole process: each turn brings its own
        return timed(work, items)

    return run


def _our_rows(material: Material, threads: int, precision: str | None) -> list[Row]:
    manifest = load_manifest()
    models = {name: load_model(name, precision=precision, threads=threads) for name in ("face", "attributes")}
    chosen = {name: manifest.entry(name).precision(precision) for name in models}
    sizes = {name: manifest.entry(name).files[chosen[name]].bytes for name in models}
    detector = FaceDetector(models["face"], manifest.entry("face"))
    estimator = AttributesEstimator(models["attributes"], manifest.entry("attributes"))
    label = "/".join(dict.fromkeys(chosen.values()))

    def both(i: int) -> object:
        picture = material.pictures[i]
        return estimator.label(picture, detector.detect(picture))

    jobs: list[tuple[str, str, str, int, Callable[[int], object]]] = [
        (OURS_FACE, "face", "picture", sizes["face"], lambda i: detector.detect(material.pictures[i])),
        (OURS_BOTH, "face and mask", "picture", sum(sizes.values()), both),
        (
            OURS_ATTRIBUTES,
            "attributes",
            "face",
            sizes["attributes"],
            lambda i: estimator.estimate(material.pictures[i], (material.faces[i],)),
        ),
    ]
    return [
        Row(
            name,
            task,
            label if name == OURS_BOTH else chosen[task],
            models["face"].runtime,
            threads,
            size,
            unit,
            _in_this_process(work, threads),
        )
        for name, task, unit, size, work in jobs
    ]


def load_detector(name: str, folder: Path, *, threads: int, score: float | None = None) -> Detector:
    """One of the others, ready to run.

    Args:
        name: of `FILES`.
        folder: with the model files.
        threads: of the TFLite ones; OpenCV's is a setting of the process.
        score: of the faces to report; None for what its authors recommend.

    Raises:
        ModelError: the file is missing, damaged or not what its name says.
    """
    path = folder / FILES[name]
    asked: dict[str, Any] = {} if score is None else {"score": score}
    if name.startswith("YuNet"):
        return detectors.yunet(path, size=int(name.split()[1]), **asked)
    model = Model(path, threads=threads)
    return (detectors.aizoo if name.startswith("AIZOO") else detectors.blazeface)(model, **asked)


def _other_rows(material: Material, folder: Path, threads: int, skipped: list[dict[str, str]]) -> list[Row]:
    rows = []
    for name, file in FILES.items():
        if (why := _why_not(folder / file)) is not None:
            _skip(skipped, name, why)
            continue
        try:
            detector = load_detector(name, folder, threads=threads)
        except (MaskedgeError, ValueError, IndexError, KeyError, cv2.error) as error:
            _skip(skipped, name, " ".join(str(error).split())[:200])
            continue
        opencv = name.startswith("YuNet")
        rows.append(
            Row(
                name,
                "face and mask" if name.startswith("AIZOO") else "face",
                "float32",
                f"OpenCV {cv2.__version__}" if opencv else find_runtime().label,
                threads,
                (folder / file).stat().st_size,
                "picture",
                _in_this_process(
                    lambda i, detector=detector: detector(material.pictures[i]),  # type: ignore[misc]
                    threads,
                ),
            )
        )
    return rows


def _why_not(path: Path) -> str | None:
    if not path.is_file():
        return f"no {path.name} in {path.parent}"
    if path.suffix == ".onnx" and not hasattr(cv2, "FaceDetectorYN"):
        return f"OpenCV {cv2.__version__} has no FaceDetectorYN (from 4.5.4)"
    return None


def _skip(skipped: list[dict[str, str]], name: str, reason: str) -> None:
    if not any(one["model"] == name for one in skipped):
        skipped.append({"model": name, "reason": reason})


# -------------------------------------------------------------------------------------------------- Keras


class KerasWorker:
    """The Keras network in a process of its own: TensorFlow takes its thread counts once, at its start.

    Args:
        faces: crops to show it, each H x W x 3 uint8, BGR.
        threads: of TensorFlow.

    Raises:
        MaskedgeError: TensorFlow did not start.
    """

    def __init__(self, faces: Sequence[np.ndarray], threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve_keras, args=(theirs, list(faces), threads), daemon=True)
        self._process.start()
        theirs.close()
        self.runtime = str(self._receive())

    def run(self, items: Sequence[int]) -> Turn:
        """One turn; see `timed`."""
        self._pipe.send(list(items))
        turn = self._receive()
        assert isinstance(turn, Turn)
        return turn

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.terminate()
        self._process.join(10)

    def _receive(self) -> object:
        try:
            answer = self._pipe.recv()
        except EOFError:
            raise MaskedgeError(
                "the process of the Keras network ended", remedy="leave it out: --no-keras"
            ) from None
        if isinstance(answer, Exception):
            raise MaskedgeError(f"the Keras network failed: {answer}", remedy="leave it out: --no-keras")
        return answer


def _serve_keras(pipe: Connection, faces: list[np.ndarray], threads: int) -> None:
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    # What TensorFlow says at its start is no concern of the user; what fails comes through the pipe.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        import tensorflow

        tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
        tensorflow.config.threading.set_inter_op_parallelism_threads(threads)
        import keras

        cv2.setNumThreads(threads)
        model = gender_cnn()

        def work(i: int) -> object:
            crop = cv2.resize(faces[i], (96, 96)).astype("float32") / 255.0
            return model.predict(crop[None], verbose=0)[0]

        work(0)
        pipe.send(f"Keras {keras.__version__}, TensorFlow {tensorflow.__version__}")
        while True:
            pipe.send(timed(work, pipe.recv()))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return
    except Exception as error:
        pipe.send(RuntimeError(" ".join(f"{type(error).__name__}: {error}".split())[:300]))


def gender_cnn() -> Any:
    """The small VGG of many student projects (SmallerVGGNet, A. Ponnusamy's gender-detection-keras), 96 px.

    Its weights are random: they are of no use for accuracy, and latency does not depend on them.
    """
    import keras
    from keras import layers

    def conv(filters: int) -> list[Any]:
        return [
            layers.Conv2D(filters, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
        ]

    return keras.Sequential(
        [
            layers.Input((96, 96, 3)),
            *conv(32),
            layers.MaxPooling2D(3),
            layers.Dropout(0.25),
            *conv(64),
            *conv(64),
            layers.MaxPooling2D(2),
            layers.Dropout(0.25),
            *conv(128),
            *conv(128),
            layers.MaxPooling2D(2),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(1024, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(2, activation="sigmoid"),
        ]
    )


def _keras_row(material: Material, threads: int) -> tuple[Row, KerasWorker]:
    crops = []
    for picture, face in zip(material.pictures, material.faces, strict=True):
        x, y, w, h = (round(v) for v in face.box)
        crops.append(np.ascontiguousarray(picture[y : y + max(1, h), x : x + max(1, w)]))
    worker = KerasWorker(crops, threads)
    row = Row(KERAS, "gender", "float32", worker.runtime, threads, None, "face", worker.run)
    return row, worker


# ------------------------------------------------------------------------------------------------ accuracy


def answers(name: str, folder: Path | None, data: Labelled, precision: str | None) -> Answers:
    """Run one of the rows that find faces over the labelled pictures, twice where it tells masks."""
    progress(f"accuracy of {name}")
    threads = available_cores()

    def ours(score: float | None) -> Detector:
        manifest = load_manifest()
        model = load_model("face", precision=precision, threads=threads)
        detector = FaceDetector(model, manifest.entry("face"), score_threshold=score)
        if name == OURS_FACE:
            return detectors.ours(detector)
        second = load_model("attributes", precision=precision, threads=threads)
        return detectors.ours(detector, AttributesEstimator(second, manifest.entry("attributes")))

    def load(score: float | None) -> Detector:
        if name in (OURS_FACE, OURS_BOTH):
            return ours(score)
        assert folder is not None
        return load_detector(name, folder, threads=threads, score=score)

    low = load(LOW_SCORE)
    found = [low(picture) for picture in data.pictures]
    worn = None
    if found[0].worn is not None:
        usual = load(None)
        worn = worn_right(data, [usual(picture) for picture in data.pictures])
    return Answers(matches(data, found), worn)


# --------------------------------------------------------------------------------------------- comparisons


def compare(rows: Sequence[Row], accuracies: Accuracies | None) -> list[dict[str, Any]]:
    """Each competitor against the one of ours that does the same job, at the same number of threads.

    Returns:
        Items with `peer`, `ours`, `threads`; `times_as_fast` and `times_as_fast_ci` (median of the peer over
        ours, paired by rounds); `accuracy` (list of `figure`, `ahead`, `ci`, `verdict`); `faster` and
        `more_accurate`: "ahead", "behind" or "level" (the interval holds 1, or 0); of several figures the
        worst counts, and without one `more_accurate` is None.
    """
    by_key = {(row.name, row.threads): row for row in rows}
    out = []
    for row in rows:
        mine = by_key.get((RIVALS.get(row.name, ""), row.threads))
        if mine is None:
            continue
        speed = intervals.ratio(row.rounds, mine.rounds, paired=True)
        figures = []
        if accuracies and row.name in accuracies.answers:
            pairs = [("AP", accuracies.ap_ahead(mine.name, row.name))]
            worn = accuracies.worn_ahead(mine.name, row.name)
            pairs += [("worn or not", worn)] if worn else []
            figures = [
                {
                    "figure": figure,
                    "ahead": round(ahead.value, 4),
                    "ci": ahead.to_json(),
                    "verdict": verdict(ahead, 0.0),
                }
                for figure, ahead in pairs
            ]
        told = {figure["verdict"] for figure in figures}
        out.append(
            {
                "peer": row.name,
                "ours": mine.name,
                "threads": row.threads,
                "times_as_fast": round(speed.value, 3),
                "times_as_fast_ci": speed.to_json(),
                "accuracy": figures,
                "faster": verdict(speed, 1.0),
                "more_accurate": None
                if not told
                else next(one for one in ("behind", "level", "ahead") if one in told),
            }
        )
    return out


def verdict(interval: intervals.Interval, even: float) -> str:
    """`ahead` or `behind` where the whole interval lies on one side of `even`, else `level`."""
    if interval.low > even:
        return "ahead"
    return "behind" if interval.high < even else "level"


# ---------------------------------------------------------------------------------------------- the command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `maskedge bench peers`."""
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--peers", metavar="DIR", help="folder with the model files of others (see below)")
    parser.add_argument(
        "--scenes",
        metavar="DIR",
        help="labelled pictures (images/ and annotations/, PASCAL VOC): adds accuracy, and is what is timed",
    )
    parser.add_argument(
        "--threads", default="1,all", help="one or several, as 1,2 or 1,all (default %(default)s)"
    )
    parser.add_argument(
        "--rounds",
        type=whole_number,
        default=60,
        help=f"turns of each, of {ROUND} pictures (default %(default)s)",
    )
    parser.add_argument(
        "--pictures", type=whole_number, default=40, help="how many different ones (default %(default)s)"
    )
    parser.add_argument("--precision", help="of our models (default: the manifest's)")
    parser.add_argument("--no-keras", action="store_true", help="leave the Keras network out")
    parser.add_argument("--json", metavar="FILE", help="write the result there; - for standard output")


def main(args: argparse.Namespace) -> int:
    """Measure, print the tables, write the JSON; returns the exit code.

    Raises:
        ModelError: one of our models is missing or damaged.
        UsageError: a bad option, or a folder that is none.
        SinkError: the result cannot be written.
    """
    check_output(args.json)
    for option in ("peers", "scenes"):
        folder = getattr(args, option)
        if folder and not Path(folder).is_dir():
            raise UsageError(f"--{option} {folder} is no folder", remedy="give the folder with the files")
    result = measure(
        peers=Path(args.peers) if args.peers else None,
        scenes=Path(args.scenes) if args.scenes else None,
        threads=thread_counts(args.threads),
        rounds=args.rounds,
        pictures=args.pictures,
        precision=args.precision,
        keras=not args.no_keras,
    )
    print(table(result), file=sys.stderr if args.json == "-" else sys.stdout)
    write_result(result, args.json)
    return 130 if result.get("interrupted") else 0


def measure(
    *,
    peers: Path | None = None,
    scenes: Path | None = None,
    threads: Sequence[int] = (1,),
    rounds: int = 60,
    pictures: int = 40,
    precision: str | None = None,
    keras: bool = True,
) -> dict[str, Any]:
    """Time our models and others in turns, and score them on the same labelled pictures.

    Args:
        peers: folder with model files of others; None means ours alone (and Keras).
        scenes: labelled folder; None times frames of the built-in clip and scores nothing.
        threads: thread counts of every row.
        rounds: turns of each row, of `ROUND` pictures.
        pictures: how many different ones are timed at most.
        precision: of our models; None is the manifest's.
        keras: take the Keras network along where TensorFlow is installed.

    Returns:
        The result file, `kind` peers; docs/benchmarks.md names the fields.
    """
    facts, whole, guard = machine(), Spent(), Guard()
    before = usage()
    data = read_labelled(scenes) if scenes else None
    material, where = choose(data.pictures if data else _clip(), pictures, data.name if data else "the clip")
    skipped: list[dict[str, str]] = []
    rows: list[Row] = []
    workers: list[KerasWorker] = []
    cv2_threads = cv2.getNumThreads()
    keras_missing = [name for name in ("keras", "tensorflow") if importlib.util.find_spec(name) is None]
    if peers is None:
        for name in FILES:
            _skip(skipped, name, "no --peers")
    if keras_missing or not keras:
        _skip(
            skipped,
            KERAS,
            f"{keras_missing[0]} is not installed" if keras and keras_missing else "--no-keras",
        )
    try:
        for count in threads:
            progress(f"loading, {count} thread(s)")
            rows += _our_rows(material, count, precision)
            if peers is not None:
                rows += _other_rows(material, peers, count, skipped)
            if keras and not keras_missing:
                row, worker = _keras_row(material, count)
                rows.append(row)
                workers.append(worker)
        for row in rows:  # warm-up
            row.run(range(min(ROUND, len(material.pictures))))
        complete = take_turns(
            rows,
            len(material.pictures),
            rounds=rounds,
            guard=guard,
            told=lambda done: progress(f"{100 * done / rounds:3.0f} %  {len(rows)} rows in turns"),
        )
    finally:
        cv2.setNumThreads(cv2_threads)
        for worker in workers:
            worker.close()
    if not rows[0].rounds:
        raise KeyboardInterrupt
    whole.add(before, usage())
    if not complete:
        for row in rows:
            row.problems.append("it was interrupted before all rounds were done")
    accuracies = None
    if data is not None and complete:
        names = dict.fromkeys(row.name for row in rows if row.unit == "picture")
        accuracies = Accuracies(data, {n: answers(n, peers, data, precision) for n in names})
        for row in rows:
            if row.name in accuracies.answers:
                row.accuracy, row.worn = accuracies.ap(row.name), accuracies.worn(row.name)
    progress("comparing")
    result: dict[str, Any] = {
        "version": 1,
        "kind": "peers",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": facts | machine_after(whole),
        "pictures": where,
        "rows": [row.result() for row in rows],
        "comparisons": compare(rows, accuracies),
        "skipped": skipped,
        "notes": [],
    }
    if KERAS in {row.name for row in rows}:
        result["notes"].append(
            f"{KERAS}: latency only; its weights are random, since none come with this project"
        )
    if not complete:
        result["interrupted"] = True
    progress("")
    return result


def _clip() -> list[np.ndarray]:
    """Some frames of the built-in clip."""
    with open_source("demo") as source:
        return [frame.image for number, frame in enumerate(source.frames()) if number % 4 == 0]


def choose(pictures: Sequence[np.ndarray], most: int, where: str) -> tuple[Material, dict[str, Any]]:
    """Evenly spaced pictures in which our detector finds a face, so that there is one to look at.

    Args:
        pictures: BGR.
        most: how many to take.
        where: what they come from.

    Returns:
        The material, and what the result file says of it.

    Raises:
        InputError: there is no face in any of them.
    """
    manifest = load_manifest()
    detector = FaceDetector(load_model("face", threads=available_cores()), manifest.entry("face"))
    found = []
    for picture in pictures:
        faces = detector.detect(picture)
        if faces:
            found.append((picture, max(faces, key=lambda face: face.box[2] * face.box[3]), len(faces)))
    if not found:
        raise InputError(f"no face was found in {where}", remedy="give other pictures")
    places = np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int)
    chosen = [found[i] for i in dict.fromkeys(places.tolist())]
    material = Material([one[0] for one in chosen], [one[1] for one in chosen])
    return material, {
        "from": where,
        "count": len(chosen),
        "faces": sum(one[2] for one in chosen),
        "median_size": [int(v) for v in np.median([one[0].shape[1::-1] for one in chosen], axis=0)],
    }


def thread_counts(text: str) -> list[int]:
    """`1,all` as numbers, without repeats.

    Raises:
        UsageError: something else is in it.
    """
    try:
        counts = [available_cores() if part.strip() == "all" else int(part) for part in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1 or max(counts) > 256:
        raise UsageError(f"bad --threads {text!r}", remedy="give numbers from 1 on, or all, as 1,all")
    return list(dict.fromkeys(counts))


def table(result: dict[str, Any]) -> str:
    """The result for a reader, in Markdown."""
    facts, shown = result["machine"], result["pictures"]
    lines = [
        (
            f"{facts['cpu']}, {facts['usable_cores']} of {facts['cores']} cores, Python {facts['python']}; "
            f"{shown['count']} pictures of {shown['from']} with {shown['faces']} faces; "
            "times in ms with pre- and postprocessing, 95 % intervals"
        )
    ]
    for unit, title in (("picture", "a picture"), ("face", "one face")):
        rows = [row for row in result["rows"] if row["unit"] == unit]
        if not rows:
            continue
        lines += [
            "",
            f"| {title} | threads | p50 | p90 | runs | AP | worn or not | KB |",
            "|---|--:|--:|--:|--:|--:|--:|--:|",
        ]
        for row in sorted(rows, key=lambda row: (row["threads"], row["p50"])):
            kilobytes = "-" if row["bytes"] is None else f"{row['bytes'] / 1000:.0f}"
            cells = [row["model"] + ("" if row["valid"] else " !"), row["threads"]]
            cells += [
                _with_ends(row["p50"], row["p50_ci"]),
                _with_ends(row["p90"], row["p90_ci"]),
                row["runs"],
            ]
            cells += [_accuracy(row["accuracy"]), _accuracy(row["worn_or_not"]), kilobytes]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    if result["comparisons"]:
        lines.append("")
    lines += [_sentence(one) for one in result["comparisons"]]
    invalid = [row for row in result["rows"] if not row["valid"]]
    lines += ["", "! does not count:"] if invalid else []
    lines += [f"- {row['model']}, {row['threads']} thread(s): {'; '.join(row['notes'])}" for row in invalid]
    lines += [f"\nSkipped: {one['model']}: {one['reason']}" for one in result["skipped"]]
    lines += [f"\nNote: {note}" for note in result["notes"]]
    return "\n".join(lines)


def _with_ends(value: float, ends: Sequence[float]) -> str:
    digits = 2 if value < 10 else 1
    return f"{value:.{digits}f} ({ends[0]:.{digits}f} to {ends[1]:.{digits}f})"


def _accuracy(one: dict[str, Any] | None) -> str:
    return (
        "-" if one is None else f"{one['value']:.3f} ({one['ci'][0]:.3f} to {one['ci'][1]:.3f}; n {one['n']})"
    )


def _sentence(one: dict[str, Any]) -> str:
    low, high = one["times_as_fast_ci"]
    speed = f"{one['times_as_fast']:.2f} times as fast ({low:.2f} to {high:.2f}): {one['faster']}"
    figures = [
        f"{figure['figure']} {figure['ahead']:+.3f} ({figure['ci'][0]:+.3f} to {figure['ci'][1]:+.3f}): "
        f"{figure['verdict']}"
        for figure in one["accuracy"]
    ] or ["accuracy not compared"]
    both = "**ahead in both**" if one["faster"] == one["more_accurate"] == "ahead" else "not ahead in both"
    if not one["accuracy"]:
        both = ""
    head = f"- {one['ours']} against {one['peer']}, {one['threads']} thread(s): "
    return head + "; ".join([speed, *figures, *([both] if both else [])])

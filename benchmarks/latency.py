"""Latency of models: `maskedge bench MODEL...`, or `python -m benchmarks.latency MODEL...`.

Timed is the bare invoke, on pixels that lie in the input tensors already. Every row (model, precision,
thread count, runtime) has a process of its own (`benchmarks.worker`); they take turns in short blocks, so
that a machine that slows down slows all of them alike. docs/benchmarks.md says how, what makes a row invalid,
and what the fields of the result mean.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import logging
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import Guard, Spent, Usage, available_mb, machine, machine_after, thin
from benchmarks.terminal import duration, progress, whole_number
from benchmarks.worker import Task, Worker
from edge.errors import InputError, MaskedgeError, ModelError, RuntimeMissingError, SinkError, UsageError
from edge.files import write_atomically
from edge.tflite import (
    RUNTIMES,
    ModelEntry,
    available_cores,
    find_runtime,
    is_path,
    load_manifest,
    save_tuning,
)

log = logging.getLogger(__name__)

TURN_S = 0.1
"""How long a row measures before the next has its turn."""
WORTH_A_THREAD = 0.95
"""More threads must bring the median below this share of the best: they cost the rest of the loop a core."""
PERCENTILES = (50, 90, 95, 99)
MOST_SAMPLES = 1000
"""Samples kept of a row in the result; its figures are of all of them."""
PICTURES = 4
"""Real inputs that a model is shown in turns."""
_WORKER_MB = 100.0
_SAMPLES = re.compile(r'"samples_(?:ms|at_s)": \[[^]]*\]')

EPILOG = """examples:
  maskedge bench                                    all our models, every precision, 1, 2, ... threads
  maskedge bench face --precision int8 --threads 1  one row
  maskedge bench any.tflite --runs 1000 --seconds 60 --json any.json
  maskedge bench --tune                             store the best thread count; maskedge run then uses it
  maskedge bench face --op-profile --threads 1      where the time goes inside the model
  maskedge bench loop | peers | report | compare | estimate | validate --help

The headline is p90: nine of ten answers were faster. min says what the machine can do, p99 what a user feels
at times. A row marked ! is invalid, with the reason below the table: something else took the processor, or
its clock changed. Close other programs and repeat.

exit codes:
  0 done   1 some rows failed, or the result could not be written   2 wrong use
  3 a model is missing, damaged or not for this runtime   130 interrupted: the rest is shown and written"""


@dataclass(slots=True)
class Row:
    """One model at one precision, thread count and runtime, and its samples.

    Attributes:
        label: of the model, for people and the result.
        times_ms, at_s: of each invoke, how long it took and when, `time.monotonic()`.
        problems: that concern this row beside those `spent` tells.
    """

    label: str
    precision: str
    worker: Worker
    bytes: int
    entry: ModelEntry | None = None
    starts: list[dict[str, Any]] = field(default_factory=list)
    times_ms: list[float] = field(default_factory=list)
    at_s: list[float] = field(default_factory=list)
    spent: Spent = field(default_factory=Spent)
    problems: list[str] = field(default_factory=list)
    ops: list[dict[str, Any]] | None = None

    @property
    def threads(self) -> int:
        """How many the model computes with."""
        return int(self.worker.facts["threads"])

    @property
    def runtime(self) -> str:
        """Label of the runtime."""
        return str(self.worker.facts["runtime"])

    def take(self, seconds: float, *, switched: bool) -> None:
        """Measure one turn."""
        turn = self.worker.turn(seconds, switched=switched)
        self.times_ms += turn.times_ms
        self.at_s += [turn.begun + at for at in turn.at_s]
        self.spent.add(*(Usage(*counters) for counters in turn.usage))  # type: ignore[arg-type]
        self.spent.add_clock(turn.mhz)

    def done(self, runs: int, seconds: float) -> float:
        """Which part of what was asked for is there, 0..1."""
        enough_time = 1.0 if seconds <= 0 else self.spent.wall / seconds
        return min(1.0, len(self.times_ms) / runs, enough_time)

    def result(self, warmup: int, begun: float) -> dict[str, Any]:
        """The row of the result contract; times in milliseconds. It has at least one sample."""
        notes = [*dict.fromkeys(self.problems + self.spent.problems())]
        samples, at = thin(self.times_ms, [one - begun for one in self.at_s], MOST_SAMPLES)
        middle = {
            key: round(float(np.median([start[key] for start in self.starts])), 3)
            for key in ("init_ms", "first_ms", "cold_start_ms")
        }
        return {
            "model": self.label,
            "task": self.entry.task if self.entry else None,
            "precision": self.precision,
            "runtime": self.runtime,
            "threads": self.threads,
            "runs": len(self.times_ms),
            "warmup": warmup,
            "seconds": round(self.spent.wall, 3),
            "input": self.worker.facts["input"],
            **middle,
            "starts": len(self.starts),
            **figures(self.times_ms),
            "peak_rss_mb": self.worker.facts["peak_rss_mb"],
            "bytes": self.bytes,
            "sha256": self.worker.facts["sha256"],
            **self.spent.to_json(),
            "valid": not notes,
            "notes": notes,
            "accuracy": _accuracy(self.entry, self.precision),
            **({"ops": self.ops} if self.ops else {}),
            "samples_ms": [round(value, 4) for value in samples],
            "samples_at_s": [round(value, 4) for value in at],
        }


def figures(times_ms: Sequence[float]) -> dict[str, float]:
    """Mean, min, max, standard deviation and percentiles of some durations, as NumPy computes them."""
    times = np.asarray(times_ms, np.float64)
    found = {"mean": times.mean(), "min": times.min(), "max": times.max(), "std": times.std()}
    found |= {f"p{q}": np.percentile(times, q) for q in PERCENTILES}
    return {key: round(float(value), 4) for key, value in found.items()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `maskedge bench`."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="name in the manifest, path of a .tflite file, or all (default: all models of the manifest)",
    )
    parser.add_argument(
        "--precision",
        help="of models by name: one or several, as int8,float32; or all (default: all; with --tune the "
        "model's)",
    )
    parser.add_argument(
        "--threads", help="one or several, as 1,2 (default: 1, 2, 4, ... up to the cores; see --tune)"
    )
    parser.add_argument(
        "--runtime",
        help=f"one or several of {', '.join(RUNTIMES)}; or all that work here (default: all; "
        "with --tune the one the loop takes)",
    )
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="PATH",
        help="also measure with the runtimes of this Python, in which maskedge is installed, "
        "as .venv-tflite/bin/python; may be repeated",
    )
    parser.add_argument(
        "--runs", type=whole_number, default=100, help="runs of each row, at least (default %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=duration, default=2.0, help="and time of each, at least (default %(default)s)"
    )
    parser.add_argument(
        "--warmup", type=whole_number, default=10, help="runs that do not count (default %(default)s)"
    )
    parser.add_argument(
        "--starts",
        type=whole_number,
        default=3,
        help="starts of each row's process, for the medians of cold start, init and first run "
        "(default %(default)s)",
    )
    parser.add_argument(
        "--op-profile",
        action="store_true",
        help="also time each operator, by cutting the model off behind it: for one model and --threads 1",
    )
    parser.add_argument("--json", metavar="FILE", help="write the result there; - for standard output")
    parser.add_argument(
        "--tune", action="store_true", help="store the best thread count of 1 to 4 for the loop to use"
    )


def main(args: argparse.Namespace) -> int:
    """Measure, print the table, write the JSON; returns the exit code.

    Raises:
        ModelError: a model is missing, damaged, or does not fit the runtime.
        UsageError: bad threads, precision or runtime.
        SinkError: the result cannot be written.
    """
    check_output(args.json)
    names = args.models or ["all"]
    if "all" in names:
        names = [name for name in names if name != "all"] + list(load_manifest().models)
    try:
        result = measure(
            [*dict.fromkeys(names)],
            precisions=_several(args.precision, [None] if args.tune else ["all"]),
            threads=_thread_counts(args.threads, args.tune),
            runtimes=_several(args.runtime, [None] if args.tune else ["all"]),
            pythons=args.python,
            runs=args.runs,
            seconds=args.seconds,
            warmup=args.warmup,
            starts=args.starts,
            tune=args.tune,
            op_profile=args.op_profile,
        )
    except KeyboardInterrupt:
        print("interrupted before anything was measured: nothing was written", file=sys.stderr)
        return 130
    # With the JSON on standard output, that is all there may be on it.
    print(table(result), file=sys.stderr if args.json == "-" else sys.stdout)
    write_result(result, args.json)
    if result.get("interrupted"):
        print("interrupted: rows that are not complete are marked invalid", file=sys.stderr)
        return 130
    return 1 if any(item["failed"] for item in result["skipped"]) else 0


def check_output(path: str | None) -> None:
    """Refuse a result file that cannot be written, before minutes go into measuring.

    Raises:
        UsageError: it is a folder.
        SinkError: its folder cannot be made or written.
    """
    if path in (None, "-"):
        return
    if Path(path).is_dir():
        raise UsageError(f"--json {path} is a folder", remedy="give a file name")
    if Path(path).exists() and not Path(path).is_file():
        return  # a device or a pipe, which takes what it gets
    folder = Path(path).absolute().parent
    try:
        # Rights alone tell too little: of a full or read-only disk, or of /proc, they know nothing.
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SinkError(f"cannot write {path} ({error.strerror})", remedy="give another --json") from error


def write_result(result: Mapping[str, Any], path: str | None) -> None:
    """Write a result as JSON: to a file, with "-" to standard output, with None nowhere.

    Raises:
        SinkError: it cannot be written.
    """
    if path is None:
        return
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    # Samples by the thousand are for programs: one line, not one line each.
    text = _SAMPLES.sub(lambda match: " ".join(match[0].split()), text)
    if path == "-":
        sys.stdout.write(text)
        return
    try:
        write_atomically(Path(path), text)
    except OSError as error:
        raise SinkError(f"cannot write {path} ({error.strerror})", remedy="give another --json") from error


def measure(
    models: Sequence[str],
    *,
    precisions: Sequence[str | None] = (None,),
    threads: Sequence[int | None] = (None,),
    runtimes: Sequence[str | None] = (None,),
    pythons: Sequence[str] = (),
    runs: int = 100,
    seconds: float = 1.0,
    warmup: int = 10,
    starts: int = 1,
    tune: bool = False,
    op_profile: bool = False,
) -> dict[str, Any]:
    """Time models against each other.

    Args:
        models: names in the manifest, or paths.
        precisions: of models by name; None is the model's default, "all" is every one.
        threads: thread counts; None is what the loop would take.
        runtimes: keys of `RUNTIMES`; None is what the loop would take, "all" every one that works here.
        pythons: other Python programs whose runtimes to measure besides, all that work there.
        runs, seconds: lower limits of each row, both.
        warmup: uncounted runs of each row.
        starts: of each row's process, for its start-up times.
        tune: store the best of `threads` for each model.
        op_profile: time each operator besides, after the turns.

    Returns:
        The result contract of docs/benchmarks.md. After a KeyboardInterrupt it has what was measured so far.

    Raises:
        KeyboardInterrupt: when nothing was measured yet.
        ModelError: a model is missing or damaged, or none of the rows could be started.
    """
    wanted = [
        (name, precision) for name in models for precision in dict.fromkeys(_precisions(name, precisions))
    ]
    places = _places(runtimes, pythons)
    _check(wanted, places)
    # What "all" stands for may not fit everywhere; what was asked for by name has to.
    lenient = "all" in precisions or "all" in runtimes or bool(pythons)
    box, guard, begun = machine(), Guard(), time.monotonic()
    plan = [(*model, count, *place) for model in wanted for place in places for count in threads]
    finished: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []
    tuned: list[Row] = []
    total, interrupted = Spent(), False
    group = max(1, min(24, int((available_mb() or 1600) / 2 / _WORKER_MB)))
    with tempfile.TemporaryDirectory(prefix="maskedge-bench-") as folder:
        inputs = {name: _save_pictures(name, Path(folder)) for name in models if not is_path(name)}
        for first in range(0, len(plan), group):
            rows: list[Row] = []
            with contextlib.ExitStack() as stack:
                try:
                    for name, precision, count, python, runtime in plan[first : first + group]:
                        progress(f"starting {name} {precision or ''}")
                        task = Task(name, precision, count, runtime, inputs.get(name))
                        try:
                            rows.append(_start(task, python, starts, stack))
                        except ModelError as error:
                            if not lenient:
                                raise
                            skipped.append(_skipped(task, python, str(error), failed=False))
                    for row in rows:
                        row.worker.warm_up(warmup)
                    _take_turns(rows, runs, seconds, guard, skipped, len(finished), len(plan))
                    for row in rows if op_profile else ():
                        progress(f"timing the operators of {row.label} {row.precision}")
                        row.ops = row.worker.op_profile()
                except KeyboardInterrupt:
                    interrupted = True
                    for row in rows:
                        if row.done(runs, seconds) < 1:
                            row.problems.append("it was interrupted before its runs and seconds were done")
            late = guard.problems(last=interrupted or first + group >= len(plan))
            for row in rows:
                row.problems += late
                if row.times_ms:
                    finished.append(row.result(warmup, begun))
                    tuned.append(row)
                    total.join(row.spent)
            if interrupted:
                break
    progress("")
    if interrupted and not finished:
        raise KeyboardInterrupt
    if not finished:
        raise ModelError(skipped[0]["reason"])
    box |= machine_after(total)
    result = {
        "version": 1,
        "kind": "latency",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": box,
        "rows": finished,
        "notes": _notes(box, finished),
        "skipped": skipped,
    }
    if interrupted:
        result["interrupted"] = True
    elif tune:
        result["tuned"] = _tune(tuned)
    return result


def _check(models: Sequence[tuple[str, str | None]], places: Sequence[tuple[str, str | None]]) -> None:
    """Refuse what no runtime here could measure, before anything else is measured.

    Raises:
        ModelError: a model is missing, damaged, or a file that does not run.
    """
    manifest = load_manifest() if any(not is_path(name) for name, _ in models) else None
    for name, precision in models:
        if manifest is not None and not is_path(name):
            manifest.read(name, precision)
            continue
        problem: ModelError | None = None
        for python, runtime in places:
            try:
                with Worker(Task(name, None, 1, runtime), python=python):
                    break
            except ModelError as error:
                problem = problem or error
        else:
            assert problem is not None
            raise problem


def _start(task: Task, python: str, starts: int, stack: contextlib.ExitStack) -> Row:
    facts = []
    for _ in range(starts - 1):
        with Worker(task, python=python) as worker:
            facts.append(worker.facts)
    worker = stack.enter_context(Worker(task, python=python))
    facts.append(worker.facts)
    if task.precision is None:
        path = Path(task.name)
        return Row(path.name, "-", worker, path.stat().st_size, starts=facts)
    entry = load_manifest().entry(task.name)
    return Row(task.name, task.precision, worker, entry.files[task.precision].bytes, entry, facts)


def _take_turns(
    rows: list[Row],
    runs: int,
    seconds: float,
    guard: Guard,
    skipped: list[dict[str, Any]],
    before: int,
    planned: int,
) -> None:
    """Let the rows measure in turns until each has enough; one whose process ends is taken out."""
    todo, began = list(rows), time.monotonic()
    while todo:
        for row in list(todo):
            try:
                row.take(TURN_S, switched=len(todo) > 1)
            except ModelError as error:
                todo.remove(row)
                rows.remove(row)
                skipped.append(_skipped(row.worker.task, "", str(error), failed=True))
        for problem in guard.problems():
            for row in todo:
                row.problems.append(problem)
        done = sum(row.done(runs, seconds) for row in rows)
        part = (before + done) / max(planned, 1)
        left = (time.monotonic() - began) * (len(rows) / max(done, 1e-3) - 1)
        progress(f"{100 * part:3.0f} %, {left:.0f} s left for these {len(rows)} of {planned} row(s)")
        todo = [row for row in todo if row.done(runs, seconds) < 1]


def _skipped(task: Task, python: str, reason: str, *, failed: bool) -> dict[str, Any]:
    found = {"model": task.name, "precision": task.precision, "threads": task.threads}
    found |= {"runtime": task.runtime, "reason": reason, "failed": failed}
    return found | ({"python": python} if python not in ("", sys.executable) else {})


def _places(runtimes: Sequence[str | None], pythons: Sequence[str]) -> list[tuple[str, str | None]]:
    """Which Python and runtime to measure with; the same runtime of two Pythons only once.

    Raises:
        UsageError: no such runtime, or a Python without maskedge.
        RuntimeMissingError: a runtime asked for does not work here.
    """
    places: list[tuple[str, str | None]] = []
    labels: set[str] = set()
    for python in (sys.executable, *pythons):
        own = python == sys.executable
        keys = list(RUNTIMES) if not own or "all" in runtimes else list(runtimes)
        found = False
        for key in keys:
            try:
                label = _probe(python, key)
            except RuntimeMissingError:
                if own and "all" not in runtimes:
                    raise
                continue
            found = True
            if label not in labels:
                labels.add(label)
                places.append((python, key))
        if not found:
            if own:
                find_runtime()  # says what is missing
            raise UsageError(f"no TFLite runtime works in {python}", remedy="install ai-edge-litert there")
    return places


@functools.cache
def _probe(python: str, key: str | None) -> str:
    """Label of a runtime, found out in a process of its own: two runtimes in one may disturb each other."""
    probe = Path(__file__).resolve().parent.parent / "edge" / "assets" / "probe.tflite"
    if key is not None and key not in RUNTIMES:
        find_runtime(key)
    try:
        with Worker(Task(str(probe), None, 1, key), python=python) as worker:
            return str(worker.facts["runtime"])
    except RuntimeMissingError:
        raise
    except ModelError as error:
        if python == sys.executable:
            raise
        raise UsageError(
            f"{python} cannot measure ({error.args[0]})", remedy="install maskedge there"
        ) from error


def _precisions(name: str, wanted: Sequence[str | None]) -> list[str | None]:
    if is_path(name):
        return [None]
    entry = load_manifest().entry(name)
    return list(entry.files) if "all" in wanted else [entry.precision(precision) for precision in wanted]


def _thread_counts(text: str | None, tune: bool) -> list[int | None]:
    if text is None:
        cores = available_cores()
        if tune:
            return [*range(1, min(4, cores) + 1)]
        return [*(2**power for power in range(cores.bit_length()) if 2**power < cores), cores]
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1 or max(counts) > 256:
        raise UsageError(f"bad --threads {text!r}", remedy="give numbers from 1 on, as 1,2")
    return [*dict.fromkeys(counts)]


def _several(text: str | None, default: list[str | None]) -> list[str | None]:
    if text is None:
        return default
    return [*dict.fromkeys(part.strip() for part in text.split(","))]


def _save_pictures(name: str, folder: Path) -> str | None:
    """Real inputs of a model of ours as a file for its processes; None where it takes no pictures."""
    pictures = real_inputs(name)
    if pictures is None:
        return None
    path = folder / f"{name}.npy"
    np.save(path, pictures)
    return str(path)


def real_inputs(name: str) -> np.ndarray | None:
    """Frames of the built-in clip as the loop would hand them to a model of the manifest.

    Returns:
        k x height x width x 3 uint8 RGB, or None for a model whose input is none that this project makes: it
        is neither a face model nor has an alignment.
    """
    manifest = load_manifest()
    entry = manifest.entry(name)
    aligned = isinstance(entry.alignment, dict) and "template" in entry.alignment
    if not (entry.task == "face" or (aligned and "face" in manifest.models)) or "width" not in entry.input:
        return None
    size = int(entry.input["width"]), int(entry.input["height"])
    import cv2

    from edge.camera import open_source
    from edge.geometry import align, letterbox
    from edge.tasks.face import FaceDetector
    from edge.tflite import load_model

    found: list[np.ndarray] = []
    try:
        detector = FaceDetector(load_model("face"), manifest.entry("face")) if aligned else None
        with open_source("demo") as source:
            for frame in source.frames():
                picture = np.zeros((size[1], size[0], 3), np.uint8)
                if detector is None:
                    letterbox(frame.image, size, picture)
                elif faces := detector.detect(frame.image):
                    template = np.asarray(entry.alignment["template"], np.float64)
                    picture = align(frame.image, faces[0].landmarks, template, size[0])
                else:
                    continue
                if frame.id % 10 == 0:  # neighbours look all the same
                    found.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
                if len(found) == PICTURES:
                    break
    except InputError as error:
        log.warning("%s gets random numbers instead of the built-in clip: %s", name, error)
    return np.stack(found) if found else None


def _accuracy(entry: ModelEntry | None, precision: str) -> dict[str, Any] | None:
    """The first figure that the manifest has for a precision."""
    for metric in entry.metrics if entry else ():
        if isinstance(metric, dict) and metric.get("precision") == precision:
            figure = {key: metric.get(key) for key in ("value", "n", "data")}
            return {"figure": metric.get("name"), **figure}
    return None


def _tune(rows: Sequence[Row]) -> list[dict[str, Any]]:
    best: dict[tuple[str, str], Row] = {}
    for row in sorted(rows, key=lambda row: row.threads):
        key = row.worker.facts["sha256"], row.runtime
        rival = best.get(key)
        if rival is None or np.median(row.times_ms) < WORTH_A_THREAD * np.median(rival.times_ms):
            best[key] = row
    for (sha, runtime), row in best.items():
        save_tuning(sha, runtime, row.threads)
    return [
        {"model": row.label, "precision": row.precision, "runtime": row.runtime, "threads": row.threads}
        for row in best.values()
    ]


def _notes(box: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader of the whole result has to know."""
    notes = []
    invalid = sum(not row["valid"] for row in rows)
    if invalid:
        notes.append(f"{invalid} of {len(rows)} rows are invalid: compare them with nothing")
    if box["governor"] not in (None, "performance"):
        notes.append(f"CPU governor {box['governor']}: the clock follows the load")
    if any(row["runs"] < 1000 for row in rows):
        notes.append("fewer than 1000 runs in some rows: their p99 is one of the ten slowest")
    return notes


def table(result: Mapping[str, Any]) -> str:
    """The result for a reader, in Markdown."""
    box, rows = result["machine"], result["rows"]
    cores = f"{box['usable_cores']} of {box['cores']} cores"
    runtimes = [*dict.fromkeys(row["runtime"] for row in rows)]
    columns = ["model", "precision", "threads", "p90", "p50", "p99", "min", "mean ± std", "runs"]
    columns += ["cold start", "init", "first", "peak", "KB"]
    if len(runtimes) > 1:
        columns.insert(2, "runtime")
    lines = [
        f"{box['cpu']}, {cores}, {' and '.join(runtimes)}, Python {box['python']}; times in ms, peak in MB",
        "",
        f"| {' | '.join(columns)} |",
        "|---" * columns.index("threads") + "|--:" * (len(columns) - columns.index("threads")) + "|",
    ]
    reasons = []
    for row in rows:
        if not row["valid"]:
            named: list[Any] = [row["model"], row["precision"], row["threads"]]
            named += [row["runtime"]] if len(runtimes) > 1 else []
            reasons.append(f"! {', '.join(map(str, named))}: {'; '.join(row['notes'])}")
        cells: list[Any] = [f"{row['model']}{'' if row['valid'] else ' !'}", row["precision"]]
        cells += [row["runtime"]] if len(runtimes) > 1 else []
        cells += [row["threads"], *(f"{row[key]:.3f}" for key in ("p90", "p50", "p99", "min"))]
        cells += [f"{row['mean']:.3f} ± {row['std']:.3f}", row["runs"], f"{row['cold_start_ms']:.0f}"]
        cells += [f"{row['init_ms']:.1f}", f"{row['first_ms']:.1f}"]
        cells += [row["peak_rss_mb"] or "-", f"{row['bytes'] / 1000:.0f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += [""] if reasons or result["notes"] or result["skipped"] or "tuned" in result else []
    lines += reasons
    lines += [f"Note: {note}" for note in result["notes"]]
    for item in result["skipped"]:
        what = " ".join(str(item[key]) for key in ("model", "precision", "runtime") if item[key])
        lines.append(f"{'Failed' if item['failed'] else 'Skipped'}: {what}: {item['reason']}")
    lines += [
        f"Tuned: {item['model']} ({item['precision']}): {item['threads']} thread(s) with {item['runtime']}"
        for item in result.get("tuned", ())
    ]
    for row in rows:
        if row.get("ops"):
            from benchmarks import ops

            what = f"{row['model']} {row['precision']}, {row['threads']} thread(s), {row['runtime']}"
            lines += ["", f"Inside {what}:", "", ops.text(row["ops"])]
    return "\n".join(lines)


if __name__ == "__main__":
    cli = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__.split("\n", 1)[0])
    add_arguments(cli)
    try:
        sys.exit(main(cli.parse_args()))
    except MaskedgeError as failure:
        print(f"{cli.prog}: {failure}", file=sys.stderr)
        sys.exit(failure.exit_code)

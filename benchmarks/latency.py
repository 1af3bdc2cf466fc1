"""Latency of models: `maskedge bench MODEL...`, or `python -m benchmarks.latency MODEL...`.

Timed is the bare invoke, on random pixels that lie in the input tensors already. Several rows (models,
precisions, thread counts) take turns in short blocks, so that a machine that slows down slows all of them
alike; the first invoke of a turn, which finds the caches full of the row before, is not counted.
`init_ms` is all of `load_model`: reading, hashing, building. `peak_rss_mb` is that of the whole process while
the row's model was loaded and run once, Python, the runtime and the models of earlier rows included.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from edge import doctor
from edge.errors import MaskedgeError, SinkError, UsageError
from edge.tflite import (
    Model,
    available_cores,
    find_runtime,
    is_path,
    load_manifest,
    load_model,
    save_tuning,
    write_atomically,
)

TURN_S = 0.1
"""How long a row measures before the next has its turn."""
WORTH_A_THREAD = 0.95
"""More threads must bring the median below this share of the best: they cost the rest of the loop a core."""


@dataclass(slots=True)
class Row:
    """One model at one precision and thread count, and its samples."""

    name: str
    precision: str
    threads: int
    model: Model
    init_ms: float
    first_ms: float
    peak_rss_mb: float | None
    bytes: int
    times_ms: list[float] = field(default_factory=list)
    spent_s: float = 0.0

    def result(self, warmup: int) -> dict[str, Any]:
        """The row of the result contract; times in milliseconds."""
        times = np.asarray(self.times_ms)
        figures = {"mean": times.mean(), "min": times.min(), "std": times.std()}
        figures |= {f"p{q}": np.percentile(times, q) for q in (50, 90, 95, 99)}
        return {
            "model": self.name,
            "precision": self.precision,
            "threads": self.threads,
            "runs": len(times),
            "warmup": warmup,
            "init_ms": round(self.init_ms, 3),
            "first_ms": round(self.first_ms, 3),
            **{key: round(float(value), 4) for key, value in figures.items()},
            "peak_rss_mb": self.peak_rss_mb,
            "bytes": self.bytes,
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `maskedge bench`."""
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="name in the manifest, or path of a .tflite file (default: all models of the manifest)",
    )
    parser.add_argument(
        "--precision",
        help="of models by name: one or several, as int8,float32; or all (default: the model's)",
    )
    parser.add_argument("--threads", help="one or several, as 1,2 (default: what the loop would take)")
    parser.add_argument(
        "--runs", type=_count, default=100, help="runs of each, at least (default %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=_seconds, default=1.0, help="time of each, at least (default %(default)s)"
    )
    parser.add_argument(
        "--warmup", type=_count, default=10, help="runs that do not count (default %(default)s)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the result there; - for standard output")
    parser.add_argument("--tune", action="store_true", help="store the best thread count for the loop to use")


def main(args: argparse.Namespace) -> int:
    """Measure, print the table, write the JSON; returns the exit code.

    Raises:
        ModelError: a model is missing, damaged, or does not fit the runtime.
        UsageError: bad threads or precision.
        SinkError: the result cannot be written.
    """
    if args.json not in (None, "-") and Path(args.json).is_dir():
        raise UsageError(f"--json {args.json} is a folder", remedy="give a file name")
    try:
        result = measure(
            args.models or list(load_manifest().models),
            precisions=args.precision.split(",") if args.precision else [None],
            threads=_thread_counts(args.threads, args.tune),
            runs=args.runs,
            seconds=args.seconds,
            warmup=args.warmup,
            tune=args.tune,
        )
    except KeyboardInterrupt:
        _progress("")
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    # With the JSON on standard output, that is all there may be on it.
    print(table(result), file=sys.stderr if args.json == "-" else sys.stdout)
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    if args.json == "-":
        sys.stdout.write(text)
    elif args.json:
        try:
            write_atomically(Path(args.json), text)
        except OSError as error:
            raise SinkError(
                f"cannot write {args.json} ({error.strerror})", remedy="give another --json"
            ) from error
    return 0


def measure(
    models: Sequence[str],
    *,
    precisions: Sequence[str | None] = (None,),
    threads: Sequence[int | None] = (None,),
    runs: int = 100,
    seconds: float = 1.0,
    warmup: int = 10,
    tune: bool = False,
) -> dict[str, Any]:
    """Time models against each other.

    Args:
        models: names in the manifest, or paths.
        precisions: of models by name; None is the model's default, "all" is every one.
        threads: thread counts; None is what the loop would take.
        runs, seconds: lower limits of each row, both.
        warmup: uncounted runs of each row.
        tune: store the best of `threads` for each model.

    Returns:
        The benchmark result contract: `machine`, `rows`, and `notes` on what may have disturbed it.
    """
    find_runtime()  # loading the native library is not a model's init time
    box, usage = machine(), _usage()
    rows: list[Row] = []
    for name in models:
        for precision in _precisions(name, precisions):
            for count in threads:
                _progress(f"loading {name} {precision or ''}")
                rows.append(_load(name, precision, count))
    for row in rows:
        for _ in range(warmup):
            row.model.invoke()
    todo = rows
    while todo:
        for row in todo:
            _turn(row, switched=len(todo) > 1)
        todo = [row for row in rows if len(row.times_ms) < runs or row.spent_s < seconds]
        done = sum(min(1.0, len(row.times_ms) / runs, row.spent_s / max(seconds, 1e-9)) for row in rows)
        _progress(
            f"{100 * done / len(rows):3.0f} %  {len(rows)} row(s), {sum(len(r.times_ms) for r in rows)} runs"
        )
    _progress("")
    box |= {"temperature_c_after": doctor.temperature_c(), "throttled_after": doctor.throttled()}
    box |= _disturbance(usage)
    result = {
        "version": 1,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": box,
        "rows": [row.result(warmup) for row in rows],
        "notes": _notes(box),
    }
    if tune:
        result["tuned"] = _tune(rows)
    return result


def table(result: dict[str, Any]) -> str:
    """The result for a reader, in Markdown."""
    box = result["machine"]
    cores = f"{box['usable_cores']} of {box['cores']} cores"
    columns = ["model", "precision", "threads", "runs", "p50", "p90", "p99", "min"]
    columns += ["mean ± std", "first", "init", "peak", "KB"]
    lines = [
        f"{box['cpu']}, {cores}, {box['runtime']}, Python {box['python']}, times in ms, peak in MB",
        "",
        f"| {' | '.join(columns)} |",
        "|---|---" + "|--:" * (len(columns) - 2) + "|",
    ]
    for row in result["rows"]:
        cells = [row["model"], row["precision"], row["threads"], row["runs"]]
        cells += [f"{row[key]:.3f}" for key in ("p50", "p90", "p99", "min")]
        cells += [f"{row['mean']:.3f} ± {row['std']:.3f}", f"{row['first_ms']:.1f}", f"{row['init_ms']:.1f}"]
        cells += [row["peak_rss_mb"] or "-", f"{row['bytes'] / 1000:.0f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += [f"\nNote: {note}" for note in result["notes"]]
    lines += [
        f"\nTuned: {item['model']} ({item['precision']}): {item['threads']} thread(s)"
        for item in result.get("tuned", ())
    ]
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """What was measured on: the machine block of the result contract."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "cpu": doctor.cpu_model(),
        "board": doctor.board() or None,
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": available_cores(),
        "governor": doctor.governor() or None,
        "temperature_c": doctor.temperature_c(),
        "throttled": doctor.throttled(),
        "load": None if load is None else round(load, 2),
        "os": doctor.operating_system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "runtime": find_runtime().label,
        **git_state(),
    }


def git_state() -> dict[str, Any]:
    """`git_commit` and `git_dirty` of the checkout this file lies in, None outside of one."""
    nothing = {"git_commit": None, "git_dirty": None}
    checkout = Path(__file__).resolve().parent.parent
    if not (checkout / ".git").exists():
        return nothing
    # Without optional locks `git status` leaves the index alone, which another process may be writing.
    git = ["git", "--no-optional-locks", "-C", str(checkout)]
    try:
        commit, status = (
            subprocess.run([*git, *command], capture_output=True, text=True, timeout=10, check=True).stdout
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.SubprocessError):
        return nothing
    return {"git_commit": commit.strip(), "git_dirty": bool(status.strip())}


def _load(name: str, precision: str | None, threads: int | None) -> Row:
    """Load a model, time and weigh that, and leave it ready for its turns."""
    gc.collect()
    _reset_peak_rss()
    start = time.perf_counter()
    model = load_model(name, precision=precision, threads=threads)
    init_ms = (time.perf_counter() - start) * 1e3
    model.set_inputs(*random_inputs(model))
    start = time.perf_counter()
    model.invoke()
    first_ms = (time.perf_counter() - start) * 1e3
    if precision is None:  # a path
        name, precision, size = Path(name).name, "-", Path(name).stat().st_size
    else:
        size = load_manifest().entry(name).files[precision].bytes
    return Row(name, precision, model.threads, model, init_ms, first_ms, _peak_rss_mb(), size)


def random_inputs(model: Model, seed: int = 0) -> list[np.ndarray]:
    """One array per input, as the tensor stores it: the whole range of integers, 0..255 for floats."""
    rng = np.random.default_rng(seed)
    arrays = []
    for spec in model.inputs:
        if spec.dtype.kind in "iu" and spec.dtype.itemsize <= 2:
            limits = np.iinfo(spec.dtype)
            array = rng.integers(limits.min, limits.max + 1, spec.shape).astype(spec.dtype)
        elif spec.dtype.kind == "f":
            array = rng.uniform(0, 255, spec.shape).astype(spec.dtype)
        else:  # wide integers and flags are counts and indices: any large one could be out of range
            array = np.zeros(spec.shape, spec.dtype)
        arrays.append(array)
    return arrays


def _turn(row: Row, *, switched: bool) -> None:
    invoke, clock, times = row.model.invoke, time.perf_counter, row.times_ms
    if switched:
        invoke()
    begin = now = clock()
    while now - begin < TURN_S:
        start = clock()
        invoke()
        now = clock()
        times.append((now - start) * 1e3)
    row.spent_s += now - begin


def _tune(rows: Sequence[Row]) -> list[dict[str, Any]]:
    best: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: row.threads):
        rival = best.get(row.model.sha256)
        if rival is None or np.median(row.times_ms) < WORTH_A_THREAD * np.median(rival.times_ms):
            best[row.model.sha256] = row
    for sha, row in best.items():
        save_tuning(sha, row.model.runtime, row.threads)
    return [{"model": row.name, "precision": row.precision, "threads": row.threads} for row in best.values()]


def _precisions(name: str, wanted: Sequence[str | None]) -> list[str | None]:
    if is_path(name):
        return [None]
    entry = load_manifest().entry(name)
    return list(entry.files) if "all" in wanted else [entry.precision(precision) for precision in wanted]


def _thread_counts(text: str | None, tune: bool) -> list[int | None]:
    if text is None:
        return [*range(1, min(4, available_cores()) + 1)] if tune else [None]
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1 or max(counts) > 256:
        raise UsageError(f"bad --threads {text!r}", remedy="give numbers from 1 on, as 1,2")
    return [*dict.fromkeys(counts)]


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is no time in seconds")
    return value


def _progress(text: str) -> None:
    """One line on stderr that the next call overwrites; silent where nobody watches."""
    if sys.stderr is not None and sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _reset_peak_rss() -> None:
    with contextlib.suppress(OSError):  # the peak then is that of the run so far, no less true
        Path("/proc/self/clear_refs").write_text("5")


def _peak_rss_mb() -> float | None:
    """Highest resident memory of the process since the reset, in MB, or None where unknown."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) * 1024 / 1e6, 1)
    return None


@dataclass(slots=True, frozen=True)
class _Usage:
    """Processor time so far, in seconds: of all cores by kind, and of this process."""

    wall: float
    busy: float
    steal: float
    own: float


def _usage() -> _Usage | None:
    try:
        first_line = Path("/proc/stat").read_text().split("\n", 1)[0]
        ticks = [int(value) / os.sysconf("SC_CLK_TCK") for value in first_line.split()[1:9]]
        user, nice, system, _idle, _iowait, irq, softirq, steal = ticks
    except (OSError, ValueError):
        return None
    return _Usage(time.monotonic(), user + nice + system + irq + softirq, steal, time.process_time())


def _disturbance(start: _Usage | None) -> dict[str, float | None]:
    """Mean number of cores that other programs, and other guests of the host, took since `start`."""
    end = _usage()
    if start is None or end is None or end.wall <= start.wall:
        return {"other_programs_cores": None, "steal_cores": None}
    wall = end.wall - start.wall
    others = max(0.0, (end.busy - start.busy) - (end.own - start.own)) / wall
    return {
        "other_programs_cores": round(others, 2),
        "steal_cores": round((end.steal - start.steal) / wall, 2),
    }


def _notes(box: dict[str, Any]) -> list[str]:
    """What may have disturbed the measurement."""
    notes = []
    if (box["other_programs_cores"] or 0) > 0.1:
        busy = f"{box['other_programs_cores']} of {box['cores']} cores"
        notes.append(f"other programs kept {busy} busy meanwhile: compare rows, trust min and p50 most")
    if (box["steal_cores"] or 0) > 0.02:
        notes.append(f"the host took {box['steal_cores']} cores for other guests (steal)")
    if box["governor"] not in (None, "performance"):
        notes.append(f"CPU governor {box['governor']}: the clock may have changed meanwhile")
    if box["throttled_after"]:
        notes.append(f"the firmware throttled the clock (get_throttled {box['throttled_after']:#x})")
    return notes


if __name__ == "__main__":
    cli = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__.split("\n", 1)[0])
    add_arguments(cli)
    try:
        sys.exit(main(cli.parse_args()))
    except MaskedgeError as failure:
        print(f"{cli.prog}: {failure}", file=sys.stderr)
        sys.exit(failure.exit_code)

"""The benchmark put to the test: `maskedge bench validate`.

Its medians against those of another program, `litert-benchmark`, which comes with ai-edge-litert; its
percentiles against NumPy's and the standard library's on the raw samples; and a delay put into a model, which
must show in full. docs/benchmarks.md says how.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import intervals
from benchmarks.latency import PERCENTILES, check_output, figures, write_result
from benchmarks.machine import Guard, Spent, Usage, machine, machine_after, usage
from benchmarks.terminal import progress, some_time, whole_number
from benchmarks.worker import Task, Worker, measure_turn, random_inputs
from edge.errors import ModelError, UsageError
from edge.tflite import is_path, load_manifest, load_model

AGREE = 0.05
"""Medians may differ by this share."""
DELAYS_MS = (1.0, 5.0)
DELAY_AGREE = 0.05
"""A delay must show up to this share of the delay, or `DELAY_LEAST_MS` where that is more."""
DELAY_LEAST_MS = 0.05
TOOL = "ai_edge_litert.tools.benchmark_litert_model"
TOOL_WARM_UP = 20
MODELS = ("face:int8", "face:float32", "attributes:int8")

EPILOG = f"""examples:
  maskedge bench validate                              {", ".join(MODELS)}
  maskedge bench validate face:float16 any.tflite --threads 2 --json validate.json

Both programs measure in turns, A B B A, each for --seconds a round. litert-benchmark tells hundredths of a
millisecond, so models that take less than 0.2 ms say little. On a machine that does other work besides, the
two may differ for that reason: see the notes below the table.

exit codes:
  0 all agree   1 something does not   2 wrong use, or litert-benchmark is not here   3 a model is damaged
  130 interrupted"""


# ------------------------------------------------------------------------------------- the other program


class LitertBenchmark:
    """`litert-benchmark` on one model, a process each time.

    Raises:
        UsageError: it is not installed for this Python.
    """

    def __init__(self, path: Path, threads: int) -> None:
        try:
            found = importlib.util.find_spec(TOOL)
        except ModuleNotFoundError:  # of a package above it
            found = None
        if found is None:
            remedy = "pip install --upgrade ai-edge-litert"
            raise UsageError("litert-benchmark is not installed for this Python", remedy=remedy)
        self._path, self._threads = path, threads

    def median_ms(self, runs: int) -> float:
        """The median that it reports, of so many runs after its warm-up.

        Raises:
            ModelError: it failed.
        """
        with tempfile.TemporaryDirectory(prefix="maskedge-validate-") as folder:
            result = Path(folder) / "result.json"
            command = [sys.executable, "-m", TOOL, "--model", str(self._path), "--num_runs", str(runs)]
            command += ["--warmup_runs", str(TOOL_WARM_UP), "--num_threads", str(self._threads)]
            done = subprocess.run(
                [*command, "--result_json", str(result)], capture_output=True, text=True, check=False
            )
            try:
                return float(json.loads(result.read_text())["latency"]["median_ms"])
            except (OSError, ValueError, KeyError) as error:
                said = " ".join((done.stderr or done.stdout).split())[-200:]
                raise ModelError(
                    f"litert-benchmark failed on {self._path.name} with code {done.returncode} ({said})",
                    remedy="leave this model out",
                ) from error


def compare_medians(
    name: str, *, threads: int, rounds: int, seconds: float, guard: Guard
) -> tuple[dict[str, Any], list[float]]:
    """Our median of a model and that of `litert-benchmark`, measured in turns.

    Args:
        name: `MODEL`, `MODEL:PRECISION` or a path.
        threads: of both.
        rounds: turns of each.
        seconds: of each turn, about.
        guard: what watches governor and throttling.

    Returns:
        The row of the result file, and all our samples.

    Raises:
        ModelError: the model is missing, damaged, or one of the two cannot run it.
    """
    label, precision, path = find_model(name)
    tool = LitertBenchmark(path, threads)
    ours: list[np.ndarray] = []
    theirs: list[float] = []
    spent = Spent()
    with Worker(Task(str(path), None, threads, "litert")) as worker:
        worker.warm_up(TOOL_WARM_UP)
        once = float(np.median(worker.turn(0.1, switched=True).times_ms))
        runs = max(10, round(seconds * 1e3 / once))

        def we() -> None:
            turn = worker.turn(seconds, switched=True)
            ours.append(np.asarray(turn.times_ms))
            spent.add(*(Usage(*counters) for counters in turn.usage))  # type: ignore[arg-type]
            spent.add_clock(turn.mhz)

        def they() -> None:
            theirs.append(tool.median_ms(runs))

        for number in range(rounds):
            progress(f"{label} {precision}: round {number + 1} of {rounds}")
            for take in (we, they) if number % 2 == 0 else (they, we):
                take()
    # Round by round, since both of a round saw the same machine.
    ratios = [np.array([np.median(mine) / other]) for mine, other in zip(ours, theirs, strict=True)]
    ratio = intervals.quantile(ratios)
    notes = [*dict.fromkeys(guard.problems(last=True) + spent.problems())]
    row = {
        "model": label,
        "precision": precision,
        "threads": threads,
        "rounds": rounds,
        "runs": sum(map(len, ours)),
        "runtime": worker.facts["runtime"],
        "ours_ms": round(float(np.median(np.concatenate(ours))), 4),
        "litert_benchmark_ms": round(float(np.median(theirs)), 4),
        "ratio": round(ratio.value, 4),
        "ratio_ci": ratio.to_json(),
        "agrees": abs(ratio.value - 1) <= AGREE,
        "valid": not notes,
        "notes": notes,
    }
    return row, np.concatenate(ours).tolist()


def find_model(name: str) -> tuple[str, str, Path]:
    """Name, precision ("-" of a foreign file) and path of a model given as MODEL[:PRECISION] or a path.

    Raises:
        ModelError: there is none, or its file is damaged.
    """
    if is_path(name):
        load_model(name, threads=1)  # says in one line what is wrong with it
        return Path(name).name, "-", Path(name)
    model, _, wanted = name.partition(":")
    manifest = load_manifest()
    precision = manifest.entry(model).precision(wanted or None)
    manifest.read(model, precision)
    return model, precision, manifest.folder / manifest.entry(model).files[precision].file


# ------------------------------------------------------------------------------- percentiles and a delay


def check_percentiles(times_ms: Sequence[float]) -> dict[str, Any]:
    """The percentiles that the benchmark gives for samples, against NumPy's and the standard library's."""
    given = figures(times_ms)
    cuts = statistics.quantiles(times_ms, n=100, method="inclusive")
    worst = 0.0
    for q in PERCENTILES:
        for other in (float(np.percentile(times_ms, q)), cuts[q - 1]):
            worst = max(worst, abs(given[f"p{q}"] - other))
    for key, other in (("mean", statistics.fmean(times_ms)), ("min", min(times_ms)), ("max", max(times_ms))):
        worst = max(worst, abs(given[key] - other))
    # Results are rounded to the tenth of a microsecond.
    return {"samples": len(times_ms), "largest_difference_ms": round(worst, 6), "agrees": worst <= 1e-4}


class Delayed:
    """A model whose every invoke takes longer by a known time.

    Attributes:
        inner_ms: how long each invoke took without that.
        delays_ms: the delay of each, as long as it really was.
    """

    def __init__(self, invoke: Callable[[], None], delay_ms: float) -> None:
        self._invoke, self._delay_s = invoke, delay_ms / 1e3
        self.inner_ms: list[float] = []
        self.delays_ms: list[float] = []

    def invoke(self) -> None:
        """The real one, then the delay: asleep, but for the last part, for which sleep is too coarse."""
        begun = time.perf_counter()
        self._invoke()
        start = time.perf_counter()
        self.inner_ms.append((start - begun) * 1e3)
        time.sleep(max(0.0, self._delay_s - 5e-4))
        while (now := time.perf_counter()) - start < self._delay_s:
            pass
        self.delays_ms.append((now - start) * 1e3)


def check_delay(name: str, delay_ms: float, *, seconds: float) -> dict[str, Any]:
    """What the benchmark says of a model with a delay in it, less what its invokes took without, against the
    delay. Without means in the same invoke: one that follows a sleep is slower than one that does not.

    Raises:
        ModelError: the model is missing or damaged.
    """
    label, precision, path = find_model(name)
    progress(f"{label} {precision} with {delay_ms:g} ms more")
    model = load_model(str(path), threads=1)
    model.set_inputs(*random_inputs(model))
    slow = Delayed(model.invoke, delay_ms)
    times = measure_turn(slow.invoke, seconds, switched=True).times_ms
    inner = slow.inner_ms[-len(times) :]
    delays = slow.delays_ms[-len(times) :]
    shown, real = float(np.median(np.subtract(times, inner))), float(np.median(delays))
    return {
        "model": label,
        "precision": precision,
        "delay_ms": round(real, 4),
        "shown_ms": round(shown, 4),
        "p50": figures(times)["p50"],
        "inner_p50": figures(inner)["p50"],
        "runs": len(times),
        "agrees": real >= delay_ms and abs(shown - real) <= max(DELAY_AGREE * real, DELAY_LEAST_MS),
    }


# ---------------------------------------------------------------------------------------------- the command


def measure(
    models: Sequence[str] = MODELS, *, threads: int = 1, rounds: int = 9, seconds: float = 1.0
) -> dict[str, Any]:
    """Put the benchmark to the test.

    Args:
        models: as `find_model` takes them.
        threads: of both programs.
        rounds: turns of each.
        seconds: of each turn, about.

    Returns:
        The result file, `kind` validate; docs/benchmarks.md names the fields.

    Raises:
        ModelError: a model is missing or damaged.
        UsageError: litert-benchmark is not here.
    """
    for name in models:  # before minutes go into the first
        LitertBenchmark(find_model(name)[2], threads)
    facts, guard, whole, before = machine(), Guard(), Spent(), usage()
    rows, samples = [], []
    for name in models:
        row, times = compare_medians(name, threads=threads, rounds=rounds, seconds=seconds, guard=guard)
        rows.append(row)
        samples.append(times)
    delays = [check_delay(models[0], ms, seconds=3 * seconds) for ms in DELAYS_MS]
    progress("")
    whole.add(before, usage())
    percentiles = [
        {"model": row["model"], "precision": row["precision"], **check_percentiles(times)}
        for row, times in zip(rows, samples, strict=True)
    ]
    return {
        "version": 1,
        "kind": "validate",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": facts | machine_after(whole),
        "rows": rows,
        "percentiles": percentiles,
        "delays": delays,
        "agrees": all(one["agrees"] for one in (*rows, *percentiles, *delays)),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `maskedge bench validate`."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "models",
        nargs="*",
        default=list(MODELS),
        metavar="MODEL",
        help="name in the manifest, NAME:PRECISION, or path of a .tflite file (default: see below)",
    )
    parser.add_argument(
        "--threads", type=whole_number, default=1, help="of both programs (default %(default)s)"
    )
    parser.add_argument(
        "--rounds", type=whole_number, default=9, help="turns of each program (default %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=some_time, default=1.0, help="of each turn, about (default %(default)s)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the result there; - for standard output")


def main(args: argparse.Namespace) -> int:
    """Measure, print the tables, write the JSON; 1 where something does not agree.

    Raises:
        ModelError: a model is missing, damaged, or cannot be run.
        UsageError: litert-benchmark is not here, or a bad option.
        SinkError: the result cannot be written.
    """
    check_output(args.json)
    if args.threads > 256:
        raise UsageError(f"bad --threads {args.threads}", remedy="give a number from 1 to 256")
    try:
        result = measure(args.models, threads=args.threads, rounds=args.rounds, seconds=args.seconds)
    except KeyboardInterrupt:
        progress("")
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    print(table(result), file=sys.stderr if args.json == "-" else sys.stdout)
    write_result(result, args.json)
    return 0 if result["agrees"] else 1


def table(result: Mapping[str, Any]) -> str:
    """The result for a reader, in Markdown."""
    lines = [
        "| model | precision | threads | runs | ours p50 | litert-benchmark p50 | ours / theirs | |",
        "|---|---|--:|--:|--:|--:|---|---|",
    ]
    for row in result["rows"]:
        low, high = row["ratio_ci"]
        cells = [row["model"], row["precision"], row["threads"], row["runs"], f"{row['ours_ms']:.3f}"]
        cells += [f"{row['litert_benchmark_ms']:.3f}", f"{row['ratio']:.3f} ({low:.3f} to {high:.3f})"]
        lines.append(f"| {' | '.join(map(str, cells))} | {_verdict(row)} |")
    lines.append("")
    for one in result["percentiles"]:
        lines.append(
            f"Percentiles, {one['model']} {one['precision']}: at most {one['largest_difference_ms']} ms from "
            f"NumPy's and the standard library's on {one['samples']} samples: {_verdict(one)}"
        )
    for one in result["delays"]:
        lines.append(
            f"A delay of {one['delay_ms']:.3f} ms in {one['model']} {one['precision']} shows as "
            f"{one['shown_ms']:.3f} ms: p50 {one['p50']:.3f} ms, without it {one['inner_p50']:.3f} ms, "
            f"{one['runs']} runs: {_verdict(one)}"
        )
    for row in result["rows"]:
        if row["notes"]:
            what = f"{row['model']} {row['precision']}"
            lines.append(
                f"Note: {what}: {'; '.join(row['notes'])}: repeat on a machine that does nothing else"
            )
    return "\n".join(lines)


def _verdict(one: Mapping[str, Any]) -> str:
    return "agrees" if one["agrees"] else "**does not agree**"

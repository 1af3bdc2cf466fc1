"""One row of the latency benchmark, in a process of its own, so that memory, start and caches are its alone.

`Worker` is the side of the benchmark, `serve` that of the process. They exchange lines of JSON through pipes;
the process computes only when asked to, and ends when the benchmark does. It imports numpy and one runtime:
what it takes to start is what any program takes that runs this model.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from edge import errors
from edge.errors import MaskedgeError, ModelError
from edge.tflite import Model, find_runtime, is_path, load_model, models_dir

_MAIN = "from benchmarks.worker import serve; serve()"
_END_S = 5.0


@dataclass(slots=True, frozen=True)
class Task:
    """What a worker is to measure.

    Attributes:
        name, precision, threads, runtime: as `edge.tflite.load_model` takes them.
        inputs: `.npy` file of k x H x W x 3 pictures to show the model, or None for random numbers.
    """

    name: str
    precision: str | None
    threads: int | None = None
    runtime: Any = None
    inputs: str | None = None


@dataclass(slots=True, frozen=True)
class Turn:
    """What a worker measured in one turn.

    Attributes:
        begun: `time.monotonic()` at its beginning; the clock is the same in all processes.
        times_ms, at_s: of each invoke, how long it took and when it began, seconds after `begun`.
        usage: counters before and after, as `benchmarks.machine.Usage` takes them.
        mhz: clock at the end, or None.
    """

    begun: float
    times_ms: list[float]
    at_s: list[float]
    usage: tuple[list[float | None], list[float | None]]
    mhz: float | None


class Worker:
    """Starts the process; a context manager.

    Attributes:
        task: what it measures.
        facts: what it said of its start: `init_ms`, `first_ms`, `cold_start_ms`, `peak_rss_mb`, `runtime`
            (label), `threads`, `sha256`, `input`.

    Raises:
        MaskedgeError: of the kind that the process met, such as ModelError.
    """

    def __init__(self, task: Task, *, python: str = sys.executable) -> None:
        self.task = task
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        environment = os.environ | {"PYTHONSAFEPATH": "1", "MASKEDGE_MODELS": str(models_dir())}
        if python == sys.executable:
            # This very code, installed or not. Another Python has its own copy: our packages could be of the
            # wrong kind for it.
            root = str(Path(__file__).resolve().parent.parent)
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        begun = time.monotonic()
        try:
            # In a session of its own: Ctrl-C is for the benchmark, which still wants to write its result.
            self._process = subprocess.Popen(
                [python, "-c", _MAIN, json.dumps(asdict(task))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            self._errors.close()
            raise errors.UsageError(
                f"cannot start {python} ({error.strerror})", remedy="give the path of a Python as --python"
            ) from error
        try:
            answer = self._answer()
            if "error" in answer:
                kind = getattr(errors, answer["error"], MaskedgeError)
                raise kind(answer["message"], remedy=answer["remedy"])
        except BaseException:
            self.close()
            raise
        self.facts: dict[str, Any] = answer | {"cold_start_ms": (answer["ready"] - begun) * 1e3}

    def warm_up(self, runs: int) -> None:
        """Invoke without counting."""
        self._ask({"warm_up": runs})

    def turn(self, seconds: float, *, switched: bool) -> Turn:
        """Invoke for a while; with `switched` one invoke before that does not count.

        Raises:
            ModelError: the process ended.
        """
        return Turn(**self._ask({"seconds": seconds, "switched": switched}))

    def op_profile(self) -> list[dict[str, Any]]:
        """Time of each operator of the model, see `benchmarks.ops.profile`."""
        ops: list[dict[str, Any]] = self._ask({"op_profile": True})["ops"]
        return ops

    def close(self) -> None:
        """End the process; may be called more than once."""
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # it may have ended with something unread
                if pipe is not None:
                    pipe.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `_answer` knows more
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line.endswith(b"\n"):
            answer: dict[str, Any] = json.loads(line)
            return answer
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        why = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        last = f" ({' '.join(said[-1].split())[:200]})" if said else ""
        remedy = "the file or the runtime is at fault, or memory ran out: try it alone, or another --runtime"
        raise ModelError(f"{self.task.name}: the measuring process {why}{last}", remedy=remedy)


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


def _pictures(model: Model, path: str | None) -> list[list[np.ndarray]]:
    """The real inputs, if they fit the model."""
    if path is None or len(model.inputs) != 1:
        return []
    pictures = np.load(path)
    return [[picture] for picture in pictures] if (1, *pictures.shape[1:]) == model.inputs[0].shape else []


def serve() -> None:
    """The process: load, run once, then answer until standard input ends."""
    # What a native library prints must not come between our lines.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    task = Task(**json.loads(sys.argv[1]))
    try:
        find_runtime(task.runtime)  # loading the native library is not the model's init time
        start = time.perf_counter()
        model = load_model(task.name, precision=task.precision, threads=task.threads, runtime=task.runtime)
        init_ms = (time.perf_counter() - start) * 1e3
        pictures = _pictures(model, task.inputs)
        inputs = pictures or [random_inputs(model)]
        model.set_inputs(*inputs[0])
        start = time.perf_counter()
        model.invoke()
        first_ms = (time.perf_counter() - start) * 1e3
        ready = time.monotonic()
    except MaskedgeError as error:
        _send(answers, {"error": type(error).__name__, "message": error.args[0], "remedy": error.remedy})
        return
    from benchmarks import machine

    facts: dict[str, Any] = {
        "ready": ready,
        "init_ms": init_ms,
        "first_ms": first_ms,
        "peak_rss_mb": machine.peak_rss_mb(),
    }
    facts |= {"runtime": model.runtime, "threads": model.threads, "sha256": model.sha256}
    _send(answers, facts | {"input": "demo clip" if pictures else "random"})
    number = 0
    for line in sys.stdin:
        question = json.loads(line)
        if "warm_up" in question:
            for _ in range(question["warm_up"]):
                model.invoke()
            _send(answers, {})
            continue
        if "op_profile" in question:
            _send(answers, {"ops": _op_profile(task, model, inputs[0])})
            continue
        model.set_inputs(*inputs[number % len(inputs)])
        number += 1
        _send(answers, asdict(measure_turn(model.invoke, question["seconds"], switched=question["switched"])))


def measure_turn(invoke: Callable[[], object], seconds: float, *, switched: bool) -> Turn:
    """Time invokes for a while; with `switched` one before that does not count."""
    from benchmarks.machine import frequency_mhz, usage

    clock = time.perf_counter
    times: list[float] = []
    starts: list[float] = []
    if switched:
        invoke()
    before, begun = usage(), time.monotonic()
    begin = now = clock()
    while now - begin < seconds:
        start = clock()
        invoke()
        now = clock()
        times.append((now - start) * 1e3)
        starts.append(start - begin)
    after, mhz = usage(), frequency_mhz()
    return Turn(begun, times, starts, (list(asdict(before).values()), list(asdict(after).values())), mhz)


def _op_profile(task: Task, model: Model, inputs: list[np.ndarray]) -> list[dict[str, Any]]:
    from benchmarks import ops
    from edge.tflite import load_manifest

    data = (
        Path(task.name).read_bytes()
        if is_path(task.name)
        else load_manifest().read(task.name, task.precision)
    )
    return ops.profile(data, inputs, threads=model.threads, runtime=task.runtime)


def _send(answers: IO[bytes], value: dict[str, Any]) -> None:
    answers.write(json.dumps(value).encode() + b"\n")
    answers.flush()

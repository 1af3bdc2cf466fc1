"""The latency benchmark: its options, its result contract, tuning, and how it ends."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import latency, ops
from benchmarks.machine import EnergyMeter, Guard, Spent, Usage, frequency_mhz, sum_of_rails, thin, usage
from benchmarks.worker import random_inputs
from edge import tflite
from edge.errors import ModelError, SinkError, UsageError
from tests import tiny_models
from tests.test_tflite import write_models

pytestmark = pytest.mark.clock  # test_cli measures with each runtime

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "benchmarks.md"
SHORT = ("--runs", "5", "--seconds", "0", "--warmup", "1", "--starts", "1")


@pytest.fixture(autouse=True)
def short_turns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(latency, "TURN_S", 0.002)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MASKEDGE_MODELS", str(write_models(tmp_path / "models")))


def run(*options: str) -> int:
    parser = argparse.ArgumentParser()
    latency.add_arguments(parser)
    return latency.main(parser.parse_args([*options]))


def result_of(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert run(*options, *SHORT, "--json", "-") == 0
    return json.loads(capsys.readouterr().out)


def test_the_result_keeps_the_contract(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "any.tflite"
    path.write_bytes(tiny_models.add_model())
    out = tmp_path / "new folder" / "result.json"
    options = ("--precision", "int8", "--threads", "1,2", "--runs", "20", "--seconds", "0", "--starts", "2")
    assert run("face", str(path), *options, "--json", str(out)) == 0
    result = json.loads(out.read_text())
    assert result["version"] == 1
    assert result["kind"] == "latency"
    assert [(row["model"], row["precision"], row["threads"]) for row in result["rows"]] == [
        ("face", "int8", 1),
        ("face", "int8", 2),
        ("any.tflite", "-", 1),
        ("any.tflite", "-", 2),
    ]
    for row in result["rows"]:
        assert row["runs"] >= 20
        assert 0 < row["min"] <= row["p50"] <= row["p90"] <= row["p95"] <= row["p99"] <= row["max"]
        assert row["min"] <= row["mean"]
        assert row["init_ms"] > 0 < row["first_ms"]
        assert row["cold_start_ms"] > row["init_ms"] + row["first_ms"]
        assert row["starts"] == 2
        assert row["valid"] == (not row["notes"])
        assert row["runtime"] == tflite.find_runtime().label
    assert result["rows"][2]["bytes"] == path.stat().st_size
    table = capsys.readouterr().out
    assert re.search(r"\| any.tflite( !)? \| - \| 2 \|", table)
    header = next(line for line in table.splitlines() if line.startswith("| model"))
    assert all(line.count("|") == header.count("|") for line in table.splitlines() if line.startswith("|"))


def test_every_field_is_in_the_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    documented = set(re.findall(r"[a-z_0-9]+", DOCS.read_text(encoding="utf-8")))
    result = result_of(capsys, "face", "--precision", "int8", "--threads", "1", "--op-profile")
    (row,) = result["rows"]
    assert set(result) | set(result["machine"]) | set(row) | set(row["ops"][0]) <= documented


def test_the_figures_are_those_of_numpy_on_all_samples(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "MOST_SAMPLES", 10**9)
    (row,) = result_of(capsys, "face", "--precision", "int8", "--threads", "1")["rows"]
    samples = np.array(row["samples_ms"])
    assert len(samples) == row["runs"] == len(row["samples_at_s"])
    for key, expected in {
        "mean": samples.mean(),
        "std": samples.std(),
        "min": samples.min(),
        "max": samples.max(),
        **{f"p{q}": np.percentile(samples, q) for q in (50, 90, 95, 99)},
    }.items():
        assert row[key] == pytest.approx(expected, abs=2e-4)
    assert np.all(np.diff(row["samples_at_s"]) >= 0)


def test_many_samples_are_thinned_evenly_and_the_figures_are_of_all() -> None:
    values, times = thin(list(range(10_000)), [i / 100 for i in range(10_000)], 1000)
    assert len(values) == len(times) == 1000
    assert (values[0], values[-1]) == (0, 9999)
    steps = np.diff(values)
    assert set(steps) <= {10, 11}
    assert all(time == value / 100 for value, time in zip(values, times, strict=True))
    assert latency.figures(range(1, 101))["p99"] == pytest.approx(np.percentile(range(1, 101), 99))


def test_runs_and_seconds_are_both_lower_limits() -> None:
    start = time.monotonic()
    (row,) = latency.measure(["face"], threads=[1], runs=3, seconds=0.3)["rows"]
    assert time.monotonic() - start >= 0.3 <= row["seconds"]
    assert row["runs"] > 3
    (row,) = latency.measure(["face"], threads=[1], runs=2000, seconds=0)["rows"]
    assert row["runs"] >= 2000


def test_rows_take_turns(capsys: pytest.CaptureFixture[str]) -> None:
    # As many runs as no turn holds: by seconds a turn in which the machine halts would be enough.
    options = ("--precision", "int8", "--threads", "1,2", *SHORT, "--runs", "20000", "--json", "-")
    assert run("face", *options) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    first, second = (row["samples_at_s"] for row in rows)
    assert first[0] < second[0] < first[-1] < second[-1]


def test_a_model_that_takes_longer_shows_it(tmp_path: Path) -> None:
    """The same graph with a hundred times the work, and nothing else that differs."""
    for name, size in (("small", 2_000), ("large", 2_000_000)):
        (tmp_path / f"{name}.tflite").write_bytes(tiny_models.add_model((1, size)))
    small, large = latency.measure(
        [str(tmp_path / "small.tflite"), str(tmp_path / "large.tflite")], threads=[1], runs=20, seconds=0
    )["rows"]
    assert large["min"] > 10 * small["min"]
    assert large["peak_rss_mb"] > small["peak_rss_mb"] + 6  # 8 MB of input, and the same of output


def test_each_row_has_its_own_memory(tmp_path: Path) -> None:
    (tmp_path / "large.tflite").write_bytes(tiny_models.add_model((1, 8_000_000)))
    large, face = latency.measure([str(tmp_path / "large.tflite"), "face"], threads=[1], runs=1, seconds=0)[
        "rows"
    ]
    assert face["peak_rss_mb"] < large["peak_rss_mb"] - 30


def test_our_models_get_real_pictures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        result_of(capsys, "face", "--threads", "1")["rows"][0]["input"] == "random"
    )  # the tiny one takes none
    monkeypatch.delenv("MASKEDGE_MODELS")
    rows = result_of(capsys, "face", "attributes", "--precision", "int8", "--threads", "1")["rows"]
    assert [row["input"] for row in rows] == ["demo clip", "demo clip"]
    assert rows[0]["accuracy"]["figure"] == "AP"
    for name, size in (("face", 320), ("attributes", 96)):
        pictures = latency.real_inputs(name)
        assert pictures is not None
        assert pictures.shape == (latency.PICTURES, size, size, 3)
        assert pictures.dtype == np.uint8
        assert len({picture.tobytes() for picture in pictures}) == latency.PICTURES
        assert pictures.std() > 20


def test_json_on_standard_output_stands_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("face", *SHORT, "--json", "-") == 0
    streams = capsys.readouterr()
    assert json.loads(streams.out)["rows"][0]["model"] == "face"
    assert "| face" in streams.err


@pytest.mark.parametrize(
    ("precision", "rows"),
    [
        (None, ["int8", "float32"]),
        ("float32", ["float32"]),
        ("float32,int8", ["float32", "int8"]),
        ("all", ["int8", "float32"]),
    ],
)
def test_precisions(precision: str | None, rows: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--precision", precision] if precision else []
    found = result_of(capsys, "face", "--threads", "1", *options)
    assert [row["precision"] for row in found["rows"]] == rows


def test_threads_are_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, expected in ((1, [1]), (2, [1, 2]), (4, [1, 2, 4]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])):
        monkeypatch.setattr(latency, "available_cores", lambda cores=cores: cores)
        assert latency._thread_counts(None, tune=False) == expected


def test_all_stands_for_the_models_of_the_manifest(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--precision", "int8", "--threads", "1")
    rows = result_of(capsys, *options)["rows"]
    assert [row["model"] for row in rows] == ["face"]
    assert [row["model"] for row in result_of(capsys, "face", "all", *options)["rows"]] == ["face"]


def test_another_python_is_measured_besides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A virtual environment of its own, which sees this checkout and these packages by PYTHONPATH."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, sys.path)]))
    result = result_of(capsys, "face", "--threads", "1", "--python", str(python), "--precision", "int8")
    assert len(result["rows"]) == 1  # the same runtime is not measured twice
    monkeypatch.setenv("PYTHONPATH", "")
    with pytest.raises(UsageError, match=r"cannot measure .*: install maskedge there"):
        run("face", "--python", str(python))
    with pytest.raises(UsageError, match="cannot start"):
        run("face", "--python", str(tmp_path / "no python"))


def test_unknown_runtimes_are_a_mistake() -> None:
    with pytest.raises(UsageError, match="unknown runtime 'x'"):
        run("face", "--runtime", "x")


def test_a_precision_too_new_for_the_runtime_is_skipped_unless_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MASKEDGE_MODELS", str(write_models(tmp_path / "newer", min_runtime="9.9.0")))
    assert run("face", "--threads", "1", *SHORT, "--json", str(tmp_path / "result.json")) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert [row["precision"] for row in result["rows"]] == ["float32"]
    assert "needs TFLite 9.9" in result["skipped"][0]["reason"]
    assert "Skipped: face int8" in capsys.readouterr().out
    with pytest.raises(ModelError, match=r"needs TFLite 9\.9"):
        run("face", "--precision", "int8", "--runtime", tflite.find_runtime().key)


@pytest.mark.parametrize(
    "options",
    [("--runs", "0"), ("--runs", "x"), ("--seconds", "-1"), ("--seconds", "nan"), ("--starts", "0")],
)
def test_bad_options_are_refused_by_the_parser(options: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        run("face", *options)
    assert caught.value.code == 2


@pytest.mark.parametrize("threads", ["0", "", "x", "1,-2", "1000", "1;2"])
def test_bad_thread_counts_are_a_mistake(threads: str) -> None:
    with pytest.raises(UsageError, match="threads"):
        run("face", "--threads", threads)


def test_unknown_models_and_outputs_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="known models: face"):
        run("nobody")
    with pytest.raises(ModelError, match="no file"):
        run(str(tmp_path / "nowhere.tflite"))
    with pytest.raises(UsageError, match="folder"):
        run("face", "--json", str(tmp_path))


@pytest.mark.parametrize("place", ["file/result.json", "/proc/nowhere/result.json"])
def test_a_result_that_cannot_be_written_is_refused_before_measuring(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(latency, "measure", lambda *_, **__: pytest.fail("it measured"))
    with pytest.raises(SinkError, match="cannot write"):
        run("face", "--json", str(tmp_path / place))


def test_files_that_are_no_models_are_refused_before_anything_is_measured(tmp_path: Path) -> None:
    bad = {
        "text": (b"not a model at all", "not a usable .tflite file"),
        "cut": (tiny_models.add_model()[:200], "not a usable .tflite file"),
        "empty": (b"", "not a usable .tflite file"),
        "custom": (tiny_models.custom_op_model(), "custom op"),
        "newer": (tiny_models.add_model(version=99), "cannot be loaded"),
    }
    for name, (content, words) in bad.items():
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=words):
            run("face", str(path))


def test_a_damaged_file_of_ours_is_refused_also_among_all(tmp_path: Path) -> None:
    damaged = tmp_path / "models" / "face.float32.tflite"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(ModelError, match="bytes instead of"):
        run("all")


def test_a_process_that_dies_costs_its_row_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    take = latency.Row.take

    def kill_the_second(row: latency.Row, *values: Any, **options: Any) -> None:
        if row.threads == 2:
            os.kill(row.worker._process.pid, signal.SIGKILL)
        take(row, *values, **options)

    monkeypatch.setattr(latency.Row, "take", kill_the_second)
    out = tmp_path / "result.json"
    options = ("--precision", "int8", "--threads", "1,2", *SHORT, "--json", str(out))
    assert run("face", *options) == 1
    result = json.loads(out.read_text())
    assert [row["threads"] for row in result["rows"]] == [1]
    assert "signal 9" in result["skipped"][0]["reason"]
    assert "Failed: face int8" in capsys.readouterr().out


class FakeWorker:
    """A worker as far as tuning looks at it."""

    def __init__(self, threads: int) -> None:
        model = tflite.Model(tiny_models.add_model(), threads=threads)
        self.facts = {"threads": threads, "runtime": model.runtime, "sha256": model.sha256}


def fake_row(threads: int, median: float) -> latency.Row:
    worker: Any = FakeWorker(threads)
    return latency.Row("face", "int8", worker, 560, times_ms=[median] * 3)


@pytest.mark.parametrize(
    ("medians", "best"),
    [
        ({1: 10.0}, 1),
        ({1: 10.0, 2: 6.0, 4: 5.9}, 2),  # 2 % are not worth two cores
        ({1: 10.0, 2: 9.8}, 1),
        ({4: 3.0, 2: 6.0, 1: 10.0}, 4),
        ({1: 10.0, 4: 581.0}, 1),
    ],
)
def test_tuning_takes_another_thread_only_for_a_gain(
    medians: dict[int, float], best: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tflite, "available_cores", lambda: 4)
    (tuned,) = latency._tune([fake_row(threads, median) for threads, median in medians.items()])
    assert tuned == {
        "model": "face",
        "precision": "int8",
        "runtime": tflite.find_runtime().label,
        "threads": best,
    }
    assert tflite.Model(tiny_models.add_model()).threads == best


def test_tune_sweeps_and_the_loader_uses_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    result = result_of(capsys, "face", "--tune")
    assert [row["threads"] for row in result["rows"]] == [*range(1, min(4, tflite.available_cores()) + 1)]
    assert {row["precision"] for row in result["rows"]} == {"int8"}
    assert result["tuned"][0]["threads"] == tflite.load_model("face").threads


def test_random_inputs_fit_every_kind_of_tensor() -> None:
    for content in (
        tiny_models.add_model(),
        tiny_models.cast_model(),
        tiny_models.cast_model(dtype="int32"),
        tiny_models.quantised_model(),
        tiny_models.two_in_two_out_model(),
    ):
        model = tflite.Model(content)
        arrays = random_inputs(model)
        model.run(*arrays)
        assert all(np.array_equal(a, b) for a, b in zip(arrays, random_inputs(model), strict=True))
    pixels = random_inputs(tflite.Model(tiny_models.cast_model((1, 64, 64, 3))))[0]
    assert (pixels.min(), pixels.max()) == (0, 255)


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({}, []),
        ({"busy": 10.9}, []),  # less than a tenth of a core besides our own
        ({"busy": 13.0}, ["other programs took 0.30 cores"]),
        ({"steal": 0.5}, ["0.05 cores for other guests"]),
        ({"waited": 0.1}, []),
        ({"waited": 2.0}, ["waited for a core 20 %"]),
        ({"slowest_mhz": 1800.0, "fastest_mhz": 1800.0}, []),
        ({"slowest_mhz": 1500.0, "fastest_mhz": 1800.0}, ["between 1500 and 1800 MHz"]),
        ({"busy": None, "steal": None, "waited": None}, []),
    ],
)
def test_what_disturbs_a_row_makes_it_invalid(seen: dict[str, Any], words: list[str]) -> None:
    quiet = {"wall": 10.0, "own": 10.0, "busy": 10.2, "steal": 0.0, "waited": 0.001}
    problems = Spent(**(quiet | seen)).problems()
    assert len(problems) == len(words)
    assert all(word in problem for word, problem in zip(words, problems, strict=True))


def test_usage_is_summed_over_turns() -> None:
    spent = Spent()
    spent.add(Usage(0, 0, 100, 5, 1), Usage(1, 0.9, 101, 5, 1.1))
    spent.add(Usage(5, 1, 110, 9, 2), Usage(6, 1.9, 111.5, 9, 2.1))  # what passed in between is not counted
    assert (spent.wall, spent.own, spent.busy, spent.steal) == pytest.approx((2, 1.8, 2.5, 0))
    assert spent.others_cores == pytest.approx(0.35)
    assert spent.waited_share == pytest.approx(0.1)
    spent.add(Usage(7, 2, None, 9, 2), Usage(8, 3, None, 9, 2))
    assert spent.others_cores is None


@pytest.mark.skipif(not Path("/proc/thread-self/schedstat").exists(), reason="the system does not tell")
def test_a_busy_neighbour_on_the_same_core_is_noticed() -> None:
    """Two processes that both want one core: each waits about half of the time."""
    core = sorted(os.sched_getaffinity(0))[0]
    code = f"import os; os.sched_setaffinity(0, [{core}])\nwhile True: pass"
    before = os.sched_getaffinity(0)
    with subprocess.Popen([sys.executable, "-c", code]) as neighbour:
        try:
            os.sched_setaffinity(0, [core])
            time.sleep(0.3)  # it has started
            spent, begin = Spent(), usage()
            end = time.monotonic() + 1.0
            while time.monotonic() < end:
                pass
            spent.add(begin, usage())
        finally:
            os.sched_setaffinity(0, before)
            neighbour.kill()
    assert (spent.waited_share or 0) > 0.2
    assert (spent.others_cores or 0) > 0.2
    assert len(spent.problems()) >= 2


@pytest.mark.parametrize(
    ("before", "now", "after", "governors", "words"),
    [
        (0, None, None, ("ondemand", "ondemand"), ""),
        (0, 0, 0, ("ondemand", "performance"), "governor changed from ondemand to performance"),
        (0, 0x4, 0, ("a", "a"), "get_throttled 0x4"),
        (0x50000, 0, 0x50000, ("a", "a"), ""),  # long ago
        (0, 0, 0x50000, ("a", "a"), "get_throttled 0x50000"),
    ],
)
def test_throttling_and_a_changed_governor_are_noticed(
    before: int, now: int | None, after: int | None, governors: tuple[str, str], words: str
) -> None:
    bits, names = iter([before, after]), iter(governors)
    guard = Guard(lambda: next(bits), lambda: now, lambda: next(names))
    problems = guard.problems(last=True)
    assert len(problems) == bool(words)
    assert words in "".join(problems)


def test_an_invalid_row_is_marked_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Guard, "problems", lambda *_, **__: ["the firmware throttled the clock"])
    assert run("face", "--precision", "int8", "--threads", "1", *SHORT) == 0
    table = capsys.readouterr().out
    assert "| face ! |" in table
    assert re.search(r"! face, int8, 1: the firmware throttled the clock", table)
    assert "1 of 1 rows are invalid" in table


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGINT to send")
def test_ctrl_c_ends_with_130_and_keeps_what_was_measured(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from benchmarks import latency; import argparse\n"
        "first = latency.Row.take\n"
        "def take(row, *values, **options):\n"
        "    first(row, *values, **options)\n"
        "    print('measured', row.worker._process.pid, flush=True)\n"
        "latency.Row.take = take\n"
        "parser = argparse.ArgumentParser(); latency.add_arguments(parser)\n"
        "sys.exit(latency.main(parser.parse_args(sys.argv[1:])))\n"
    )
    options = ["face", "--precision", "int8", "--threads", "1", "--seconds", "60", "--json", str(out)]
    with subprocess.Popen(
        [sys.executable, "-c", code, *options],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ.copy(),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        measured = process.stdout.readline().split()
        assert measured[0] == "measured"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "interrupted" in errors
    result = json.loads(out.read_text())
    assert result["interrupted"] is True
    (row,) = result["rows"]
    assert row["runs"] > 0
    assert row["valid"] is False
    assert "interrupted" in row["notes"][0]
    with pytest.raises(ProcessLookupError):
        os.kill(int(measured[1]), 0)


def test_it_runs_as_a_module_and_ends_with_the_exit_code_of_the_error() -> None:
    command = [sys.executable, "-m", "benchmarks.latency", "nobody"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "known models" in done.stderr
    assert "Traceback" not in done.stderr


# -------------------------------------------------------------------------- inside a model, and around it


def test_a_model_is_cut_off_behind_each_operator() -> None:
    data = tiny_models.attributes_model()
    whole = tflite.Model(data, threads=1)
    inputs = random_inputs(whole)
    expected = whole.run(*inputs)
    interpreter = tflite.find_runtime().interpreter(model_content=data)
    graph = ops.operators(data, interpreter)
    assert len(graph) > 2
    outputs = [int(item["index"]) for item in interpreter.get_output_details()]
    for found, right in zip(
        tflite.Model(ops.cut(data, len(graph), outputs), threads=1).run(*inputs), expected, strict=True
    ):
        np.testing.assert_array_equal(found, right)
    first = tflite.Model(ops.cut(data, 1, graph[0]["outputs"]), threads=1)
    first.run(*inputs)
    with pytest.raises(ModelError, match="operator"):
        ops.cut(data, len(graph) + 1, outputs)


def test_the_profile_has_every_operator_and_adds_up() -> None:
    data = tiny_models.attributes_model()
    found = ops.profile(data, random_inputs(tflite.Model(data)), threads=1, rounds=1)
    assert sum(item["share"] for item in found) == pytest.approx(1, abs=0.01)
    assert all(item["ms"] >= 0 for item in found)
    assert all(item["op"] in ops.text(found) for item in found)


def test_the_operator_that_takes_longest_stands_out() -> None:
    """Behind a small sum one of half a million numbers."""
    data = tiny_models.two_in_two_out_model((1, 500_000))
    found = ops.profile(data, random_inputs(tflite.Model(data)), threads=1, rounds=1)
    assert sum(item["ms"] for item in found) > 0.05


def write_files(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_the_clock_is_that_of_the_fastest_core(tmp_path: Path) -> None:
    assert frequency_mhz(tmp_path) is None
    files = {f"cpu{i}/cpufreq/scaling_cur_freq": f"{khz}\n" for i, khz in enumerate((600000, 1800000))}
    assert frequency_mhz(write_files(tmp_path, files)) == 1800.0


def test_energy_of_a_counter_that_wraps(tmp_path: Path) -> None:
    folder = "intel-rapl:0"
    files = {f"{folder}/name": "package-0\n", f"{folder}/energy_uj": "9000000\n"}
    files |= {f"{folder}/max_energy_range_uj": "10000000\n", "intel-rapl:0:0/name": "core\n"}
    files |= {"intel-rapl:0:0/energy_uj": "5\n", "intel-rapl-mmio:0/name": "package-0\n"}
    root = write_files(tmp_path / "powercap", files)
    with EnergyMeter(powercap=root, hwmon=tmp_path) as meter:
        (root / folder / "energy_uj").write_text("1500000\n")
    assert meter.source == "powercap"
    assert meter.joules == pytest.approx(2.5)


def test_energy_of_a_power_sensor_is_its_mean_over_time(tmp_path: Path) -> None:
    root = write_files(tmp_path, {"hwmon3/power1_input": "3200000\n"})
    with EnergyMeter(powercap=tmp_path / "none", hwmon=root, every_s=0.01) as meter:
        time.sleep(0.1)
    assert meter.watts == pytest.approx(3.2)
    assert meter.joules is not None
    assert 0.1 * 3.2 <= meter.joules < 60


def test_without_a_meter_energy_is_unknown(tmp_path: Path) -> None:
    with EnergyMeter(powercap=tmp_path, hwmon=tmp_path) as meter:
        pass
    assert (meter.source, meter.joules, meter.watts) == (None, None, None)


def test_the_rails_of_a_raspberry_pi_5_are_summed() -> None:
    text = """   3V7_WL_SW_A current(0)=0.08000000A
     VDD_CORE_A current(7)=1.50000000A
    3V7_WL_SW_V volt(8)=3.70000000V
     VDD_CORE_V volt(15)=0.80000000V
          BATT_V volt(25)=0.00000000V
"""
    assert sum_of_rails(text) == pytest.approx(0.08 * 3.7 + 1.5 * 0.8)
    assert sum_of_rails("error=1") is None

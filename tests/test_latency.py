"""The latency benchmark: its options, its result contract, tuning, and how it ends."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import latency
from edge import tflite
from edge.errors import ModelError, SinkError, UsageError
from tests import tiny_models
from tests.test_tflite import write_models

ROOT = Path(__file__).parents[1]
ROW = {"model", "precision", "threads", "runs", "warmup", "init_ms", "first_ms", "mean", "min", "std"}
ROW |= {"p50", "p90", "p95", "p99", "peak_rss_mb", "bytes"}
MACHINE = {
    "cpu",
    "cores",
    "governor",
    "temperature_c",
    "temperature_c_after",
    "throttled",
    "throttled_after",
    "os",
}
MACHINE |= {"python", "runtime", "git_commit", "git_dirty"}


@pytest.fixture(autouse=True)
def short_turns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(latency, "TURN_S", 0.002)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MASKEDGE_MODELS", str(write_models(tmp_path / "models")))


def run(*options: str) -> int:
    parser = argparse.ArgumentParser()
    latency.add_arguments(parser)
    return latency.main(parser.parse_args([*options]))


def test_the_result_keeps_the_contract(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "any.tflite"
    path.write_bytes(tiny_models.add_model())
    out = tmp_path / "result.json"
    assert (
        run("face", str(path), "--threads", "1,2", "--runs", "20", "--seconds", "0", "--json", str(out)) == 0
    )
    result = json.loads(out.read_text())
    assert result["version"] == 1
    assert set(result["machine"]) >= MACHINE
    assert all(set(row) == ROW for row in result["rows"])
    assert [(row["model"], row["precision"], row["threads"]) for row in result["rows"]] == [
        ("face", "int8", 1),
        ("face", "int8", 2),
        ("any.tflite", "-", 1),
        ("any.tflite", "-", 2),
    ]
    for row in result["rows"]:
        assert row["runs"] >= 20
        assert 0 < row["min"] <= row["p50"] <= row["p90"] <= row["p95"] <= row["p99"]
        assert row["min"] <= row["mean"]
        assert row["init_ms"] > 0 < row["first_ms"]
    assert result["rows"][2]["bytes"] == path.stat().st_size
    table = capsys.readouterr().out
    assert "| any.tflite | - | 2 |" in table
    header = next(line for line in table.splitlines() if line.startswith("| model"))
    assert all(line.count("|") == header.count("|") for line in table.splitlines() if line.startswith("|"))


def test_runs_and_seconds_are_both_lower_limits() -> None:
    start = time.monotonic()
    (row,) = latency.measure(["face"], runs=3, seconds=0.3)["rows"]
    assert time.monotonic() - start >= 0.3
    assert row["runs"] > 3


def test_json_on_standard_output_stands_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("face", "--runs", "2", "--seconds", "0", "--json", "-") == 0
    streams = capsys.readouterr()
    assert json.loads(streams.out)["rows"][0]["model"] == "face"
    assert "| face |" in streams.err


@pytest.mark.parametrize(
    ("precision", "rows"),
    [
        (None, ["int8"]),
        ("float32", ["float32"]),
        ("float32,int8", ["float32", "int8"]),
        ("all", ["int8", "float32"]),
    ],
)
def test_precisions(precision: str | None, rows: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--precision", precision] if precision else []
    assert run("face", *options, "--runs", "1", "--seconds", "0", "--json", "-") == 0
    assert [row["precision"] for row in json.loads(capsys.readouterr().out)["rows"]] == rows


@pytest.mark.parametrize(
    "options", [("--runs", "0"), ("--runs", "x"), ("--seconds", "-1"), ("--seconds", "nan")]
)
def test_bad_options_are_refused_by_the_parser(options: tuple[str, ...]) -> None:
    models = ["face"] if options else []
    with pytest.raises(SystemExit) as caught:
        run(*models, *options)
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
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="cannot write"):
        run("face", "--runs", "1", "--seconds", "0", "--json", str(tmp_path / "file" / "result.json"))


def fake_row(threads: int, median: float) -> latency.Row:
    model = tflite.Model(tiny_models.add_model(), threads=threads)
    return latency.Row("face", "int8", threads, model, 1.0, 1.0, None, 560, [median] * 3)


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
    assert tuned == {"model": "face", "precision": "int8", "threads": best}
    assert tflite.Model(tiny_models.add_model()).threads == best


def test_tune_sweeps_and_the_loader_uses_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("face", "--tune", "--runs", "5", "--seconds", "0", "--json", "-") == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["threads"] for row in result["rows"]] == [*range(1, min(4, tflite.available_cores()) + 1)]
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
        arrays = latency.random_inputs(model)
        model.run(*arrays)
        assert all(np.array_equal(a, b) for a, b in zip(arrays, latency.random_inputs(model), strict=True))
    pixels = latency.random_inputs(tflite.Model(tiny_models.cast_model((1, 64, 64, 3))))[0]
    assert (pixels.min(), pixels.max()) == (0, 255)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"other_programs_cores": 1.3}, ["1.3 of 4 cores"]),
        ({"steal_cores": 0.2}, ["steal"]),
        ({"governor": "performance"}, []),
        ({"governor": "ondemand", "throttled_after": 0x4}, ["ondemand", "0x4"]),
    ],
)
def test_what_disturbed_the_measurement_is_noted(changes: dict[str, Any], words: list[str]) -> None:
    calm = {
        "other_programs_cores": 0.02,
        "steal_cores": 0.0,
        "cores": 4,
        "governor": None,
        "throttled_after": None,
    }
    notes = latency._notes(calm | changes)
    assert len(notes) == len(words)
    assert all(word in note for word, note in zip(words, notes, strict=True))


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGINT to send")
def test_ctrl_c_ends_with_130_and_no_traceback(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    path = ROOT / "edge" / "assets" / "probe.tflite"
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from benchmarks import latency; import argparse\n"
        "first = latency._turn\n"
        "def turn(row, **options):\n"
        "    print('measuring', flush=True)\n"
        "    first(row, **options)\n"
        "latency._turn = turn\n"
        "parser = argparse.ArgumentParser(); latency.add_arguments(parser)\n"
        "sys.exit(latency.main(parser.parse_args(sys.argv[1:])))\n"
    )
    command = [sys.executable, "-c", code, str(path), "--seconds", "60", "--json", str(out)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ.copy()
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "measuring\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "interrupted" in errors
    assert not out.exists()


def test_it_runs_as_a_module_and_ends_with_the_exit_code_of_the_error() -> None:
    command = [sys.executable, "-m", "benchmarks.latency", "nobody"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "known models" in done.stderr
    assert "Traceback" not in done.stderr

"""The benchmark put to the test: what agrees, what does not, and that the test itself can fail."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import validate
from benchmarks.machine import Guard
from edge.cli import main as cli
from edge.errors import ModelError, SinkError, UsageError
from tests import tiny_models

pytestmark = pytest.mark.clock

DOCS = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def has_tool() -> bool:
    try:
        return importlib.util.find_spec(validate.TOOL) is not None
    except ModuleNotFoundError:
        return False


needs_tool = pytest.mark.skipif(not has_tool(), reason="litert-benchmark is not installed here")


def run(*options: str) -> int:
    parser = argparse.ArgumentParser()
    validate.add_arguments(parser)
    return validate.main(parser.parse_args([*options]))


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "any.tflite"
    path.write_bytes(tiny_models.add_model((1, 200_000)))
    return str(path)


@needs_tool
def test_against_the_real_tool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What comes out depends on the machine; that both measured the same kind of thing does not."""
    out = tmp_path / "validate.json"
    code = run("face:float32", "--rounds", "2", "--seconds", "0.1", "--json", str(out))
    result = json.loads(out.read_text())
    assert code == (0 if result["agrees"] else 1)
    (row,) = result["rows"]
    assert (row["model"], row["precision"], row["rounds"]) == ("face", "float32", 2)
    assert 0.1 < row["ratio"] < 10
    assert row["agrees"] == (abs(row["ratio"] - 1) <= 0.05)
    assert result["percentiles"][0]["agrees"]
    assert result["percentiles"][0]["samples"] == row["runs"]
    text = capsys.readouterr().out
    assert "| face | float32 | 1 |" in text
    documented = set(re.findall(r"[a-z_0-9]+", DOCS.read_text(encoding="utf-8")))
    fields = set(result) | set(row) | set(result["percentiles"][0]) | set(result["delays"][0])
    assert fields <= documented


@needs_tool
@pytest.mark.parametrize(("factor", "code"), [(1.0, 0), (1.5, 1)])
def test_a_tool_that_says_otherwise_makes_it_fail(
    factor: float, code: int, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both are this benchmark's own, so that on any machine they agree but for the factor."""

    def median(self: validate.LitertBenchmark, runs: int) -> float:
        return factor * latest[-1]

    latest: list[float] = []
    turn = validate.Worker.turn

    def note(self: validate.Worker, *values: Any, **options: Any) -> Any:
        found = turn(self, *values, **options)
        latest.append(float(np.median(found.times_ms)))
        return found

    monkeypatch.setattr(validate.LitertBenchmark, "median_ms", median)
    monkeypatch.setattr(validate.Worker, "turn", note)
    monkeypatch.setattr(validate, "DELAYS_MS", ())
    assert run(model, "--rounds", "1", "--seconds", "0.05") == code
    assert ("does not agree" in capsys.readouterr().out) == bool(code)


@needs_tool
def test_a_tool_that_fails_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.tflite"
    path.write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"litert-benchmark failed on bad\.tflite"):
        validate.LitertBenchmark(path, 1).median_ms(1)


def test_percentiles_are_checked_against_others(monkeypatch: pytest.MonkeyPatch) -> None:
    times = np.random.default_rng(0).gamma(2, 1, 999).tolist()
    assert validate.check_percentiles(times)["agrees"]
    figures = validate.figures
    # Nearest rank in place of linear interpolation: a difference as small as it gets.
    monkeypatch.setattr(
        validate,
        "figures",
        lambda values: figures(values) | {"p90": float(np.percentile(values, 90, method="higher"))},
    )
    assert not validate.check_percentiles(times)["agrees"]


@pytest.mark.parametrize("delay_ms", [1.0, 5.0])
def test_a_delay_shows_in_full(model: str, delay_ms: float) -> None:
    found = validate.check_delay(model, delay_ms, seconds=0.3)
    assert found["agrees"], found
    assert found["p50"] >= delay_ms
    assert found["runs"] > 10


def test_a_benchmark_that_counts_processor_time_only_would_be_found_out(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_turn = validate.measure_turn

    def blind(*values: Any, **options: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("benchmarks.worker.time.perf_counter", time.process_time)
            return measure_turn(*values, **options)

    monkeypatch.setattr(validate, "measure_turn", blind)
    # The delay itself would be measured by the same clock: its own stays.
    real = time.perf_counter

    class Honest(validate.Delayed):
        def invoke(self) -> None:
            begun = real()
            self._invoke()
            self.inner_ms.append((real() - begun) * 1e3)
            time.sleep(self._delay_s)
            self.delays_ms.append(self._delay_s * 1e3)

    monkeypatch.setattr(validate, "Delayed", Honest)
    assert not validate.check_delay(model, 5.0, seconds=0.02)["agrees"]


# ---------------------------------------------------------------------------------------------- bad input


def test_without_the_tool_it_says_so(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="litert-benchmark is not installed"):
        run(model)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"not a model at all", "not a usable .tflite file"),
        (tiny_models.add_model()[:200], "not a usable .tflite file"),
        (tiny_models.custom_op_model(), "custom op"),
    ],
)
def test_models_that_are_none_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "bad.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=words):
        run(str(path))


def test_models_by_name_and_precision() -> None:
    assert validate.find_model("face:float32")[:2] == ("face", "float32")
    assert validate.find_model("face")[1] == "int8"
    with pytest.raises(ModelError, match="no precision"):
        validate.find_model("face:int3")
    with pytest.raises(ModelError, match="known models"):
        validate.find_model("nobody")


@pytest.mark.parametrize("place", ["file/result.json", "/proc/nowhere/result.json"])
def test_a_result_that_cannot_be_written_is_refused_before_measuring(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(validate, "measure", lambda *_, **__: pytest.fail("it measured"))
    with pytest.raises(SinkError, match="cannot write"):
        run("--json", str(tmp_path / place))


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--rounds", "0"], 2),
        (["--seconds", "0"], 2),
        (["--threads", "0"], 2),
        (["--threads", "999"], 2),
        (["nowhere.tflite"], 3),
    ],
)
def test_wrong_use_gets_one_line_and_a_code(
    options: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(["bench", "validate", *options]) == code
    out = capsys.readouterr()
    assert out.err.strip().count("\n") == 0
    assert out.err.startswith("maskedge: error: ")
    assert out.out == ""


def test_the_guard_is_asked_at_the_end(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_tool():
        pytest.skip("litert-benchmark is not installed here")
    monkeypatch.setattr(validate.LitertBenchmark, "median_ms", lambda self, runs: 1.0)
    bits = iter([0, 0x50000])
    guard = Guard(throttled=lambda: next(bits), throttled_now=lambda: 0, governor=lambda: None)
    row, _ = validate.compare_medians(model, threads=1, rounds=1, seconds=0.02, guard=guard)
    assert not row["valid"]
    assert "throttled" in row["notes"][0]

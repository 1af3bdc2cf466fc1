"""Comparing two results: real differences are found, noise is none, and what cannot be compared is not."""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import compare
from benchmarks.resultfile import Result, identity, machine_names, read_result
from edge.errors import InputError, UsageError

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]


def samples(ms: float, seed: int, count: int = 500) -> list[float]:
    """Latencies with what real ones have: a long tail, and a level that drifts over the run."""
    rng = np.random.default_rng(seed)
    drift = 1 + 0.02 * np.sin(np.linspace(0, rng.uniform(2, 9), count) + rng.uniform(0, 6))
    tail = rng.exponential(0.03, count) + (rng.uniform(size=count) < 0.02) * rng.uniform(0.5, 2, count)
    return (ms * drift * (1 + tail)).tolist()


def result(ms: float = 2.0, seed: int = 0, **row: Any) -> dict[str, Any]:
    """A result file with one row."""
    times = samples(ms, seed)
    figures = {f"p{q}": float(np.percentile(times, q)) for q in (50, 90, 95, 99)}
    one = {
        "model": "face",
        "precision": "int8",
        "runtime": "ai-edge-litert 2.3.0",
        "threads": 1,
        "runs": 500,
        "valid": True,
        "notes": [],
        "samples_ms": times,
        "samples_at_s": np.linspace(0, 3, 500).tolist(),
        **figures,
    }
    machine = {"cpu": "Cortex-A72", "board": "Raspberry Pi 4", "cores": 4, "usable_cores": 4}
    return {"version": 1, "kind": "latency", "machine": machine, "rows": [one | row]}


def run(tmp_path: Path, old: dict[str, Any], new: dict[str, Any], *options: str) -> int:
    paths = []
    for name, data in (("old", old), ("new", new)):
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps(data))
    parser = argparse.ArgumentParser()
    compare.add_arguments(parser)
    return compare.main(parser.parse_args([*map(str, paths), *options]))


def verdicts(old: dict[str, Any], new: dict[str, Any], **options: Any) -> list[str]:
    both = (Result(Path("x"), "latency", data) for data in (old, new))
    return [one.verdict for one in compare.differences(*both, **options)]


def test_twenty_percent_more_is_slower(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, result(2.0, 1), result(2.4, 2)) == 1
    assert "**slower**" in capsys.readouterr().out
    assert run(tmp_path, result(2.4, 1), result(2.0, 2)) == 0
    assert "1 faster" in capsys.readouterr().out


def test_a_slowdown_is_found_in_every_run_and_noise_never() -> None:
    for seed in range(0, 24, 2):
        assert verdicts(result(2.0, seed), result(2.4, seed + 1)) == ["slower"], seed
        assert verdicts(result(2.0, seed), result(2.0, seed + 1)) == ["same"], seed


def test_the_smallest_difference_that_matters(tmp_path: Path) -> None:
    assert run(tmp_path, result(2.0, 1), result(2.4, 2), "--min", "0.5") == 0
    assert run(tmp_path, result(2.0, 1), result(2.1, 2), "--min", "0.01") == 1


def test_a_few_slow_samples_are_no_slowdown() -> None:
    new = result(2.0, 2)
    new["rows"][0]["samples_ms"][:20] = [50.0] * 20
    assert verdicts(result(2.0, 1), new) == ["same"]


def test_rows_are_matched_by_what_they_are() -> None:
    old, new = result(2.0, 1), result(2.0, 2)
    new["rows"] += [row | {"threads": 2} for row in result(1.0, 3)["rows"]]
    assert len(verdicts(old, new)) == 1
    # A newer release of the same runtime is what one wants to compare; another runtime is another row.
    new["rows"][0]["runtime"] = "ai-edge-litert 3.0.0"
    assert len(verdicts(old, new)) == 1
    new["rows"][0]["runtime"] = "tflite-runtime 2.14.0"
    assert verdicts(old, new) == []


def test_another_machine_is_refused(tmp_path: Path) -> None:
    new = result(2.0, 2)
    new["machine"]["cpu"] = "Cortex-A76"
    with pytest.raises(UsageError, match="cpu Cortex-A72 and Cortex-A76") as error:
        run(tmp_path, result(2.0, 1), new)
    assert error.value.exit_code == 2
    assert run(tmp_path, result(2.0, 1), new, "--across") == 0


def test_rows_that_do_not_count_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = result(9.0, 2, valid=False, notes=["the firmware throttled the clock"])
    good = result(2.0, 3)
    for data in (bad, good):
        data["rows"] += [row | {"threads": 2} for row in result(2.0, 4)["rows"]]
    assert run(tmp_path, good, bad) == 0  # not slower: unknown
    assert "unknown: the new row does not count: the firmware throttled" in capsys.readouterr().out


def test_nothing_to_compare(tmp_path: Path) -> None:
    old, new = result(2.0, 1), result(2.0, 2)
    other = copy.deepcopy(new)
    other["rows"][0]["model"] = "attributes"
    with pytest.raises(UsageError, match="no row in common"):
        run(tmp_path, old, other)
    del new["rows"][0]["samples_ms"]
    with pytest.raises(UsageError, match="no row can be compared"):
        run(tmp_path, old, new)
    with pytest.raises(UsageError, match="of kind loop"):
        run(tmp_path, old, old | {"kind": "loop"})


# -------------------------------------------------------------------------------------------- result files


def test_files_of_older_versions_are_read() -> None:
    one = read_result(ROOT / "benchmarks" / "results" / "face_latency.json")
    assert one.kind in ("latency",)
    assert all(row["p90"] >= row["p50"] for row in one.rows)
    assert all("valid" in row for row in one.rows)


def test_what_older_files_say_of_the_whole_run_counts_against_each_row(tmp_path: Path) -> None:
    data = result()
    del data["kind"], data["rows"][0]["valid"], data["rows"][0]["notes"], data["rows"][0]["runtime"]
    data |= {"notes": ["other programs kept 1.9 cores busy"]}
    data["machine"]["runtime"] = "tflite-runtime 2.14.0"
    path = tmp_path / "old.json"
    path.write_text(json.dumps(data))
    one = read_result(path)
    assert (one.kind, one.valid_rows) == ("latency", [])
    assert one.rows[0]["notes"] == data["notes"]
    assert identity(one.rows[0]) == ("face", "int8", "tflite-runtime", 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"version": 2, "rows": []}',
        '{"version": 1, "rows": [1]}',
        '{"version": 1, "rows": [{"model": "face"}]}',
        '{"version": 1, "kind": "other", "rows": []}',
        "[" * 100_000,
    ],
)
def test_what_is_no_result(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError):
        read_result(path)
    with pytest.raises(InputError):
        read_result(tmp_path / "missing.json")


def test_two_runs_on_one_machine_have_two_names() -> None:
    one, two, three = (
        Result(Path(name), kind, {"machine": {"cpu": "A72", "usable_cores": 4}, "rows": []})
        for name, kind in (("a.json", "latency"), ("b.json", "latency"), ("c.json", "loop"))
    )
    assert machine_names([one, two, three]) == ["A72, 4 cores (a)", "A72, 4 cores (b)", "A72, 4 cores"]

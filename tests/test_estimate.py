"""Estimates for boards that are not here: what is counted in a model, the fit, and what is said."""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import estimate
from benchmarks.estimate import Work
from edge.errors import ModelError, UsageError
from edge.tflite import load_manifest
from tests import tiny_models
from tests.tiny_models import Op, Tensor

pytest.importorskip("ai_edge_litert", reason="model files are read with ai-edge-litert")

ROOT = Path(__file__).parents[1]
CONV_2D, DEPTHWISE_CONV_2D = 3, 4


def run(*options: str) -> int:
    parser = argparse.ArgumentParser()
    estimate.add_arguments(parser)
    return estimate.main(parser.parse_args([*options]))


# ------------------------------------------------------------------------------------------------ counting


def test_fully_connected() -> None:
    tensors = [
        Tensor("x", (1, 4)),
        Tensor("w", (3, 4), data=np.ones((3, 4))),
        Tensor("b", (3,), data=np.ones(3)),
        Tensor("y", (1, 3)),
    ]
    data = tiny_models.build(tensors, [Op(tiny_models.FULLY_CONNECTED, [0, 1, 2], [3])], [0], [3])
    assert estimate.count(data) == Work({"float32": 12}, {}, 4 * (4 + 12 + 3 + 3), {"FULLY_CONNECTED": 1})


def test_convolutions_of_an_int8_model() -> None:
    """3 x 3 convolution from 2 to 5 channels at 4 x 6 places, then a depthwise one over the 5 channels."""
    tensors = [
        Tensor("x", (1, 8, 12, 2), "int8", 0.5),
        Tensor("w", (5, 3, 3, 2), "int8", 0.5, data=np.ones((5, 3, 3, 2))),
        Tensor("h", (1, 4, 6, 5), "int8", 0.5),
        Tensor("d", (1, 3, 3, 5), "int8", 0.5, data=np.ones((1, 3, 3, 5))),
        Tensor("y", (1, 4, 6, 5), "int8", 0.5),
    ]
    ops = [Op(CONV_2D, [0, 1], [2]), Op(DEPTHWISE_CONV_2D, [2, 3], [4])]
    work = estimate.count(tiny_models.build(tensors, ops, [0], [4]))
    assert work.macs == {"int8": 5 * 3 * 3 * 2 * 4 * 6}
    assert work.depthwise == {"int8": 3 * 3 * 5 * 4 * 6}
    assert work.all_macs == 2160 + 1080
    assert work.bytes == (192 + 90 + 120) + (120 + 45 + 120)


def test_float_activations_on_int8_weights_are_dynamic() -> None:
    tensors = [
        Tensor("x", (1, 4)),
        Tensor("w", (3, 4), "int8", 0.5, data=np.ones((3, 4))),
        Tensor("y", (1, 3)),
    ]
    data = tiny_models.build(tensors, [Op(tiny_models.FULLY_CONNECTED, [0, 1], [2])], [0], [2])
    assert estimate.count(data).macs == {"dynamic": 12}


def test_views_and_weights_expanded_at_load_time_cost_nothing() -> None:
    tensors = [
        Tensor("x", (1, 4)),
        Tensor("half", (4,), "float16", data=np.ones(4)),
        Tensor("whole", (4,)),
        Tensor("y", (1, 4)),
        Tensor("z", (4, 1)),
    ]
    ops = [
        Op(tiny_models.DEQUANTIZE, [1], [2]),
        Op(tiny_models.ADD, [0, 2], [3], 1, tiny_models.ADD_OPTIONS),
        Op(tiny_models.RESHAPE, [3], [4]),
    ]
    work = estimate.count(tiny_models.build(tensors, ops, [0], [4]))
    assert work.ops == {"ADD": 1}
    assert work.bytes == 3 * 4 * 4


def test_shipped_models_have_the_macs_of_the_manifest() -> None:
    manifest = load_manifest()
    for name, entry in manifest.models.items():
        for precision, file in entry.files.items():
            assert estimate.count(manifest.read(name, precision)).all_macs == file.macs, (name, precision)


@pytest.mark.parametrize("cut", [0, 10, 40, 1000])
def test_no_model_or_half_a_model(cut: int) -> None:
    manifest = load_manifest()
    with pytest.raises(ModelError, match=r"no TFLite file|damaged"):
        estimate.count(manifest.read("face", "int8")[:cut])


# ------------------------------------------------------------------------------------------------- the fit


def test_non_negative_least_squares() -> None:
    rows = np.random.default_rng(0).uniform(0, 1, (8, 3))
    assert np.allclose(estimate._non_negative(rows, rows @ [2.0, 0.5, 3.0]), [2.0, 0.5, 3.0])
    # The best fit would need a negative number there: it stays out, and the rest is fitted without it.
    target = rows @ [2.0, -1.0, 3.0]
    found = estimate._non_negative(rows, target)
    assert found[1] == 0
    assert np.allclose(found[[0, 2]], np.linalg.lstsq(rows[:, [0, 2]], target, rcond=None)[0])


@pytest.mark.parametrize(("key", "worst"), [("pi3", 1.1), ("pi4", 1.2), ("pi5", 1.6)])
def test_a_fit_without_a_measurement_comes_near_it(key: str, worst: float) -> None:
    board = estimate.fit_board(key)
    assert len(board.errors) >= 6
    assert all(1 / worst < error < worst for error in board.errors.values())
    # The range that is printed held every measurement that was left out.
    assert all(1 / board.factor <= error <= board.factor for error in board.errors.values())


def test_left_out_means_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A measurement that is wrong by ten shows in its own error and does not hide in its own fit."""
    wrong = [
        estimate.Published("pi3", one.model, one.arithmetic, one.ms * 10, one.source)
        if (one.model, one.arithmetic) == ("mobilenet_v2", "int8")
        else one
        for one in estimate.PUBLISHED
        if one.board == "pi3"
    ]
    monkeypatch.setattr(estimate, "PUBLISHED", wrong)
    assert estimate.fit_board("pi3").errors["mobilenet_v2", "int8"] < 0.15


def test_newer_boards_are_faster_and_int8_is_faster() -> None:
    work = {kind: Work({kind: 10**8}, {kind: 10**7}, 10**7, {"CONV_2D": 40}) for kind in ("float32", "int8")}
    boards = [estimate.fit_board(key) for key in ("pi3", "pi4", "pi5")]
    for threads in (1, 4):
        times = [[estimate.estimate(work[kind], board, threads).ms for board in boards] for kind in work]
        assert all(a > b for line in times for a, b in itertools.pairwise(line))
        assert all(whole > small for whole, small in zip(*times, strict=True))


def test_the_range_holds_the_estimate_and_one_thread_is_slower() -> None:
    for key in estimate.BOARDS:
        board = estimate.fit_board(key)
        work = Work({"int8": 10**8}, {"int8": 10**7}, 10**7, {"CONV_2D": 40})
        one, four = (estimate.estimate(work, board, threads) for threads in (1, 4))
        for found in (one, four):
            assert found.low < found.ms < found.high
            assert found.high / found.low >= estimate.LEAST_FACTOR**2
        assert one.ms > four.ms


def test_dynamic_lies_between_int8_and_float32() -> None:
    board = estimate.fit_board("pi4")
    times = {
        kind: estimate.estimate(Work({kind: 10**8}, {}, 10**7, {"CONV_2D": 9}), board, 4)
        for kind in ("float32", "int8", "dynamic")
    }
    assert times["int8"].ms < times["dynamic"].ms < times["float32"].ms
    assert times["dynamic"].low == times["int8"].low
    assert times["dynamic"].high == times["float32"].high
    assert "dynamic" in times["dynamic"].note


@pytest.mark.parametrize("work", [Work({"other": 10}, {}, 10, {"CONV_2D": 1}), Work({}, {}, 10, {"ADD": 1})])
def test_nothing_is_made_up_where_nothing_was_published(work: Work) -> None:
    found = estimate.estimate(work, estimate.fit_board("pi5"), 1)
    assert found.ms is found.low is found.high is None
    assert found.note


def test_other_thread_counts_were_not_published() -> None:
    with pytest.raises(ValueError, match="1 or 4"):
        estimate.estimate(Work({"int8": 1}, {}, 1, {}), estimate.fit_board("pi4"), 2)


def test_the_docs_name_every_source_and_every_figure() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for source in estimate.SOURCES.values():
        assert source.rsplit("(", 1)[1].rstrip(")") in text
    for one in estimate.PUBLISHED:
        assert f"{one.ms:g}" in text, one


# --------------------------------------------------------------------------------------------- the command


def test_the_result_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "estimate.json"
    assert run("face", "attributes", "--precision", "int8,float32", "--board", "pi4", "--json", str(out)) == 0
    result = json.loads(out.read_text())
    assert (result["version"], result["kind"], result["machine"]) == (1, "estimate", None)
    keys = {(row["model"], row["precision"], row["board"], row["threads"]) for row in result["rows"]}
    assert keys == {
        (model, precision, "Raspberry Pi 4 Model B", threads)
        for model in ("face", "attributes")
        for precision in ("int8", "float32")
        for threads in (1, 4)
    }
    shown = capsys.readouterr().out
    assert "Estimates, not measurements" in shown
    assert "Raspberry Pi 5" not in shown


def test_a_foreign_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "any.tflite"
    path.write_bytes(tiny_models.attributes_model())
    assert run(str(path)) == 0
    assert "any.tflite" in capsys.readouterr().out


def test_bad_input(tmp_path: Path) -> None:
    text = tmp_path / "text.tflite"
    text.write_text("no model at all, but long enough")
    for name in (str(text), str(tmp_path / "missing.tflite"), "no-such-model"):
        with pytest.raises(ModelError):
            run(name)
    with pytest.raises(UsageError):
        run("face", "--json", str(tmp_path))


def test_a_manifest_that_disagrees_is_said() -> None:
    work = estimate.count(load_manifest().read("face", "int8"))
    estimate._check_macs("face", "int8", work)
    with pytest.raises(ModelError, match="manifest says"):
        estimate._check_macs("face", "int8", Work({"int8": 1}, {}, 1, {}))

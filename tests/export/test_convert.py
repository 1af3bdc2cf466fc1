"""Conversion and parity on a tiny network: every precision takes bytes, and losses are caught."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from edge.tflite import Model
from export import convert, manifest, parity
from export.face_model import KerasModel, by_width
from export.models import face as net

SHAPE = net.FaceConfig(8, (8, 8, 8, 8), (0, 1, 1, 1), 8)


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(3)
    return net.build((64, 64), SHAPE, batch=1, folded=True)


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (1, 64, 64, 3)).astype(np.uint8) for _ in range(4)]


@pytest.mark.parametrize("precision", convert.PRECISIONS)
def test_every_precision_takes_pixels_and_agrees_with_keras(network, pictures, precision, tmp_path):
    path = tmp_path / "face.x.tflite"
    path.write_bytes(convert.to_tflite(network, precision, lambda: pictures))
    model = Model(path)
    assert model.inputs[0].dtype == (np.float32 if precision == "int16x8" else np.uint8)
    assert model.inputs[0].shape == (1, 64, 64, 3)
    assert {spec.dtype for spec in model.outputs} == {np.dtype(np.float32)}
    if precision == "int8":
        assert model.inputs[0].scale == pytest.approx(1.0)
        assert model.inputs[0].zero_point == 0
    reference = KerasModel(network)
    figures = parity.compare(
        (by_width(reference, reference.run(p)), by_width(model, model.run(p))) for p in pictures
    )
    # Random weights leave most outputs near zero, where rounding weighs more: scores carry the bias.
    assert figures["scores"]["cosine"] > 0.999
    facts = manifest.file_facts(path)
    assert facts["bytes"] == path.stat().st_size
    assert len(facts["sha256"]) == 64
    assert facts["macs"] > 100_000
    assert facts["parameters"] > 1000
    if precision != "int16x8":
        assert facts["min_runtime"].split(".")[0] in ("1", "2")


def test_unknown_precision(network):
    with pytest.raises(ValueError, match="float32"):
        convert.to_tflite(network, "int4", list)


def test_compare_figures():
    a = {"x": np.array([1.0, 2.0, 3.0])}
    assert parity.compare([(a, a)]) == {"x": {"max_error": 0.0, "mean_error": 0.0, "cosine": 1.0}}
    worse = parity.compare([(a, {"x": np.array([1.0, 2.0, 4.0])}), (a, a)])["x"]
    assert worse["max_error"] == 1.0
    assert worse["mean_error"] == pytest.approx(1 / 6)
    assert worse["cosine"] < 1


@pytest.mark.parametrize(
    ("precision", "cosine", "drop", "refused"),
    [
        ("int8", 0.999, 0.005, False),
        ("int8", 0.999, 0.02, True),
        ("int8", 0.9, 0.0, True),
        ("float32", 0.999, 0.0, True),
        ("float32", 1.0, -0.01, False),
    ],
)
def test_parity_refuses_past_its_limits(precision, cosine, drop, refused):
    figures = {"scores": {"max_error": 0.0, "mean_error": 0.0, "cosine": cosine}}
    if refused:
        with pytest.raises(parity.ParityError, match=precision):
            parity.check(precision, figures, drop)
    else:
        parity.check(precision, figures, drop)


def test_manifest_keeps_other_entries(tmp_path):
    manifest.write(tmp_path, "a", {"task": "a"})
    manifest.write(tmp_path, "b", {"task": "b"})
    manifest.write(tmp_path, "a", {"task": "c"})
    assert manifest.read(tmp_path)["models"] == {"a": {"task": "c"}, "b": {"task": "b"}}


def test_precisions_that_no_longer_ship_are_removed(tmp_path):
    convert.ship({"int8": b"1", "float32": b"2"}, tmp_path, "a")
    (tmp_path / "b.int8.tflite").write_bytes(b"another model's")
    convert.ship({"int8": b"3"}, tmp_path, "a")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "a.int8.tflite": b"3",
        "b.int8.tflite": b"another model's",
    }

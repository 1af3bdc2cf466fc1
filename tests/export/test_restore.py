"""A run folder out of a shipped file: the same function, and training goes on from it."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from edge.errors import ModelError
from export import restore
from export.__main__ import main
from export.models import attributes, identity, unmask
from export.train import averaging, stages

SHIPPED = Path(__file__).parent.parent.parent / "converted_models"
# Of each model: its shape, its crop's side, outputs told apart by what the file gives.
MODELS: dict[str, tuple[Any, int, tuple[str, ...]]] = {
    "attributes": (attributes.AttributesConfig(), 96, tuple(attributes.OUTPUTS)),
    "identity": (identity.IdentityConfig(), 112, ("embedding", "quality")),
    "unmask": (unmask.UnmaskConfig(), 128, tuple(unmask.OUTPUTS)),
}


def network(name: str) -> keras.Model:
    shape, size, _ = MODELS[name]
    if name == "identity":
        return identity.build(size, shape)
    return (unmask if name == "unmask" else attributes).build(size, shape, teaching=True)


def crops(name: str) -> np.ndarray:
    """Soft patches of colour: noise of single pixels is what no network is made for."""
    size = MODELS[name][1]
    coarse = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
    return np.asarray(keras.ops.image.resize(coarse, (size, size))).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", list(MODELS))
def test_a_run_folder_of_what_ships(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape, size, outputs = MODELS[name]
    restored, seen = network(name), crops(name)
    monkeypatch.setitem(restore._PARTS, name, lambda *_: (restored, shape, outputs, seen))
    packs, run = tmp_path / "packs", tmp_path / "run"
    with pytest.raises(FileNotFoundError, match=f"prepare {name}"):
        restore.restore(name, SHIPPED, packs, run)
    (packs / "bare").mkdir(parents=True)
    (packs / "bare" / "ready").touch()

    # It is held against the file there.
    weights, steps = averaging.read_averaged(restore.restore(name, SHIPPED, packs, run))
    assert steps == 0
    assert [w.shape for w in weights] == [w.shape for w in restored.get_weights()]
    assert stages.read_facts(run) == {"shape": asdict(shape), "size": size, "placed": True}

    # In training the moments are those of the batch, here of the very crops they were taken from.
    for layer in restored.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    pixels = seen.astype(np.float32)
    usual, learning = restored(pixels, training=False), restored(pixels, training=True)
    for key in outputs:
        a, b = (np.asarray(one[key]) for one in (usual, learning))
        assert np.abs(a - b).max() < 0.03 * np.ptp(a), key

    restored.set_weights([w * np.float32(1.02) for w in restored.get_weights()])
    with pytest.raises(ModelError, match="of its range away"):
        restore.check((SHIPPED / f"{name}.float32.tflite").read_bytes(), restored, seen, outputs)


def test_a_file_of_another_shape_is_refused() -> None:
    data = (SHIPPED / "attributes.float32.tflite").read_bytes()
    shape = MODELS["attributes"][0]
    with pytest.raises(ModelError, match="layers normalisation where the network has"):
        restore.set_weights(data, attributes.build(96, replace(shape, depths=(2, 3, 3))))
    with pytest.raises(ModelError, match="have the shape"):
        restore.set_weights(data, attributes.build(96, replace(shape, top=240)))


def test_a_file_that_is_not_float32_is_refused() -> None:
    data = (SHIPPED / "attributes.int8.tflite").read_bytes()
    with pytest.raises(ModelError, match="not float32"):
        restore.set_weights(data, network("attributes"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["restore", "unmask", "--run", "nowhere"], "prepare unmask"),
        (["train", "attributes", "--run", "nowhere", "--from", "neither"], "no trained weights in neither"),
        (["train", "unmask", "--run", "nowhere", "--from", "neither"], "restore --help"),
    ],
)
def test_what_is_missing_is_said_in_a_line(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1

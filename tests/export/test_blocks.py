"""Pieces of the networks against Keras's own."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from export.models import blocks
from export.train import stages


def test_normalisation_is_that_of_keras():
    pictures = np.random.default_rng(0).normal(3, 2, (8, 6, 6, 4)).astype(np.float32)
    ours = blocks.Normalisation(momentum=0.9, epsilon=1e-3)
    other = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-3)
    for _ in range(3):
        assert np.allclose(ours(pictures, training=True), other(pictures, training=True), atol=1e-5)
    for one, two in zip(ours.get_weights(), other.get_weights(), strict=True):
        # The variance of TensorFlow's kernel is that of the population a batch is drawn from.
        assert np.allclose(one, two, rtol=0.01)
    assert np.allclose(ours(pictures), other(pictures), atol=0.05)


@pytest.mark.parametrize(
    ("flags", "policy"), [("avx512_bf16", "mixed_bfloat16"), ("avx2", "float32"), (None, "float32")]
)
def test_bfloat16_where_the_processor_can(flags, policy, tmp_path, monkeypatch):
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"flags : fpu {flags}")
    monkeypatch.setattr(stages, "CPUINFO", tmp_path / "cpuinfo")
    with stages.precision(stages.TrainConfig(bfloat16=True)):
        network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), blocks.depthwise(3)])
    assert network.layers[0].dtype_policy.name == policy
    assert network.layers[1].dtype_policy.name == "float32"
    assert {weight.dtype for weight in network.weights} == {"float32"}
    with stages.precision(stages.TrainConfig()):
        assert keras.layers.Conv2D(4, 3).dtype_policy.name == "float32"

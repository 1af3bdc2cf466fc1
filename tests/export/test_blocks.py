"""Pieces of the networks against Keras's own."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from export.models import blocks
from export.train import averaging, stages


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


def test_muon_moves_convolutions_in_all_directions_alike_and_the_rest_as_adamw():
    keras.utils.set_random_seed(1)
    layers = [keras.Input((4, 4, 8)), keras.layers.Conv2D(6, 1), blocks.depthwise(3), keras.layers.Dense(5)]
    after = {}
    for muon in (False, True):
        network = keras.models.clone_model(keras.Sequential(layers))
        for weight in network.trainable_weights:
            weight.assign(np.ones(weight.shape))
        optimizer = averaging.build_optimizer(rate=0.1, decay=0.0, total=9, warmup=0, muon=muon)
        optimizer.build(network.trainable_weights)
        gradients = [np.random.default_rng(0).normal(size=w.shape) * 0.01 for w in network.trainable_weights]
        optimizer.apply([keras.ops.convert_to_tensor(g, "float32") for g in gradients])
        after[muon] = {weight.path: weight.numpy() - 1 for weight in network.trainable_weights}
    for (path, moved), other in zip(after[True].items(), after[False].values(), strict=True):
        size, usual = np.sqrt((moved**2).mean()), np.sqrt((other**2).mean())
        if moved.ndim == 4 and moved.shape[-1] > 1:
            stretched = np.linalg.svd(moved.reshape(-1, moved.shape[-1]), compute_uv=False)
            assert stretched.max() < 2 * stretched.min(), path
            assert 0.1 < size / usual < 0.3, path  # of AdamW's updates, once they are no longer the first
        else:
            assert np.allclose(moved, other, atol=1e-6), path

"""What every training run needs: averaged weights that survive an interruption, its losses, the optimiser."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops


def read_averaged(path: Path) -> tuple[list[np.ndarray], int]:
    """What `Averaged` wrote: weights in the network's order, and the steps they are the average of."""
    with np.load(path) as file:
        return [file[f"w{i}"] for i in range(len(file.files) - 1)], int(file["count"])


def write_averaged(path: Path, weights: Iterable[np.ndarray], count: int) -> None:
    """Writes weights in the network's order, and the steps they are the average of, for `read_averaged`."""
    temporary = path.with_name("averaged.part.npz")
    arrays: dict[str, Any] = {f"w{i}": value for i, value in enumerate(weights)}
    np.savez(temporary, count=count, **arrays)
    temporary.replace(path)


class Averaged(keras.callbacks.Callback):
    """Exponential moving average of all weights, batch-norm statistics included; saved every epoch.

    The decay rises with the steps taken, min(decay, (1 + n) / (40 + n)), so that the start is forgotten.
    """

    EVERY = 4  # steps between updates: reading all weights costs about as much as 1 % of a step

    def __init__(self, network: keras.Model, decay: float, path: Path, history: Path) -> None:
        super().__init__()
        self.network, self.decay, self.path, self.history = network, decay, path, history
        self.count, self.values = 0, None
        if path.exists():
            self.values, self.count = read_averaged(path)

    def on_train_batch_end(self, batch: int, logs=None) -> None:
        self.count += 1
        if self.count % self.EVERY:
            return
        # While it trains with JAX, Keras keeps the weights outside of the model.
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        now = self.network.get_weights()
        if self.values is None:
            self.values = now
            return
        d = min(self.decay**self.EVERY, (1 + self.count) / (10 * self.EVERY + self.count))
        for mean, value in zip(self.values, now, strict=True):
            mean += (1 - d) * (value - mean)

    def save(self, path: Path) -> None:
        """Writes the averages, for `read_averaged`."""
        write_averaged(path, self.values or [], self.count)

    def on_epoch_end(self, epoch: int, logs=None) -> None:
        self.save(self.path)
        with self.history.open("a") as file:
            values = {k: round(float(v), 5) for k, v in (logs or {}).items()}
            file.write(json.dumps({"epoch": epoch, **values}) + "\n")


class Trainer(keras.Model):
    """A network with its losses; the mean of each part of them is shown while it trains.

    Args:
        network: what is trained.
        parts: names of the means, which `compute_loss` updates.
    """

    def __init__(self, network: keras.Model, parts: Iterable[str]) -> None:
        super().__init__()
        self.network = network
        self.parts = {name: keras.metrics.Mean(name) for name in parts}

    def call(self, x, training=None):
        return self.network(x, training=training)

    @property
    def metrics(self):
        return [*super().metrics, *self.parts.values()]


def unit(x: Any) -> Any:
    """Rows of length 1."""
    return x / ops.maximum(ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True)), 1e-6)


def weighted_mean(loss: Any, weight: Any) -> Any:
    """Mean of losses by their weights, or over those that count (bool); 0 if all weigh nothing."""
    weight = ops.cast(weight, "float32")
    return ops.sum(loss * weight) / ops.maximum(ops.sum(weight), 1.0)


class Muon(keras.optimizers.Muon):
    """Muon (Jordan 2024) for the kernels of convolutions that mix channels, AdamW for all else.

    A kernel is a matrix of all it sees by its filters. Keras gives only matrices to Muon.
    """

    def _should_use_adamw(self, variable: Any) -> bool:
        # The kernels of depthwise convolutions have one filter a channel.
        return len(variable.shape) != 4 or variable.shape[-1] == 1

    def _muon_update_step(self, gradient: Any, variable: Any, lr: Any, m: Any) -> None:
        self.assign_add(m, ops.add(gradient, m * (self.momentum - 1)))
        ahead = ops.reshape(gradient + self.momentum * m, (-1, variable.shape[-1]))
        update = self.lr_adjust(lr * self.zeropower_via_newtonschulz5(ahead, self.ns_steps))
        self.assign_sub(variable, ops.reshape(update, variable.shape))


def build_optimizer(
    *, rate: float, decay: float, total: int, warmup: int, momentum: float = 0.9, muon: bool = False
) -> keras.optimizers.Optimizer:
    """AdamW, or Muon, with a warm-up and a half cosine; biases and batch-norm parameters do not decay.

    Args:
        rate: peak learning rate; updates of both are alike in size (Liu et al. 2025, "Muon is scalable for
            LLM training", sec. 2.2).
        decay: weight decay.
        total: steps of the run.
        warmup: of them, until the peak.
        momentum: how much of each update the next ones keep, `beta_1` of AdamW.
        muon: whether it is Muon, see `Muon`.
    """
    schedule = keras.optimizers.schedules.CosineDecay(
        rate / 20, total - warmup, alpha=0.01, warmup_target=rate, warmup_steps=warmup
    )
    made = (
        Muon(schedule, weight_decay=decay, adam_weight_decay=decay, adam_beta_1=momentum, clipnorm=10.0)
        if muon
        else keras.optimizers.AdamW(schedule, weight_decay=decay, beta_1=momentum, clipnorm=10.0)
    )
    made.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return made


def checkpoints(folder: Path) -> keras.callbacks.Callback:
    """Saves weights and optimiser after each epoch and goes on from there.

    The last two are kept: a run that is killed while it writes goes on from the one before.
    """
    return keras.callbacks.BackupAndRestore(
        folder / "checkpoint", double_checkpoint=True, delete_checkpoint=False
    )

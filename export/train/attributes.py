"""Training of the attributes model: losses, stages of growing pictures, scores after each epoch."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from export.data import attribute_batches as batches
from export.data.attribute_faces import Faces, load, plain_pack
from export.models import attributes as net
from export.models.blocks import fold_normalisation
from export.train.averaging import Averaged, adamw, checkpoints, read_averaged

log = logging.getLogger(__name__)


@dataclass(slots=True, frozen=True)
class TrainConfig:
    """Everything a run depends on besides the data.

    Attributes:
        size: side of the crop, pixels (the network is convolutional: stages grow it).
        placed: pool with weights for every place, which fixes the size; for the last stage.
        batch, steps, epochs: crops a batch, batches an epoch, epochs.
        rate: peak learning rate of AdamW, after a warm-up of `warmup` steps, then a half cosine.
        decay: weight decay.
        ema: decay a step of the averaged weights, which are the ones that ship.
        seed: of data order, augmentation and first weights.
    """

    size: int = 96
    placed: bool = False
    batch: int = 128
    steps: int = 400
    epochs: int = 10
    rate: float = 2e-3
    warmup: int = 300
    decay: float = 0.03
    ema: float = 0.998
    seed: int = 1


STAGES: tuple[TrainConfig, ...] = (
    # Small pictures first: more than twice as many faces in the same time.
    TrainConfig(size=64, epochs=20, rate=3e-3),
    TrainConfig(
        size=96, placed=True, batch=64, steps=800, epochs=15, rate=1.2e-3, warmup=200, ema=0.999, seed=2
    ),
    TrainConfig(
        size=96, placed=True, batch=64, steps=800, epochs=24, rate=1.2e-3, warmup=200, ema=0.999, seed=4
    ),
)

SMOOTHING = 0.03
GLANCE = 1000  # held-out faces of each kind that are scored after an epoch
WEIGHTS = {"mask": 1.5, "gender": 3.0, "face": 0.5, "embedding": 1.5, "age": 0.3}


class AttributesTrainer(keras.Model):
    """The network with its losses.

    Mask state: cross entropy, where a label that allows two states (worn wrongly) counts the sum of both.
    Gender: cross entropy with smoothed labels. Face: binary cross entropy. Taught besides: the teacher's
    embedding of the bare face (cosine) and the age group, which ask the backbone to look at the whole face.
    """

    def __init__(self, network: keras.Model) -> None:
        super().__init__()
        self.network = network
        self.parts = {k: keras.metrics.Mean(k) for k in WEIGHTS}

    def call(self, x, training=None):
        return self.network(x, training=training)

    @property
    def metrics(self):
        return [*super().metrics, *self.parts.values()]

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        p: dict[str, Any] = y_pred
        rows = {
            "mask": (_sum_of_allowed(y[:, batches.MASK], p["mask"]), _informative(y[:, batches.MASK])),
            "gender": (_cross(y[:, batches.GENDER], p["gender"]), ops.max(y[:, batches.GENDER], axis=-1)),
            "age": (_cross(y[:, batches.AGE], p["age"]), ops.max(y[:, batches.AGE], axis=-1)),
            "face": (_binary(y[:, batches.FACE], p["face"][:, 0]), y[:, batches.FACE_KNOWN]),
            "embedding": (
                1 - ops.sum(_unit(y[:, batches.EMBEDDING]) * _unit(p["embedding"]), axis=-1),
                ops.cast(ops.max(ops.abs(y[:, batches.EMBEDDING]), axis=-1) > 0, "float32"),
            ),
        }
        total = 0.0
        for name, (loss, weight) in rows.items():
            mean = ops.sum(loss * weight) / ops.maximum(ops.sum(weight), 1.0)
            self.parts[name].update_state(mean)
            total = total + WEIGHTS[name] * mean
        return total


def _unit(x: Any) -> Any:
    return x / ops.maximum(ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True)), 1e-6)


def _informative(allowed: Any) -> Any:
    """1 for rows whose label says anything: not all four states allowed."""
    return ops.cast(ops.sum(allowed, axis=-1) < allowed.shape[-1] - 0.5, "float32")


def _sum_of_allowed(allowed: Any, logits: Any) -> Any:
    log_p = ops.log_softmax(logits, axis=-1)
    summed = -ops.logsumexp(log_p + (1 - allowed) * -30.0, axis=-1)
    return (1 - SMOOTHING) * summed - SMOOTHING * ops.mean(log_p, axis=-1)


def _cross(target: Any, logits: Any) -> Any:
    log_p = ops.log_softmax(logits, axis=-1)
    return -(1 - SMOOTHING) * ops.sum(target * log_p, axis=-1) - SMOOTHING * ops.mean(log_p, axis=-1)


def _binary(target: Any, logit: Any) -> Any:
    return ops.maximum(logit, 0.0) - logit * target + ops.log(1 + ops.exp(-ops.abs(logit)))


def quick_scores(network: keras.Model, pack: Faces, size: int) -> dict[str, float]:
    """Accuracies on packed held-out faces, for a glance during training; the report scores pictures.

    Returns:
        `gender`, `mask` (worn wrongly counts as one), `states` (where one state is known) and `face`, each
        over the rows that know it.
    """
    rows = np.arange(0, len(pack), max(1, len(pack) // GLANCE))
    logits = network.predict(batches.dev_batches(pack, size, rows), batch_size=128, verbose=0)
    best = logits["mask"].argmax(axis=1)
    mask, gender, face = pack.mask[rows], pack.gender[rows], pack.face[rows] == 1
    kinds = mask.sum(axis=1)
    told = face & (kinds < 4)
    three = np.array([0, 1, 1, 2])
    right = {
        "gender": (logits["gender"].argmax(axis=1) == gender)[gender >= 0],
        "mask": (three[best] == three[mask.argmax(axis=1)])[told],
        "states": (best == mask.argmax(axis=1))[told & (kinds == 1)],
        "face": (logits["face"][:, 0] > 0) == face,
    }
    return {k: round(float(np.mean(v)), 4) for k, v in right.items() if len(v)}


class Glance(keras.callbacks.Callback):
    """Scores the averaged weights on the held-out packs after each epoch."""

    def __init__(self, averaged: Averaged, network: keras.Model, packs: dict[str, Faces], size: int) -> None:
        super().__init__()
        self.averaged, self.network, self.packs, self.size = averaged, network, packs, size

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.averaged.values is None:
            return
        self.network.set_weights(self.averaged.values)
        for name, pack in self.packs.items():
            scores = quick_scores(self.network, pack, self.size)
            log.info("epoch %d  %-12s n %-5d %s", epoch + 1, name, len(pack), scores)


def load_network(
    run: Path, size: int | None = None, *, batch: int | None = None, folded: bool = False
) -> keras.Model:
    """The trained network of a run folder (averaged weights), without the teaching outputs.

    Args:
        run: folder of the run.
        size: of the crop, pixels; by default that of the last stage. A run whose last stage is not `placed`
            can be had at any size.
        batch, folded: as in `export.models.attributes.build`.

    Raises:
        FileNotFoundError: if the run has no checkpoint yet.
        ValueError: the run's size is another one.
    """
    if not (run / "averaged.npz").exists():
        raise FileNotFoundError(f"no trained weights in {run}: run `python -m export train attributes` first")
    facts = json.loads((run / "network.json").read_text())
    if facts["placed"] and size not in (None, facts["size"]):
        raise ValueError(f"the network in {run} was trained for crops of {facts['size']} px, not {size}")
    shape: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts["shape"].items()}
    size = size or facts["size"]
    whole = net.build(size, net.AttributesConfig(**shape), batch=batch, folded=folded, teaching=True)
    weights, _ = read_averaged(run / "averaged.npz")
    net.carry_over(fold_normalisation(weights) if folded else weights, whole)
    return keras.Model(whole.input, {name: whole.output[name] for name in net.OUTPUTS}, name="attributes")


def train(
    packs: Path,
    run: Path,
    stages: Sequence[TrainConfig] = STAGES,
    network: net.AttributesConfig | None = None,
) -> Path:
    """Trains from scratch, or goes on where the last checkpoint of the run folder stands.

    Args:
        packs: folder that `attribute_faces.prepare` wrote.
        run: folder for checkpoints and logs, a folder a stage.
        stages: one after the other, each starting from the averaged weights of the one before.
        network: shape of the network.

    Returns:
        The file of averaged weights, for `load_network`.

    Raises:
        FileNotFoundError: if the packs are missing.
    """
    if not (packs / "bare" / "ready").exists():
        raise FileNotFoundError(
            f"no packed faces at {packs}: run `python -m export prepare attributes` first"
        )
    shape = network or net.AttributesConfig()
    before: Path | None = None
    for number, config in enumerate(stages, 1):
        log.info("stage %d of %d: %s", number, len(stages), config)
        before = _train_stage(packs, run / f"stage{number}", config, shape, before)
    if before is None:
        raise ValueError("no stage to train")
    shutil.copyfile(before, run / "averaged.npz")
    facts = {"shape": asdict(shape), "size": stages[-1].size, "placed": stages[-1].placed}
    (run / "network.json").write_text(json.dumps(facts))
    return run / "averaged.npz"


PLAIN: tuple[TrainConfig, ...] = (
    TrainConfig(size=64, steps=400, epochs=1, warmup=100, ema=0.99),
    TrainConfig(size=96, placed=True, batch=64, steps=400, epochs=1, rate=1e-3, warmup=50, ema=0.995, seed=2),
)


def train_plain(packs: Path, run: Path, stages: Sequence[TrainConfig] = PLAIN) -> Path:
    """Trains the yardstick: the same network on real pictures alone, told only mask or none.

    Returns:
        The file of averaged weights.
    """
    if not (run / "packs" / "scenes" / "ready").exists():
        plain_pack(packs, run / "packs")
    return train(run / "packs", run, stages)


def _train_stage(
    packs: Path, folder: Path, config: TrainConfig, shape: net.AttributesConfig, before: Path | None
) -> Path:
    keras.utils.set_random_seed(config.seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(
        json.dumps({"train": asdict(config), "network": asdict(shape)}, indent=1)
    )
    fixed = config.size if config.placed else None
    model = AttributesTrainer(net.build(fixed, shape, teaching=True))
    averaged = folder / "averaged.npz"
    callback = Averaged(model.network, config.ema, averaged, folder / "history.jsonl")
    done = callback.count // config.steps
    if done >= config.epochs:
        return averaged
    if before is not None:
        net.carry_over(read_averaged(before)[0], model.network)
    total = config.steps * config.epochs
    model.compile(optimizer=adamw(rate=config.rate, decay=config.decay, total=total, warmup=config.warmup))
    model.build((None, config.size, config.size, 3))
    glance = Glance(
        callback,
        net.build(fixed, shape, teaching=True),
        {p.parent.name: pack for p in sorted(packs.glob("dev*/ready")) if len(pack := load(p.parent))},
        config.size,
    )
    model.fit(
        batches.AttributeBatches(
            packs,
            size=config.size,
            batch=config.batch,
            steps=config.steps,
            seed=config.seed,
            epoch=done,
        ),
        epochs=config.epochs,
        callbacks=[
            callback,
            glance,
            checkpoints(folder),
        ],
        verbose=1 if sys.stdout.isatty() else 2,
    )
    return averaged

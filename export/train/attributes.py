"""Training of the attributes model: losses, stages, scores after each epoch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from export.data import attribute_batches as batches
from export.data.attribute_faces import Faces, load, plain_pack
from export.models import attributes as net
from export.train.averaging import Trainer, unit, weighted_mean
from export.train.opinions import second_opinions
from export.train.stages import TrainConfig, read_run, train_stages

log = logging.getLogger(__name__)


@dataclass(slots=True, frozen=True)
class AttributesStage(TrainConfig):
    """A stage, what is done to its faces, and how much is taught besides.

    Attributes:
        hardness: what is done to faces.
        taught: multiplies the weights of the losses that only teach the backbone, the embedding and the age.
    """

    size: int = 96
    placed: bool = True
    batch: int = 64
    steps: int = 800
    rate: float = 1e-3
    warmup: int = 200
    ema: float = 0.999
    bfloat16: bool = True
    hardness: batches.Hardness = batches.PLAIN
    taught: float = 1.0


SOFT = batches.Hardness(worn=0.25, mixed=0.3, moved=0.9, spoilt=0.8, soft=0.6)

STAGES: tuple[AttributesStage, ...] = (
    # Small pictures first: more than twice as many faces in the same time.
    AttributesStage(size=64, placed=False, batch=128, steps=400, epochs=20, rate=3e-3, warmup=300, ema=0.998),
    AttributesStage(epochs=15, rate=1.2e-3, seed=2),
    AttributesStage(epochs=24, rate=1.2e-3, seed=4, kept=1 / 2),
    # From here on the result is the mean over the stages since the second.
    AttributesStage(epochs=7, seed=5, kept=1 / 2, hardness=batches.Hardness(worn=0.2, mixed=0.25)),
    AttributesStage(epochs=8, seed=6, kept=2 / 3, hardness=batches.Hardness(worn=0.2, mixed=0.1), taught=0.2),
    AttributesStage(epochs=6, seed=8, kept=3 / 4, hardness=batches.Hardness(worn=0.3, mixed=0.4)),
    AttributesStage(epochs=10, seed=9, hardness=SOFT),
)

SMOOTHING = 0.03
GLANCE = 1000  # held-out faces of each kind that are scored after an epoch
WEIGHTS = {"mask": 1.5, "gender": 3.0, "face": 0.5, "embedding": 1.5, "age": 0.3}


class AttributesTrainer(Trainer):
    """The network with its losses.

    Mask state: cross entropy, where a label that allows two states (worn wrongly) counts the sum of both.
    Gender: cross entropy with smoothed labels. Face: binary cross entropy. Taught besides: the teacher's
    embedding of the bare face (cosine) and the age group, which ask the backbone to look at the whole face.
    """

    def __init__(self, network: keras.Model, taught: float = 1.0) -> None:
        super().__init__(network, WEIGHTS)
        self.weights_of = WEIGHTS | {name: WEIGHTS[name] * taught for name in net.TEACHING}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        p: dict[str, Any] = y_pred
        rows = {
            "mask": (_sum_of_allowed(y[:, batches.MASK], p["mask"]), _informative(y[:, batches.MASK])),
            "gender": (_cross(y[:, batches.GENDER], p["gender"]), ops.sum(y[:, batches.GENDER], axis=-1)),
            "age": (_cross(y[:, batches.AGE], p["age"]), ops.sum(y[:, batches.AGE], axis=-1)),
            "face": (_binary(y[:, batches.FACE], p["face"][:, 0]), y[:, batches.FACE_KNOWN]),
            "embedding": (
                1 - ops.sum(unit(y[:, batches.EMBEDDING]) * unit(p["embedding"]), axis=-1),
                ops.cast(ops.max(ops.abs(y[:, batches.EMBEDDING]), axis=-1) > 0, "float32"),
            ),
        }
        total = 0.0
        for name, (loss, weight) in rows.items():
            mean = weighted_mean(loss, weight)
            self.parts[name].update_state(mean)
            total = total + self.weights_of[name] * mean
        return total


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

    def build(size: int, shape: dict[str, Any]) -> keras.Model:
        return net.build(size, net.AttributesConfig(**shape), batch=batch, folded=folded, teaching=True)

    whole = read_run(run, size, build, folded=folded, name="attributes")
    return keras.Model(whole.input, {name: whole.output[name] for name in net.OUTPUTS}, name="attributes")


def train(
    packs: Path,
    run: Path,
    stages: Sequence[AttributesStage] = STAGES,
    network: net.AttributesConfig | None = None,
    *,
    begin: Path | None = None,
) -> Path:
    """Trains from scratch, or goes on where the last checkpoint of the run folder stands.

    Args:
        packs: folder that `attribute_faces.prepare` wrote.
        run: folder for checkpoints and logs, a folder a stage.
        stages: one after the other, each starting from the averaged weights of the one before.
        network: shape of the network.
        begin: see `train_stages`.

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
    held = {p.parent.name: load(p.parent) for p in sorted(packs.glob("dev*/ready"))}

    def drawn(config: AttributesStage, epoch: int) -> batches.AttributeBatches:
        return batches.AttributeBatches(
            packs,
            config.hardness,
            opinions=second_opinions(load(packs / "bare")) if config.hardness.soft else None,
            size=config.size,
            batch=config.batch,
            steps=config.steps,
            seed=config.seed,
            epoch=epoch,
        )

    def score(model: keras.Model, size: int) -> None:
        for name, pack in held.items():
            if len(pack):
                log.info("  %-12s n %-5d %s", name, len(pack), quick_scores(model, pack, size))

    return train_stages(
        run,
        stages,
        shape,
        build=lambda size: net.build(size, shape, teaching=True),
        trainer=lambda model, stage: AttributesTrainer(model, stage.taught),
        batches=drawn,
        score=score,
        begin=begin,
    )


PLAIN: tuple[AttributesStage, ...] = (
    AttributesStage(size=64, placed=False, batch=128, steps=400, epochs=1, rate=2e-3, warmup=100, ema=0.99),
    AttributesStage(steps=400, epochs=1, warmup=50, ema=0.995, seed=2),
)


def train_plain(packs: Path, run: Path, stages: Sequence[AttributesStage] = PLAIN) -> Path:
    """Trains the yardstick: the same network on real pictures alone, told only mask or none.

    Returns:
        The file of averaged weights.
    """
    if not (run / "packs" / "scenes" / "ready").exists():
        plain_pack(packs, run / "packs")
    return train(run / "packs", run, stages)

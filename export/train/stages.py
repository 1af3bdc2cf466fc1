"""A training run in stages of growing pictures: each goes on from the averaged weights of the one before."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np

from export.models.blocks import carry_over, deepen, fold_normalisation
from export.train.averaging import Averaged, build_optimizer, checkpoints, read_averaged, write_averaged

log = logging.getLogger(__name__)

CPUINFO = Path("/proc/cpuinfo")


@dataclass(slots=True, frozen=True)
class TrainConfig:
    """Everything a stage depends on besides the data.

    Attributes:
        size: side of the crop, pixels (the networks are convolutional: stages grow it).
        placed: pool with weights for every place, which fixes the size; for the last stages.
        batch, steps, epochs: crops a batch, batches an epoch, epochs.
        rate: peak learning rate, after a warm-up of `warmup` steps, then a half cosine.
        decay: weight decay.
        momentum: of AdamW (its first beta).
        muon: train kernels of convolutions by Muon, see `averaging.Muon`.
        ema: decay a step of the averaged weights, which are the ones that ship.
        seed: of data order, augmentation and first weights.
        bfloat16: multiply in bfloat16 where the processor can (AVX512-BF16, AMX), 1.4 times as fast;
            weights, sums and losses stay float32.
        kept: share of the weights it begins with in those it ends with, for what the stages before knew of
            faces that this one sees less of (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models").
        patience: the stage ends after so many epochs without a better score on held-out faces, and its best
            averaged weights count instead of the last ones; 0 for neither.
    """

    size: int = 96
    placed: bool = False
    batch: int = 128
    steps: int = 400
    epochs: int = 10
    rate: float = 2e-3
    warmup: int = 300
    decay: float = 0.03
    momentum: float = 0.9
    muon: bool = False
    ema: float = 0.998
    seed: int = 1
    bfloat16: bool = False
    kept: float = 0.0
    patience: int = 0


Build = Callable[[int | None], keras.Model]
"""Gives a new network, with the teaching outputs, for crops of that side (None: of any)."""
Score = Callable[[keras.Model, int], float | None]
"""Logs the scores of a network for crops of that side on held-out faces; gives the one that counts, if any
does: higher is better."""


@contextmanager
def precision(config: TrainConfig) -> Iterator[None]:
    """Networks built inside multiply in bfloat16, if the stage wants that and the processor can."""
    if not config.bfloat16:
        yield
        return
    try:
        flags = CPUINFO.read_text()
    except OSError:
        flags = ""
    if "avx512_bf16" not in flags and "amx_bf16" not in flags:
        log.info("this processor does not multiply bfloat16: float32 it is, which takes longer")
        yield
        return
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


class _Glance(keras.callbacks.Callback):
    """Scores the averaged weights after each epoch, keeps the best, and ends a stage that gets no better."""

    def __init__(
        self, averaged: Averaged, network: keras.Model, config: TrainConfig, score: Score, folder: Path
    ) -> None:
        super().__init__()
        self.averaged, self.network, self.config, self.score = averaged, network, config, score
        self.log, self.best = folder / "scores.json", folder / "best.npz"
        self.scores: list[float] = json.loads(self.log.read_text()) if self.log.exists() else []

    @property
    def finished(self) -> bool:
        """Whether patience has run out."""
        if not (self.config.patience and self.scores):
            return False
        return len(self.scores) - 1 - int(np.argmax(self.scores)) >= self.config.patience

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.averaged.values is None:
            return
        self.network.set_weights(self.averaged.values)
        log.info("epoch %d:", epoch + 1)
        value = self.score(self.network, self.config.size)
        if value is None:
            return
        # An epoch that was interrupted before it was saved is scored again.
        self.scores = [*self.scores[:epoch], value]
        if int(np.argmax(self.scores)) == len(self.scores) - 1:
            self.averaged.save(self.best)
        self.log.write_text(json.dumps(self.scores))
        if self.finished:
            log.info("no better for %d epochs: the stage ends", self.config.patience)
            self.model.stop_training = True


def _first(begin: Path, run: Path, shape: Any, build: Build) -> Path:
    """The weights to begin with: those of another run, made to fit where its network has fewer blocks."""
    weights, facts = begin / "averaged.npz", read_facts(begin)
    depths = facts["shape"].get("depths")
    if depths == getattr(shape, "depths", None):
        return weights
    log.info("the network grows from %s to %s blocks", depths, shape.depths)
    run.mkdir(parents=True, exist_ok=True)
    network = build(facts["size"] if facts["placed"] else None)
    deepen(read_averaged(weights)[0], depths, network, shape)
    write_averaged(run / "deepened.npz", network.get_weights(), 0)
    return run / "deepened.npz"


def train_stages(
    run: Path,
    stages: Sequence[TrainConfig],
    shape: Any,
    *,
    build: Build,
    trainer: Callable[[keras.Model, Any], keras.Model],
    batches: Callable[[Any, int], keras.utils.PyDataset],
    score: Score,
    begin: Path | None = None,
) -> Path:
    """Trains from scratch, or goes on where the last checkpoint of the run folder stands.

    Args:
        run: folder for checkpoints and logs, a folder a stage.
        stages: one after the other.
        shape: of the network, a dataclass; written down beside its weights.
        build: see `Build`.
        trainer: wraps a network, which it keeps as `network`, with its losses; for a stage.
        batches: of a stage, from an epoch on.
        score: see `Score`.
        begin: run folder whose weights the first stage goes on from; None begins anew. Its network may have
            fewer blocks.

    Returns:
        The file of averaged weights, for `read_run`.

    Raises:
        ValueError: no stage is given.
    """
    cv2.setNumThreads(1)  # batches are made by threads already
    before = _first(begin, run, shape, build) if begin else None
    for number, config in enumerate(stages, 1):
        log.info("stage %d of %d: %s", number, len(stages), config)
        folder = run / f"stage{number}"
        keras.utils.set_random_seed(config.seed)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(
            json.dumps({"train": asdict(config), "network": asdict(shape)}, indent=1)
        )
        fixed = config.size if config.placed else None
        with precision(config):
            network = build(fixed)
        model = trainer(network, config)
        averaged = Averaged(model.network, config.ema, folder / "averaged.npz", folder / "history.jsonl")
        glance = _Glance(averaged, build(fixed), config, score, folder)
        done = averaged.count // config.steps
        if done < config.epochs and not glance.finished:
            if before is not None:
                carry_over(read_averaged(before)[0], model.network)
            total = config.steps * config.epochs
            optimizer = build_optimizer(
                rate=config.rate,
                decay=config.decay,
                total=total,
                warmup=config.warmup,
                momentum=config.momentum,
                muon=config.muon,
            )
            model.compile(optimizer=optimizer)
            model.build((None, config.size, config.size, 3))
            model.fit(
                batches(config, done),
                epochs=config.epochs,
                # Batches are drawn at random already; another order would be lost with an interrupted run.
                shuffle=False,
                # Scoring takes a while: interrupted there, the epoch is not saved, and done again.
                callbacks=[glance, averaged, checkpoints(folder)],
                verbose=1 if sys.stdout.isatty() else 2,
            )
        after = folder / ("best.npz" if config.patience and glance.best.exists() else "averaged.npz")
        if config.kept and before is not None:
            carry_over(read_averaged(before)[0], glance.network)
            values, averaged.count = read_averaged(after)
            pairs = zip(glance.network.get_weights(), values, strict=True)
            averaged.values = [config.kept * old + (1 - config.kept) * new for old, new in pairs]
            after = folder / "blended.npz"
            averaged.save(after)
        before = after
    if before is None or not stages:
        raise ValueError("no stage to train")
    shutil.copyfile(before, run / "averaged.npz")
    write_facts(run, shape, size=stages[-1].size, placed=stages[-1].placed)
    return run / "averaged.npz"


def as_shape(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of a network's shape as JSON keeps them, with its lists as the tuples they were."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def write_facts(run: Path, shape: Any, *, size: int, placed: bool) -> None:
    """Writes down what a run's weights are for, for `read_facts`; `shape` is a dataclass."""
    facts = {"shape": asdict(shape), "size": size, "placed": placed}
    (run / "network.json").write_text(json.dumps(facts))


def read_facts(run: Path) -> dict[str, Any]:
    """What a run's weights are for: the `shape` of the network, the `size` of the crop, whether `placed`."""
    facts: dict[str, Any] = json.loads((run / "network.json").read_text())
    return facts | {"shape": as_shape(facts["shape"])}


def read_run(
    run: Path,
    size: int | None,
    build: Callable[[int, dict[str, Any]], keras.Model],
    *,
    folded: bool,
    name: str,
) -> keras.Model:
    """The trained network of a run folder (averaged weights).

    Args:
        run: folder of the run.
        size: of the crop, pixels; by default that of the last stage. A run whose last stage is not `placed`
            can be had at any size.
        build: gives a new network for a size and the shape's fields.
        folded: whether `build` leaves the normalising layer out.
        name: of the model, for messages.

    Raises:
        FileNotFoundError: if the run has no checkpoint yet.
        ValueError: the run's size is another one.
    """
    if not (run / "averaged.npz").exists():
        raise FileNotFoundError(f"no trained weights in {run}: run `python -m export train {name}` first")
    facts = read_facts(run)
    if facts["placed"] and size not in (None, facts["size"]):
        raise ValueError(f"the network in {run} was trained for crops of {facts['size']} px, not {size}")
    whole = build(size or facts["size"], facts["shape"])
    weights: list[np.ndarray] = read_averaged(run / "averaged.npz")[0]
    carry_over(fold_normalisation(weights) if folded else weights, whole)
    return whole

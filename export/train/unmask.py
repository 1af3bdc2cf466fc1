"""Training of the unmask model: what a mask is likely to hide, first small, then large, then in detail."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
from keras import ops

from export.data import unmask_faces as faces
from export.models import unmask as net
from export.models.blocks import PIXEL_SCALE
from export.train.averaging import Trainer
from export.train.stages import TrainConfig, read_facts, read_run, train_stages

log = logging.getLogger(__name__)


@dataclass(slots=True, frozen=True)
class UnmaskStage(TrainConfig):
    """A stage of training.

    Attributes:
        adversarial: weight of the discriminators' opinion; 0 for a stage without them.
        alone: steps in which the discriminators learn before anybody listens to them.
    """

    placed: bool = True
    adversarial: float = 0.0
    alone: int = 0


STAGES: tuple[UnmaskStage, ...] = (
    # Small pictures first: more than three times as many faces in the same time.
    UnmaskStage(size=64, batch=32, steps=400, epochs=10, rate=2e-3, warmup=200, ema=0.998, patience=4),
    UnmaskStage(
        size=128, batch=16, steps=300, epochs=6, rate=1e-3, warmup=100, ema=0.998, seed=2, patience=4
    ),
    UnmaskStage(
        size=128,
        batch=16,
        steps=300,
        epochs=4,
        rate=3e-4,
        warmup=100,
        ema=0.998,
        seed=3,
        momentum=0.5,
        adversarial=0.03,
        alone=150,
    ),
    # What 1.0.0 was, and the comparison is, ends here. Then longer, with more patterns and darker pictures.
    UnmaskStage(size=128, batch=16, steps=400, epochs=12, rate=8e-4, warmup=200, ema=0.999, seed=4),
    UnmaskStage(
        size=128,
        batch=16,
        steps=400,
        epochs=5,
        rate=3e-4,
        warmup=100,
        ema=0.999,
        seed=5,
        # Between weights of few errors and of much detail lies what has enough of both (Wang et al. 2018,
        # "ESRGAN", sec. 3.4).
        kept=0.5,
        momentum=0.5,
        adversarial=0.15,
        alone=200,
    ),
)
COMPARED = STAGES[:3]
"""The student's network, which learns no more after this either, is compared with ours after the same."""

WEIGHTS = {"map": 1.0, "dice": 0.5, "region": 4.0, "outside": 0.2, "ssim": 0.5, "features": 0.5}
"""Of the losses, next to the stage's `adversarial`."""
MATCHED = 10.0
"""Weight of feature matching, next to what a discriminator says."""
SCALES = 3
"""Of the structural similarity: full, half and quarter size."""
LOWER = 0.4
"""The discriminator of the region sees the crop from this height on, in its sides."""
GLANCE = 256
"""Held-out faces that are scored after each epoch."""

Features = Callable[[Any], list[Any]]
"""Of RGB pictures 0..255, n x S x S x 3: feature maps of a frozen network, shallow to deep."""


def own_features(run: Path) -> Features:
    """The backbone of our attributes network as a judge of what looks like the same face.

    Args:
        run: folder of its training run.

    Raises:
        FileNotFoundError: there are no weights in that folder.
    """
    from export.models import attributes
    from export.train.attributes import load_network

    trained = load_network(run)
    shape = read_facts(run)["shape"]
    # With open size: the weights of the pooling, which knows one size only, are behind all that is looked at.
    judge = attributes.build(None, attributes.AttributesConfig(**shape))
    kept = zip(trained.weights, trained.get_weights(), strict=True)
    judge.set_weights([value for weight, value in kept if "pooled" not in weight.path])
    reducing = [layer for layer in judge.layers if getattr(layer, "strides", None) == (2, 2)]
    last = next(layer for layer in judge.layers if isinstance(layer, keras.layers.GlobalAveragePooling2D))
    inner = keras.Model(judge.input, [layer.input for layer in [*reducing[1:], last]])
    inner.trainable = False
    side = int(trained.input.shape[1] or 96)

    def look(pictures: Any) -> list[Any]:
        if pictures.shape[1] > side:
            pictures = ops.image.resize(pictures, (side, side), antialias=True)
        return list(inner(pictures, training=False))

    return look


def vgg_features() -> Features:
    """VGG19 as Keras downloads it (80 MB), which most papers on completing faces use."""
    whole = keras.applications.VGG19(weights="imagenet", include_top=False)
    names = ("block1_conv2", "block2_conv2", "block3_conv4", "block4_conv4")
    inner = keras.Model(whole.input, [whole.get_layer(name).output for name in names])
    inner.trainable = False

    def look(pictures: Any) -> list[Any]:
        return list(inner(keras.applications.vgg19.preprocess_input(pictures), training=False))

    return look


def feature_distance(a: list[Any], b: list[Any]) -> Any:
    """How different two sets of feature maps are, one number a picture.

    As in LPIPS (Zhang et al. 2018) without its learnt weights: of features of length 1, squared differences.
    """
    total: Any = 0.0
    for one, other in zip(a, b, strict=True):
        total = total + ops.mean(ops.sum(ops.square(_unit(one) - _unit(other)), axis=-1), axis=(1, 2))
    return total / len(a)


def _unit(features: Any) -> Any:
    return features / ops.sqrt(ops.sum(ops.square(features), axis=-1, keepdims=True) + 1e-6)


def dissimilarity(a: Any, b: Any) -> Any:
    """1 - structural similarity (Wang et al. 2004) at `SCALES` sizes, windows of 7 px; pictures 0..1."""
    total: Any = 0.0
    for scale in range(SCALES):
        if scale:
            a, b = ops.average_pool(a, 2), ops.average_pool(b, 2)
        mean_a, mean_b = ops.average_pool(a, 7, 1), ops.average_pool(b, 7, 1)
        var_a = ops.average_pool(a * a, 7, 1) - mean_a**2
        var_b = ops.average_pool(b * b, 7, 1) - mean_b**2
        both = ops.average_pool(a * b, 7, 1) - mean_a * mean_b
        light = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
        total = total + 1 - ops.mean(light * (2 * both + 9e-4) / (var_a + var_b + 9e-4), axis=(1, 2, 3))
    return total / SCALES


class UnmaskTrainer(Trainer):
    """The network with its losses.

    map, dice: of the map, where it is known what is hidden.
    region, outside: absolute error of the painted face, in what is hidden and in the rest.
    ssim, features: of the true picture with its hidden region painted.
    whole, part: what the two discriminators say of it; `whole_match`, `part_match`, how far what they see in
    it is from what they see in the true one (feature matching, Salimans et al. 2016; Wang et al. 2018,
    sec. 3.3), which steadies the game; and `whole_own`, `part_own`, what they learn from (hinge losses).
    Faces in real masks, whose truth nobody knows, are judged by the discriminators alone.

    Both sides of the game learn in the same step, from one loss: the network sees discriminators that stand
    still, the discriminators see pictures that stand still.

    Args:
        network: from `export.models.unmask.build`, with the teaching outputs.
        stage: what is trained.
        features: judge of likeness, or None to go without.
    """

    def __init__(self, network: keras.Model, stage: UnmaskStage, features: Features | None = None) -> None:
        game = [f"{name}{what}" for name in ("whole", "part") for what in ("", "_match", "_own")]
        game = game if stage.adversarial else []
        super().__init__(network, (*WEIGHTS, *game))
        self.stage, self.judge = stage, features
        if stage.adversarial:
            self.whole = net.discriminator()
            self.part = net.discriminator()
            self.steps = self.add_weight(shape=(), initializer="zeros", trainable=False, name="steps")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        truth, region, certain = y[..., faces.TRUTH], y[..., faces.HIDDEN], y[..., faces.CERTAIN]
        known = y[..., faces.KNOWN]
        p: dict[str, Any] = y_pred
        painted = p["painted"]
        filled = truth + region * (ops.clip(painted, 0.0, 255.0) - truth)
        of_picture = ops.mean(known, axis=(1, 2, 3))

        def over(values: Any, where: Any) -> Any:
            return ops.sum(values * where) / (ops.sum(where) + 1e-3)

        error = ops.mean(ops.abs(painted - truth), axis=-1, keepdims=True) / PIXEL_SCALE
        logits = p["logits"]
        cross = ops.relu(logits) - logits * region + ops.softplus(-ops.abs(logits))
        share = ops.sigmoid(logits)
        common = ops.sum(share * region * certain, axis=(1, 2, 3))
        either = ops.sum((share + region) * certain, axis=(1, 2, 3))
        losses = {
            "map": over(cross, certain),
            "dice": ops.mean(1 - (2 * common + 1) / (either + 1)),
            "region": over(error, region * known),
            "outside": over(error, (1 - region) * known),
            "ssim": over(dissimilarity(filled / 255, truth / 255), of_picture),
        }
        if self.judge is not None:
            distance = feature_distance(self.judge(filled), self.judge(truth))
            losses["features"] = over(distance, of_picture)
        total: Any = 0.0
        for name, loss in losses.items():
            total = total + WEIGHTS[name] * loss
        if self.stage.adversarial:
            shown = known * filled + (1 - known) * p["completed"]
            hidden = known * region + (1 - known) * p["map"]
            played, weight = self._play(shown, truth, hidden, of_picture, training)
            for name in ("whole", "part"):
                total = total + weight * (played[name] + MATCHED * played[f"{name}_match"])
                total = total + played[f"{name}_own"]
            losses |= played
        for name, loss in losses.items():
            self.parts[name].update_state(loss)
        return total

    def _play(self, shown: Any, truth: Any, hidden: Any, known: Any, training: bool) -> tuple[dict, Any]:
        """Losses of both sides, and how much the network listens."""
        if training:
            self.steps.assign_add(1.0)
        weight = self.stage.adversarial * ops.cast(self.steps > self.stage.alone, "float32")
        fake = ops.concatenate([shown / PIXEL_SCALE - 1, hidden], axis=-1)
        real = ops.concatenate([truth / PIXEL_SCALE - 1, hidden], axis=-1)
        # Of the whole face it is not said where it was completed.
        blind = np.array([1, 1, 1, 0], np.float32)
        top = int(LOWER * shown.shape[1])
        losses = {}

        def view(name: str, both: Any) -> Any:
            return both * blind if name == "whole" else both[:, top:]

        for name, judge in (("whole", self.whole), ("part", self.part)):
            frozen = [ops.stop_gradient(ops.convert_to_tensor(v)) for v in judge.trainable_variables]
            state = [ops.convert_to_tensor(v) for v in judge.non_trainable_variables]
            *seen, opinion = judge.stateless_call(frozen, state, view(name, fake), training=False)[0]
            of_fake = judge(view(name, ops.stop_gradient(fake)), training=training)[-1]
            *wanted, of_real = judge(view(name, real), training=training)
            # The discriminator of the region is asked about patches with something hidden in them.
            where = ops.ones_like(opinion)
            if name == "part":
                where = ops.max_pool(view(name, ops.stop_gradient(hidden)), 16, padding="same")
            sure = where * ops.reshape(known, (-1, 1, 1, 1))

            def over(values: Any, weights: Any) -> Any:
                return ops.sum(values * weights) / (ops.sum(weights) + 1e-3)

            losses[name] = -over(opinion, where)
            apart: Any = 0.0
            for one, other in zip(seen, wanted, strict=True):
                apart = apart + ops.mean(ops.abs(one - ops.stop_gradient(other)), axis=(1, 2, 3))
            losses[f"{name}_match"] = over(apart / len(seen), known)
            own = over(ops.relu(1 + of_fake), where) + over(ops.relu(1 - of_real), sure)
            losses[f"{name}_own"] = own
        return losses, weight


def region_psnr(found: np.ndarray, truth: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in what is hidden, dB, one number a picture.

    Args:
        found, truth: n x S x S x 3, 0..255.
        region: n x S x S, 0..255; hidden is what is hidden by more than half.
    """
    where = region > 127
    error = ((found.astype(np.float32) - truth.astype(np.float32)) ** 2).mean(axis=-1)
    mean = (error * where).sum(axis=(1, 2)) / np.maximum(where.sum(axis=(1, 2)), 1)
    return np.asarray(10 * np.log10(255**2 / np.maximum(mean, 1e-4)))


def map_iou(found: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Intersection over union of maps n x S x S, 0..1 and 0..255, at one half; one number a picture."""
    a, b = found >= 0.5, region > 127
    return np.asarray((a & b).sum(axis=(1, 2)) / np.maximum((a | b).sum(axis=(1, 2)), 1))


def predict(network: keras.Model, crops: np.ndarray, batch: int = 32) -> dict[str, np.ndarray]:
    """Outputs of a network for crops n x S x S x 3 in 0..255; the completed face rounded to uint8."""
    completed = np.empty(crops.shape, np.uint8)
    maps = np.empty(crops.shape[:-1], np.float32)
    for i in range(0, len(crops), batch):
        # Called, not `predict`: that would trace a graph for every epoch's network first.
        found = network(crops[i : i + batch].astype(np.float32), training=False)
        completed[i : i + batch] = np.rint(ops.convert_to_numpy(found["completed"]))
        maps[i : i + batch] = ops.convert_to_numpy(found["map"])[..., 0]
    return {"completed": completed, "map": maps}


def glance(network: keras.Model, held: np.ndarray) -> dict[str, float]:
    """Scores on held-out faces, n x S x S x 7 as in `Hidden.images`."""
    truth, region = held[..., faces.BARE], held[..., faces.REGION]
    found = predict(network, held[..., faces.MASKED])
    return {
        "region_psnr": round(float(region_psnr(found["completed"], truth, region).mean()), 3),
        "iou": round(float(map_iou(found["map"], region).mean()), 4),
    }


def sheet(columns: Sequence[np.ndarray], path: Path, rows: int = 12) -> None:
    """A contact sheet: one face a row, twice side by side.

    Args:
        columns: pictures of the same faces, n x S x S x 3 RGB or n x S x S (0..255) each.
        path: PNG to write.
        rows: at most so many in a column of faces.
    """

    def colour(picture: np.ndarray) -> np.ndarray:
        return picture if picture.ndim == 3 else np.dstack([picture] * 3)

    lines = [np.hstack([colour(column[i]) for column in columns]) for i in range(len(columns[0]))]
    while len(lines) % min(rows, len(lines)):
        lines.append(np.zeros_like(lines[0]))
    blocks = [np.vstack(lines[i : i + rows]) for i in range(0, len(lines), rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), np.ascontiguousarray(np.hstack(blocks)[..., ::-1])):
        raise OSError(f"cannot write {path}")


def load_network(
    run: Path,
    size: int | None = None,
    *,
    batch: int | None = None,
    folded: bool = False,
    teaching: bool = False,
) -> keras.Model:
    """The trained network of a run folder (averaged weights).

    Args and errors as in `export.train.stages.read_run`, the rest as in the model's `build`.
    """

    def build(size: int, shape: dict[str, Any]) -> keras.Model:
        kind = net.StudentConfig if "levels" in shape else net.UnmaskConfig
        return net.build(size, kind(**shape), batch=batch, teaching=teaching)

    whole = read_run(run, size, build, folded=False, name="unmask")
    if not folded:
        return whole
    shape = net.UnmaskConfig(**read_facts(run)["shape"])
    plain = net.build(whole.input.shape[1], shape, batch=batch, folded=True)
    net.fold(whole, plain)
    return plain


def train(
    packs: Path,
    run: Path,
    stages: Sequence[UnmaskStage] = STAGES,
    network: net.Config | None = None,
    *,
    features: Features | None = None,
    begin: Path | None = None,
) -> Path:
    """Trains from scratch, or goes on where the last checkpoint of the run folder stands.

    Args:
        packs: folder that `unmask_faces.prepare` wrote.
        run: folder for checkpoints, logs and a contact sheet an epoch (`sheets/`), a folder a stage.
        stages: one after the other, each starting from the averaged weights of the one before.
        network: shape of the network, ours or the student's.
        features: judge of likeness, see `own_features` and `vgg_features`; None to go without.
        begin: see `train_stages`.

    Returns:
        The file of averaged weights, for `load_network`.

    Raises:
        FileNotFoundError: if the packs are missing.
    """
    if not (packs / "dev" / "ready").exists():
        raise FileNotFoundError(f"no packed faces at {packs}: run `python -m export prepare unmask` first")
    shape = network or net.UnmaskConfig()
    dev = faces.load(packs / "dev").images
    dev = np.asarray(dev[np.linspace(0, len(dev) - 1, min(GLANCE, len(dev))).astype(int)])
    real = packs / "real"
    unknown = (
        np.asarray(faces.load(real).images[:: max(1, len(faces.load(real)) // 12)][:12])
        if real.exists()
        else None
    )

    def score(model: keras.Model, size: int) -> float:
        held = faces.plain(dev, size)
        figures = glance(model, held)
        log.info("  held out         n %-5d %s", len(held), figures)
        shown = held[:: max(1, len(held) // 12)][:12]
        if unknown is not None:
            shown = np.concatenate([shown, faces.plain(unknown, size)])
        found = predict(model, shown[..., faces.MASKED])
        number = len(list((run / "sheets").glob("*.png")))
        sheet(
            [
                shown[..., faces.MASKED],
                found["completed"],
                (found["map"] * 255).astype(np.uint8),
                shown[..., faces.BARE],
            ],
            run / "sheets" / f"{number:03}.png",
        )
        return figures["region_psnr"]

    return train_stages(
        run,
        stages,
        shape,
        build=lambda size: net.build(size or stages[-1].size, shape, teaching=True),
        trainer=lambda model, config: UnmaskTrainer(model, config, features),
        batches=lambda config, epoch: faces.UnmaskBatches(
            packs, size=config.size, batch=config.batch, steps=config.steps, seed=config.seed, epoch=epoch
        ),
        score=score,
        begin=begin,
    )

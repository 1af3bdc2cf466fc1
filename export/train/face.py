"""Training of the face detector: losses, schedule, averaged weights, checkpoints and resume."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
from keras import ops

from edge.tasks.face import cells
from export.data import scenes as scene_data
from export.data.face_batches import FaceBatches, load_crops
from export.models import face as net
from export.models.blocks import fold_normalisation
from export.train.averaging import Averaged, Trainer, build_optimizer, checkpoints, read_averaged
from export.train.stages import as_shape

log = logging.getLogger(__name__)

# A box this good gets the full score. Without the bound small faces, whose boxes are never as exact, score
# lower than large patterns on a curtain.
GOOD_IOU = 0.67
SURE_SIDE = 48.0  # pixels; from here on the teacher's landmarks count in full


@dataclass(slots=True, frozen=True)
class TrainConfig:
    """Everything a run depends on besides the data.

    Attributes:
        size: side of the training picture, pixels (the network is convolutional: it ships at another).
        batch, steps, epochs: pictures a batch, batches an epoch, epochs.
        rate: peak learning rate of AdamW, after a warm-up of `warmup` steps, then a half cosine.
        decay: weight decay.
        ema: decay a step of the averaged weights, which are the ones that ship.
        seed: of data order, augmentation and first weights.
    """

    size: int = 256
    batch: int = 32
    steps: int = 200
    epochs: int = 40
    rate: float = 2.5e-3
    warmup: int = 400
    decay: float = 0.02
    ema: float = 0.998
    seed: int = 1


def decode(raw: Any, centres: Any, strides: Any) -> Any:
    """Corner boxes (batch, n, 4: x1, y1, x2, y2, pixels) of the raw `boxes` output, for the losses."""
    middle = centres[None] + strides[None, :, None] * raw[..., :2]
    half = strides[None, :, None] * ops.exp(ops.clip(raw[..., 2:], -4.0, 6.0)) / 2
    return ops.concatenate([middle - half, middle + half], axis=-1)


def giou(a, b) -> tuple:
    """IoU and generalised IoU (Rezatofighi et al. 2019, algorithm 1) of corner boxes, elementwise."""
    inter = ops.prod(
        ops.maximum(ops.minimum(a[..., 2:], b[..., 2:]) - ops.maximum(a[..., :2], b[..., :2]), 0.0), axis=-1
    )
    hull = ops.prod(ops.maximum(a[..., 2:], b[..., 2:]) - ops.minimum(a[..., :2], b[..., :2]), axis=-1)
    union = ops.prod(a[..., 2:] - a[..., :2], axis=-1) + ops.prod(b[..., 2:] - b[..., :2], axis=-1) - inter
    iou = inter / ops.maximum(union, 1e-6)
    return iou, iou - (hull - union) / ops.maximum(hull, 1e-6)


class FaceTrainer(Trainer):
    """The network with its losses.

    Scores learn the IoU that the box reaches, up to `GOOD_IOU` (quality focal loss, Li et al. 2020, eq. 2,
    beta 2), so that a well-placed cell of a face wins the NMS; boxes learn by GIoU, landmarks by smooth L1.
    """

    def __init__(self, network: keras.Model, size: int) -> None:
        super().__init__(network, ("score_loss", "box_loss", "point_loss", "iou"))
        centres, strides = cells((size, size))
        self.centres, self.strides = ops.convert_to_tensor(centres), ops.convert_to_tensor(strides)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        state, place, points, known = y[..., 0], y[..., 1:5], y[..., 5:15], y[..., 15]
        positive = ops.cast(state > 0.5, "float32")
        count = ops.maximum(ops.sum(positive), 1.0)
        true_boxes = decode(place, self.centres, self.strides)
        iou, general = giou(decode(y_pred["boxes"], self.centres, self.strides), true_boxes)
        quality = positive * ops.stop_gradient(ops.clip(iou / GOOD_IOU, 0.0, 1.0))

        logit = ops.clip(y_pred["scores"][..., 0], -12.0, 12.0)
        probability = ops.sigmoid(logit)
        cross = ops.maximum(logit, 0.0) - logit * quality + ops.log(1 + ops.exp(-ops.abs(logit)))
        focal = ops.square(ops.abs(quality - probability)) * cross * ops.cast(state > -0.5, "float32")
        score_loss = ops.sum(focal) / count

        box_loss = ops.sum(positive * (1 - general)) / count

        # In units of the face, not the stride: what the alignment feels.
        unit = ops.exp((place[..., 2] + place[..., 3]) / 2)[..., None]
        error = ops.abs(y_pred["landmarks"] - points) / unit
        smooth = ops.where(error < 0.01, ops.square(error) / 0.02, error - 0.005)
        # The points of a face of a few pixels are the teacher's guess: they count for less.
        sure = known * positive * ops.clip(unit[..., 0] * self.strides[None] / SURE_SIDE, 0.25, 1.0)
        point_loss = ops.sum(sure * ops.mean(smooth, axis=-1)) / ops.maximum(ops.sum(sure), 1.0)

        for key, value in (
            ("score_loss", score_loss),
            ("box_loss", box_loss),
            ("point_loss", point_loss),
            ("iou", ops.sum(positive * iou) / count),
        ):
            self.parts[key].update_state(value)
        return 1.5 * score_loss + box_loss + 12.0 * point_loss


STAGES: tuple[TrainConfig, ...] = (
    TrainConfig(),
    # Larger pictures: more large faces in full, and more room around the small ones.
    TrainConfig(size=384, batch=16, steps=200, epochs=16, rate=6e-4, warmup=50, seed=2),
)


def load_network(
    run: Path, size: tuple[int, int] | None = None, *, batch: int | None = None, folded: bool = False
) -> keras.Model:
    """The trained network of a run folder (averaged weights), at any input size; `folded` as in `net.build`.

    Raises:
        FileNotFoundError: if the run has no checkpoint yet.
    """
    if not (run / "averaged.npz").exists():
        raise FileNotFoundError(f"no trained weights in {run}: run `python -m export train face` first")
    shape = as_shape(json.loads((run / "network.json").read_text()))
    network = net.build(size, net.FaceConfig(**shape), batch=batch, folded=folded)
    weights, _ = read_averaged(run / "averaged.npz")
    network.set_weights(fold_normalisation(weights) if folded else weights)
    return network


def train(
    data: Path, run: Path, stages: Sequence[TrainConfig] = STAGES, network: net.FaceConfig | None = None
) -> Path:
    """Trains from scratch, or goes on where the last checkpoint of the run folder stands.

    Args:
        data: folder with `scenes/` and `faces/`.
        run: folder for checkpoints and logs, a folder a stage; the landmarks of `prepare` lie beside it.
        stages: one after the other, each starting from the averaged weights of the one before.
        network: shape of the network.

    Returns:
        The file of averaged weights, for `load_network`.

    Raises:
        FileNotFoundError: if the data or the teacher's landmarks are missing.
    """
    landmarks = run.parent / "landmarks.json"
    if not landmarks.exists():
        raise FileNotFoundError(f"no {landmarks}: run `python -m export prepare face --teachers DIR` first")
    scenes = [s for s in scene_data.read_scenes(data / "scenes") if not s.is_dev]
    scene_data.add_landmarks(scenes, landmarks)
    shape = network or net.FaceConfig()
    before: Path | None = None
    for number, config in enumerate(stages, 1):
        folder = run / f"stage{number}"
        log.info(
            "stage %d of %d: %d epochs of %d x %d pictures at %d px",
            number,
            len(stages),
            config.epochs,
            config.steps,
            config.batch,
            config.size,
        )
        before = _train_stage(data, folder, config, shape, scenes, landmarks, before)
    if before is None:
        raise ValueError("no stage to train")
    shutil.copyfile(before, run / "averaged.npz")
    (run / "network.json").write_text(json.dumps(asdict(shape)))
    return run / "averaged.npz"


def _train_stage(
    data: Path,
    folder: Path,
    config: TrainConfig,
    shape: net.FaceConfig,
    scenes: list[scene_data.Scene],
    landmarks: Path,
    before: Path | None,
) -> Path:
    keras.utils.set_random_seed(config.seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(
        json.dumps({"train": asdict(config), "network": asdict(shape)}, indent=1)
    )
    model = FaceTrainer(net.build(None, shape), config.size)
    averaged = folder / "averaged.npz"
    callback = Averaged(model.network, config.ema, averaged, folder / "history.jsonl")
    done = callback.count // config.steps
    if done >= config.epochs:
        return averaged
    if before is not None:
        model.network.set_weights(read_averaged(before)[0])

    total = config.steps * config.epochs
    optimizer = build_optimizer(rate=config.rate, decay=config.decay, total=total, warmup=config.warmup)
    model.compile(optimizer=optimizer)
    model.build((None, config.size, config.size, 3))
    crops = load_crops(data / "faces", landmarks)
    batches = FaceBatches(
        scenes, crops, size=config.size, batch=config.batch, steps=config.steps, seed=config.seed, epoch=done
    )
    model.fit(
        batches,
        epochs=config.epochs,
        shuffle=False,  # as in stages.py
        callbacks=[
            callback,
            checkpoints(folder),
        ],
    )
    return averaged

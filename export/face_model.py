"""From a training run to shipped files: converts the face model, compares it, writes manifest and card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from edge.camera import read_image
from edge.geometry import letterbox
from edge.tasks.face import DEFAULT_NMS_IOU, STRIDES
from edge.tflite import Model, TensorSpec
from export import cards, convert, manifest, parity
from export import evaluate_face as evaluate
from export.data.scenes import read_scenes
from export.train.face import load_network

VERSION = "1.0.0"
CALIBRATION = 256
INT16X8_FROM = 0.01  # AP that int8 may lose before int16x8 is made too
LICENCE = (
    "weights: trained on data for non-commercial research (see training_data); use them for research and "
    "evaluation, and retrain on data of your own for a product. Code: Apache-2.0"
)
TRAINING_DATA = [
    "ilc and kaggle853 (face mask detection sets, boxes drawn by people; research use)",
    "maskon (MaskedFace-Net, CC BY-NC-SA 4.0)",
    "celeba_wild (CelebA in the wild, non-commercial research; boxes found by YuNet)",
    "street (masked people in the street; boxes found by a detector; research use)",
    "empty_rooms (indoor scenes without people; research use), half of them",
    "face crops of masks (research use) and fairface (CC BY 4.0), pasted into rooms",
    "face crops of utkface and celeba (both non-commercial research), pasted into rooms",
    "landmarks of all of them: predictions of YuNet (MIT)",
]


class KerasModel:
    """The Keras network behind the same interface as a `.tflite` file, so that one code scores both."""

    def __init__(self, network) -> None:
        import keras

        self._function = network
        self._ops = keras.ops
        self._names = ("scores", "boxes", "landmarks")
        self.name = "keras"
        self.inputs = (TensorSpec("image", tuple(network.inputs[0].shape), np.dtype(np.uint8), 0.0, 0),)
        self.outputs = tuple(
            TensorSpec(name, tuple(network.output[name].shape), np.dtype(np.float32), 0.0, 0)
            for name in self._names
        )

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """As `edge.tflite.Model.run`."""
        result = self._function(self._ops.convert_to_tensor(pixels.astype(np.float32)), training=False)
        return [self._ops.convert_to_numpy(result[name]) for name in self._names]


def fit_pixels(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture (BGR) as the model sees it: 1 x height x width x 3 uint8 RGB."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    letterbox(image, size, pixels)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)[None]


def by_width(model: Any, outputs: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Names for the outputs of a face model by their last dimension."""
    names = {1: "scores", 4: "boxes", 10: "landmarks"}
    return {names[spec.shape[-1]]: value for spec, value in zip(model.outputs, outputs, strict=True)}


def convert_face(
    data_root: Path,
    run: Path,
    out: Path,
    size: tuple[int, int],
    *,
    teachers: Path | None = None,
    seed: int = 1,
) -> dict[str, Any]:
    """Writes every precision of the face model, its manifest entry and its card.

    Files reach `out` only after all of them passed the parity limits.

    Args:
        data_root: folder with `scenes/` and `faces/`: calibration from the training part, figures from
            the held-out part.
        run: folder of the training run.
        out: `converted_models`.
        size: (width, height) of the shipped input.
        teachers: folder of reference detectors for the card's table.

    Returns:
        The manifest entry.

    Raises:
        export.parity.ParityError: if a file is further from Keras than its limit.
    """
    network = load_network(run, size, batch=1, folded=True)
    rng = np.random.default_rng(seed)
    scenes = [s for s in read_scenes(data_root / "scenes") if not s.is_dev]
    chosen = [scenes[i] for i in rng.permutation(len(scenes))[:CALIBRATION]]
    calibration = [
        fit_pixels(read_image(s.path), size) for s in tqdm(chosen, desc="calibration", unit="picture")
    ]

    dev = evaluate.load_dev(data_root / "scenes")
    pictures = [fit_pixels(image, size) for image in dev.images]
    reference = KerasModel(network)
    expected = [
        by_width(reference, reference.run(p)) for p in tqdm(pictures, desc="Keras outputs", unit="picture")
    ]
    keras_ap = evaluate.score_detector(evaluate.ours(reference), dev, size)["AP"]

    def judge(_: str, model: Model) -> tuple[dict[str, dict[str, float]], float]:
        outputs = parity.compare(
            (want, by_width(model, model.run(p))) for want, p in zip(expected, pictures, strict=True)
        )
        return outputs, evaluate.score_detector(evaluate.ours(model), dev, size)["AP"]

    done = convert.every_precision(
        "face",
        network,
        calibration,
        judge,
        metric="AP on held-out pictures of ilc",
        keras=keras_ap,
        n=len(pictures),
        int16x8_from=INT16X8_FROM,
    )
    threshold, figure = evaluate.best_threshold(evaluate.ours(done.model("int8")), dev, size)
    convert.ship(done.contents, out, "face")
    entry = {
        "task": "face",
        "version": VERSION,
        "default": "int8",
        "default_reason": f"fastest; AP {done.value('int8'):.3f} against {done.value('float32'):.3f} "
        "in float32",
        "input": {"width": size[0], "height": size[1], "color": "RGB", "dtype": "uint8", "layout": "NHWC"},
        "outputs": [{"name": s.name, "shape": list(s.shape), "dtype": "float32"} for s in reference.outputs],
        "labels": ["face"],
        "thresholds": {
            "score": {"value": threshold, "figure": figure},
            "nms_iou": {"value": DEFAULT_NMS_IOU, "figure": "usual value, not tuned"},
        },
        "strides": list(STRIDES),
        "alignment": None,
        "licence": LICENCE,
        "training_data": TRAINING_DATA,
        "metrics": [],
        "files": done.files,
    }
    manifest.write(out, "face", entry)
    result = evaluate.evaluate(data_root, out, teachers=teachers)
    entry["metrics"] = metrics(result)
    manifest.write(out, "face", entry)
    (out / "face.md").write_text(cards.face(entry, result))
    return entry


def metrics(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures of an evaluation as manifest rows: name, value, n, data, precision."""
    where = f"held-out ilc, IoU {result['iou']}, faces >= {result['smallest_px']} px at {result['size']}"
    rows = []
    for name, scores in result["detectors"].items():
        if not name.startswith("maskedge "):
            continue
        precision = name.split()[1]
        rows.append(
            {
                "name": "AP",
                "value": scores["AP"],
                "n": scores["n_faces"],
                "data": where,
                "precision": precision,
            }
        )
        for part in evaluate.SIZES:
            rows.append(
                {
                    "name": f"AP_{part}",
                    "value": scores[f"AP_{part}"],
                    "n": scores[f"n_{part}"],
                    "data": where,
                    "precision": precision,
                }
            )
        rows.append(
            {
                "name": "false_alarms_per_picture",
                "value": scores["false_alarms_per_empty_room"],
                "n": scores["n_rooms"],
                "data": "empty_rooms held-out half",
                "precision": precision,
            }
        )
    for name, row in result.get("landmarks", {}).items():
        rows.append(
            {
                "name": "landmark_nme",
                "value": row["nme"],
                "n": row["n"],
                "data": f"{name}, bare, >= 60 px",
                "precision": "int8",
            }
        )
    return rows

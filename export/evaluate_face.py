"""Scores the face model, every precision, beside other detectors: same pictures, same scorer.

The pictures were never trained on: the held-out part of `ilc` (boxes drawn by people), the held-out
half of `empty_rooms`, and face crops of sets that training does not touch.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from edge.camera import read_image
from edge.geometry import iou_matrix, letterbox, nms
from edge.tasks.face import MAX_CANDIDATES, FaceDetector
from edge.tflite import Model, load_manifest, load_model
from export.data.scenes import MORE_VIEWS, YUNET, Scene, load_teacher, read_scenes, teacher_landmarks
from export.scoring import Detections, Score, average_precision, landmark_error

IOU = 0.4
SMALLEST = 16  # pixels at the shipped size
SIZES = {"small": (16, 32), "medium": (32, 96), "large": (96, np.inf)}
ROOM_ALARMS = 0.02  # false alarms per empty room that the default threshold may give
LOW_SCORE = 0.02  # the curve starts here
BARE_SETS = ("fairface_dev", "lfw")

Detector = Callable[[np.ndarray], Detections]


@dataclass(slots=True)
class DevData:
    """Held-out pictures in memory: scenes with pictures, and empty rooms."""

    scenes: list[Scene]
    images: list[np.ndarray]
    rooms: list[np.ndarray]


def load_dev(scenes_root: Path) -> DevData:
    """Reads the held-out part of `ilc` and of `empty_rooms`."""
    scenes = [s for s in read_scenes(scenes_root, ("ilc",)) if s.is_dev]
    rooms = [s for s in read_scenes(scenes_root, ("empty_rooms",)) if s.is_dev]
    return DevData(scenes, [read_image(s.path) for s in scenes], [read_image(s.path) for s in rooms])


def ours(model: Any) -> Detector:
    """Our detector as it runs on the device, with the threshold lowered so that the curve is whole.

    Args:
        model: an `edge.tflite.Model`, or anything with its interface.
    """
    detector = FaceDetector(model, score_threshold=LOW_SCORE)

    def run(image: np.ndarray) -> Detections:
        faces = detector.detect(image)
        return Detections(np.array([f.box for f in faces]).reshape(-1, 4), np.array([f.score for f in faces]))

    return run


def yunet(path: Path, size: int = 320) -> Detector:
    """YuNet through OpenCV, the picture letterboxed to size x size."""
    teacher = load_teacher(path, size=size, score=LOW_SCORE, nms_iou=0.3)
    pixels = np.zeros((size, size, 3), np.uint8)

    def run(image: np.ndarray) -> Detections:
        fit = letterbox(image, (size, size), pixels)
        found = teacher.detect(pixels)[1]
        rows = np.zeros((0, 15), np.float32) if found is None else found
        return Detections(rows[:, :4] / fit.scale, rows[:, 14])

    return run


def aizoo_raw(model: Model, size: int = 260) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """AIZOO's SSD: anchors, variances and class scores as its authors publish them.

    Returns:
        What gives, for a picture (BGR), the boxes of all anchors (n x 4: x, y, w, h in its pixels) and their
        scores (n x 2: face with a mask, face without).
    """
    anchors = []
    for cells, scales in zip(
        (33, 17, 9, 5, 3),
        ((0.04, 0.056), (0.08, 0.11), (0.16, 0.22), (0.32, 0.45), (0.64, 0.72)),
        strict=True,
    ):
        middle = (np.arange(cells) + 0.5) / cells
        xs, ys = np.meshgrid(middle, middle)
        sides = [(scales[0], scales[0]), (scales[1], scales[1])]
        sides += [(scales[0] * r**0.5, scales[0] / r**0.5) for r in (0.62, 0.42)]
        level = np.stack(
            [np.stack([xs, ys, np.full_like(xs, w), np.full_like(ys, h)], axis=-1) for w, h in sides], axis=2
        )
        anchors.append(level.reshape(-1, 4))
    anchor = np.concatenate(anchors)
    order = {spec.shape[-1]: i for i, spec in enumerate(model.outputs)}

    def run(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pixels = (
            cv2.cvtColor(cv2.resize(image, (size, size)), cv2.COLOR_BGR2RGB).astype(np.float32)[None] / 255
        )
        outputs = model.run(pixels)
        p = outputs[order[4]][0] * [0.1, 0.1, 0.2, 0.2]
        wh = anchor[:, 2:] * np.exp(p[:, 2:])
        boxes = np.concatenate([anchor[:, :2] + anchor[:, 2:] * p[:, :2] - wh / 2, wh], axis=1)
        return boxes * np.tile(image.shape[1::-1], 2), outputs[order[2]][0]

    return run


def aizoo(model: Model, size: int = 260) -> Detector:
    """AIZOO's SSD as a detector of faces, whatever they wear."""
    look = aizoo_raw(model, size)

    def run(image: np.ndarray) -> Detections:
        boxes, classes = look(image)
        scores = classes.max(axis=1)
        keep = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
        keep = keep[scores[keep] >= LOW_SCORE]
        best = nms(boxes[keep], scores[keep], 0.4)
        return Detections(boxes[keep][best], scores[keep][best])

    return run


def input_scales(images: Sequence[np.ndarray], size: tuple[int, int]) -> list[float]:
    """Input pixels per picture pixel when each picture is letterboxed into (width, height)."""
    return [min(size[0] / image.shape[1], size[1] / image.shape[0]) for image in images]


def score_detector(
    detector: Detector, data: DevData, size: tuple[int, int], threshold: float | None = None
) -> dict[str, Any]:
    """AP overall and by size, recall by label and false alarms at a threshold.

    Args:
        detector: to score.
        data: held-out pictures.
        size: (width, height) of the shipped input: what "16 px" is measured in, for every detector.
        threshold: for recall and false alarms; None leaves them out.
    """
    truth = [s.boxes for s in data.scenes]
    found = [detector(image) for image in data.images]
    scales = input_scales(data.images, size)
    overall = average_precision(truth, found, iou=IOU, side=(SMALLEST, np.inf), scales=scales)
    result: dict[str, Any] = {"AP": round(overall.ap, 4), "n_faces": overall.faces, "n_pictures": len(truth)}
    every = average_precision(truth, found, iou=IOU)
    result["AP_all_sizes"], result["n_all_sizes"] = round(every.ap, 4), every.faces
    for name, side in SIZES.items():
        part = average_precision(truth, found, iou=IOU, side=side, scales=scales)
        result[f"AP_{name}"], result[f"n_{name}"] = round(part.ap, 4), part.faces
    if threshold is None:
        return result
    sure = [Detections(d.boxes[d.scores >= threshold], d.scores[d.scores >= threshold]) for d in found]
    at = average_precision(truth, sure, iou=IOU, side=(SMALLEST, np.inf), scales=scales)
    result["recall_at_threshold"] = round(at.recall, 4)
    result["precision_at_threshold"] = round(float(at.precision[-1]) if len(at.precision) else 1.0, 4)
    for label in ("with_mask", "without_mask", "with_incorrect_mask"):
        boxes = [s.boxes[[name == label for name in s.labels]].reshape(-1, 4) for s in data.scenes]
        part = average_precision(boxes, sure, iou=IOU, side=(SMALLEST, np.inf), scales=scales)
        result[f"recall_{label}"], result[f"n_{label}"] = round(part.recall, 4), part.faces
    alarms = [int((detector(room).scores >= threshold).sum()) for room in data.rooms]
    result["false_alarms_per_empty_room"] = round(float(np.mean(alarms)), 4) if alarms else None
    result["n_rooms"] = len(alarms)
    return result


def score_landmarks(
    detector: FaceDetector, faces_root: Path, data: DevData, teacher_path: Path, limit: int = 400
) -> dict[str, Any]:
    """Normalised mean error of the five landmarks against the teacher's, on bare faces of 60 px and more.

    Teacher and detector see the same picture; the teacher in eight enlarged views, whose mean counts. The
    faces are the bare ones of the held-out scenes, and crops of sets that training never sees, each put
    into a larger black picture so that the face is a plain detection. Errors are over the distance
    between the eyes.

    Returns:
        Per set: `nme`, its 90th percentile, number of faces, faces missed, and `one_view`: the same error
        of the teacher's own single view that came with the set, as a measure of what agreement is possible.
    """
    teacher = load_teacher(teacher_path)
    result: dict[str, Any] = {}
    scenes = [
        (image, box, None)
        for scene, image in zip(data.scenes, data.images, strict=True)
        for box, label in zip(scene.boxes, scene.labels, strict=True)
        if label == "without_mask"
    ]
    sets: dict[str, Any] = {"ilc": scenes}
    for name in BARE_SETS:
        with (faces_root / name / "landmarks.csv").open(newline="") as file:
            rows = list(csv.reader(file))[1:]
        sets[name] = [_on_black(faces_root / name, row) for row in rows[:: max(1, len(rows) // limit)]]
    for name, faces in sets.items():
        errors, single, missed = [], [], 0
        for image, box, first in tqdm(faces, desc=f"landmarks on {name}", unit="face", leave=False):
            if np.sqrt(box[2] * box[3]) < 60:
                continue
            expected = teacher_landmarks(image, box, teacher, MORE_VIEWS)
            if expected is None:
                continue
            if first is not None:
                single.append(landmark_error(first, expected))
            found = detector.detect(image)
            overlap = iou_matrix(np.array([face.box for face in found]), box)[:, 0]
            if not len(found) or overlap.max() < IOU:
                missed += 1
                continue
            errors.append(landmark_error(found[int(overlap.argmax())].landmarks, expected))
        result[name] = {
            "nme": round(float(np.mean(errors)), 4),
            "nme_median": round(float(np.median(errors)), 4),
            "nme_p90": round(float(np.percentile(errors, 90)), 4),
            "n": len(errors),
            "missed": missed,
            "one_view": round(float(np.mean(single)), 4) if single else None,
        }
    return result


def _on_black(folder: Path, row: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A face crop in the middle of a 256 x 256 black picture, with its box and landmarks there."""
    image = read_image(folder / row[0])
    values = np.array([float(v) for v in row[1:15]], np.float32)
    canvas = np.zeros((256, 256, 3), np.uint8)
    y, x = (256 - image.shape[0]) // 2, (256 - image.shape[1]) // 2
    canvas[y : y + image.shape[0], x : x + image.shape[1]] = image
    return canvas, values[:4] + [x, y, 0, 0], values[4:14].reshape(5, 2) + [x, y]


def overall_curve(detector: Detector, data: DevData, size: tuple[int, int]) -> Score:
    """The precision-recall curve that the headline AP is the area of; arguments as in `score_detector`."""
    return average_precision(
        [s.boxes for s in data.scenes],
        [detector(image) for image in data.images],
        iou=IOU,
        side=(SMALLEST, np.inf),
        scales=input_scales(data.images, size),
    )


def best_threshold(detector: Detector, data: DevData, size: tuple[int, int]) -> tuple[float, str]:
    """The score to report faces from, and how it came about.

    It is the one with the best F1 on the held-out scenes, raised where needed until no more than
    `ROOM_ALARMS` false alarms are left per held-out empty room; rounded up to two digits.
    """
    curve = overall_curve(detector, data, size)
    f1 = 2 * curve.precision * curve.recalls / np.maximum(curve.precision + curve.recalls, 1e-9)
    best = float(curve.scores[int(f1.argmax())])
    alarms = np.sort(np.concatenate([detector(room).scores for room in data.rooms] or [np.zeros(0)]))[::-1]
    allowed = int(ROOM_ALARMS * len(data.rooms))
    quiet = float(alarms[allowed]) + 1e-6 if len(alarms) > allowed else 0.0
    threshold = float(np.ceil(max(best, quiet) * 100) / 100)
    at = int((curve.scores >= threshold).sum()) - 1
    why = (
        "best F1"
        if best >= quiet
        else f"at most {ROOM_ALARMS} false alarms per empty room (best F1: {best:.2f})"
    )
    return threshold, (
        f"{why}, on held-out pictures: precision {curve.precision[at]:.3f}, recall {curve.recalls[at]:.3f}, "
        f"n {curve.faces} faces, {len(data.rooms)} rooms"
    )


def evaluate(
    data_root: Path,
    models: Path,
    *,
    teachers: Path | None = None,
    precisions: Sequence[str] = (),
    report: Path | None = None,
) -> dict[str, Any]:
    """Scores every precision of the shipped face model, and the teachers if their folder is given.

    Args:
        data_root: folder with `scenes/` and `faces/`.
        models: folder with the manifest.
        teachers: folder with `aizoo_face_mask_detection.tflite` and YuNet's ONNX file.
        precisions: to score; empty = all there are.
        report: JSON file to write; a precision-recall plot goes beside it.
    """
    entry = load_manifest(models).models["face"]
    data = load_dev(data_root / "scenes")
    size = int(entry.input["width"]), int(entry.input["height"])
    threshold = entry.threshold("score")
    result: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "iou": IOU,
        "smallest_px": SMALLEST,
        "size": f"{size[0]}x{size[1]}",
        "threshold": threshold,
        "detectors": {},
    }
    runs: list[tuple[str, Detector, float | None]] = []
    for precision in precisions or list(entry.files):
        runs.append(
            (
                f"maskedge {precision}",
                ours(load_model("face", precision=precision, models_dir=models)),
                threshold,
            )
        )
    if teachers:
        runs.append(
            ("AIZOO 260", aizoo(load_model(str(teachers / "aizoo_face_mask_detection.tflite"))), None)
        )
        runs.append(("YuNet 320", yunet(teachers / YUNET), None))
    for name, detector, limit in tqdm(runs, desc="detectors", unit="detector"):
        result["detectors"][name] = score_detector(detector, data, size, limit)
    model = load_model("face", models_dir=models)
    if teachers and (data_root / "faces").is_dir():
        result["landmarks"] = score_landmarks(
            FaceDetector(model, entry), data_root / "faces", data, teachers / YUNET
        )
    if report:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps(result, indent=1) + "\n")
        plot(runs, data, size, report.with_suffix(".png"))
    return result


def plot(
    runs: Sequence[tuple[str, Detector, float | None]], data: DevData, size: tuple[int, int], path: Path
) -> None:
    """Precision over recall of every detector, as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    for name, detector, _ in runs:
        if name.startswith("maskedge") and name.split()[1] not in ("int8", "float32"):
            continue
        curve = overall_curve(detector, data, size)
        axes.plot(curve.recalls, curve.precision, label=f"{name}: AP {curve.ap:.3f}")
    axes.set(
        xlabel="recall",
        ylabel="precision",
        xlim=(0, 1),
        ylim=(0.5, 1.01),
        title=f"held-out ilc, {curve.faces} faces >= {SMALLEST} px at {size[0]}x{size[1]}, IoU {IOU}",
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def table(result: dict[str, Any]) -> str:
    """The result as a Markdown table that a person can read."""
    columns = (
        "AP",
        "AP_small",
        "AP_medium",
        "AP_large",
        "recall_at_threshold",
        "precision_at_threshold",
        "false_alarms_per_empty_room",
    )
    lines = ["| detector | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in result["detectors"].items():
        lines.append(f"| {name} | " + " | ".join(str(row.get(c, "")) for c in columns) + " |")
    first = next(iter(result["detectors"].values()))
    counts = ", ".join(f"{k[2:]} {v}" for k, v in first.items() if k.startswith("n_"))
    lines.append(
        f"\nIoU {result['iou']}, faces >= {result['smallest_px']} px at {result['size']}; n: {counts}."
    )
    for name, row in result.get("landmarks", {}).items():
        spread = f"; one view of the teacher against its mean: {row['one_view']}" if row["one_view"] else ""
        lines.append(
            f"- Landmarks on {name}, bare faces >= 60 px: NME {row['nme']} (median {row['nme_median']}, "
            f"p90 {row['nme_p90']}), n {row['n']}, missed {row['missed']}{spread}."
        )
    return "\n".join(lines)

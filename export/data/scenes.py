"""Reader of the scene sets: pictures with boxes drawn by people (PASCAL VOC xml), with teacher landmarks.

A set is a folder with `images/NAME.jpg` and `annotations/NAME.xml`. Landmarks come from a teacher
detector run on an enlarged crop of each box, once (`prepare`), and are kept beside the run.
"""

from __future__ import annotations

import hashlib
import json
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from edge.camera import read_image
from edge.geometry import iou_matrix

TRAIN_SETS = ("ilc", "kaggle853", "maskon", "celeba_wild", "street", "empty_rooms")


@dataclass(slots=True)
class Scene:
    """One labelled picture.

    Attributes:
        path: of the picture.
        set: name of the set it comes from.
        boxes: n x 4 float32 x, y, w, h in pixels.
        labels: n names as in the file (`with_mask`, `without_mask`, `with_incorrect_mask`, `face`).
        landmarks: n x 5 x 2 float32 pixels, NaN where the teacher found nothing.
    """

    path: Path
    set: str
    boxes: np.ndarray
    labels: list[str]
    landmarks: np.ndarray = field(default_factory=lambda: np.zeros((0, 5, 2), np.float32))

    @property
    def is_dev(self) -> bool:
        """Held out, never trained on: by MD5 of the stem every 7th `ilc` picture, every 2nd empty room."""
        every = {"ilc": 7, "empty_rooms": 2}.get(self.set)
        return every is not None and int(hashlib.md5(self.path.stem.encode()).hexdigest(), 16) % every == 0


def read_scenes(root: Path, sets: Iterable[str] = TRAIN_SETS) -> list[Scene]:
    """Reads the annotations of some sets below `root`, in sorted order.

    Raises:
        FileNotFoundError: if a set is missing; the message names the folder.
    """
    scenes = []
    for name in sets:
        folder = root / name
        if not (folder / "images").is_dir():
            raise FileNotFoundError(f"no scene set at {folder}: it needs images/ and annotations/")
        for path in sorted((folder / "images").iterdir()):
            objects = ET.parse(folder / "annotations" / f"{path.stem}.xml").getroot().findall("object")
            corners = np.array(
                [
                    [float(o.findtext(f"bndbox/{k}", "0")) for k in ("xmin", "ymin", "xmax", "ymax")]
                    for o in objects
                ],
                np.float32,
            ).reshape(-1, 4)
            boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
            scenes.append(
                Scene(
                    path,
                    name,
                    boxes,
                    [o.findtext("name", "face") for o in objects],
                    np.full((len(boxes), 5, 2), np.nan, np.float32),
                )
            )
    return scenes


def teacher_landmarks(image: np.ndarray, box: np.ndarray, teacher: cv2.FaceDetectorYN) -> np.ndarray | None:
    """Five landmarks of the face in `box` by a teacher that sees it enlarged to a comfortable size.

    Args:
        image: H x W x 3 uint8, BGR.
        box: x, y, w, h in pixels.
        teacher: YuNet or a detector with its interface.

    Returns:
        5 x 2 float32 pixels, or None where no detection overlaps the box by an IoU of 0.4.
    """
    x, y, w, h = (float(v) for v in box)
    side, target = 2.0 * max(w, h), 256
    scale = target / max(side, 1.0)
    matrix = np.array(
        [[scale, 0, target / 2 - scale * (x + w / 2)], [0, scale, target / 2 - scale * (y + h / 2)]],
        np.float32,
    )
    crop = cv2.warpAffine(
        image, matrix, (target, target), flags=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    )
    teacher.setInputSize((target, target))
    found = teacher.detect(crop)[1]
    if found is None:
        return None
    boxes = found[:, :4] / scale
    boxes[:, :2] = boxes[:, :2] - matrix[:, 2] / scale
    overlap = iou_matrix(boxes, np.array([[x, y, w, h]]))[:, 0]
    best = int(overlap.argmax())
    if overlap[best] < 0.4:
        return None
    return ((found[best, 4:14].reshape(5, 2) - matrix[:, 2]) / scale).astype(np.float32)


def prepare(root: Path, teacher_path: Path, out: Path) -> Path:
    """Labels every box of every training set with the teacher's landmarks; writes one JSON file.

    Args:
        root: folder of the scene sets.
        teacher_path: YuNet ONNX file.
        out: JSON file to write: "set/stem" to a list of 5 x 2 points or null, in box order.
    """
    teacher = cv2.FaceDetectorYN.create(str(teacher_path), "", (256, 256), 0.3, 0.4)
    table: dict[str, list] = {}
    for scene in tqdm(read_scenes(root), desc="teacher landmarks", unit="picture"):
        if not len(scene.boxes):
            continue
        image = read_image(scene.path)
        points = [teacher_landmarks(image, box, teacher) for box in scene.boxes]
        table[f"{scene.set}/{scene.path.stem}"] = [None if p is None else p.round(2).tolist() for p in points]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(table))
    return out


def add_landmarks(scenes: list[Scene], table_path: Path) -> list[Scene]:
    """Fills `Scene.landmarks` from the file that `prepare` wrote."""
    table = json.loads(table_path.read_text())
    for scene in scenes:
        for i, points in enumerate(table.get(f"{scene.set}/{scene.path.stem}", [])):
            if points is not None:
                scene.landmarks[i] = points
    return scenes

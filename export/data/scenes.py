"""Reader of the scene sets: pictures with boxes drawn by people (PASCAL VOC xml), with teacher landmarks.

A set is a folder with `images/NAME.jpg` and `annotations/NAME.xml`. Landmarks come from a teacher
detector run on an enlarged crop of each box, once (`prepare`), and are kept beside the run.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from edge.camera import read_image
from edge.camera.base import check_file
from edge.geometry import iou_matrix
from edge.types import LANDMARKS_MIRRORED

TRAIN_SETS = ("ilc", "kaggle853", "maskon", "celeba_wild", "street", "empty_rooms")


def is_held_out(stem: str, every: int) -> bool:
    """Whether the MD5 of a picture's stem makes it one of each `every` that are never trained on."""
    return int(hashlib.md5(stem.encode()).hexdigest(), 16) % every == 0


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
        return every is not None and is_held_out(self.path.stem, every)


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


VIEWS = (160, 256)
"""Sides of the enlarged crop a teacher sees, pixels; each is shown as it is and mirrored."""
MORE_VIEWS = (160, 192, 256, 320)
"""The same for scoring, where time matters less than the noise of the teacher."""

YUNET = "face_detection_yunet_2026may.onnx"
CROP_SETS = ("masks", "fairface", "utkface", "celeba")
CROPS_PER_SET = 2500


def teacher_landmarks(
    image: np.ndarray, box: np.ndarray, teacher: cv2.FaceDetectorYN, sizes: Sequence[int] = VIEWS
) -> np.ndarray | None:
    """Five landmarks of the face in `box`: the mean of what a teacher says in several views of it.

    One view is not enough: YuNet's points move by a tenth of the distance between the eyes when the same
    face is shown a little larger. Two means of four views each differ by 0.04.

    Args:
        image: H x W x 3 uint8, BGR.
        box: x, y, w, h in pixels.
        teacher: YuNet or a detector with its interface.
        sizes: of the views.

    Returns:
        5 x 2 float32 pixels, or None where fewer than two views show a detection that overlaps the box by
        an IoU of 0.4.
    """
    x, y, w, h = (float(v) for v in box)
    views = []
    for size, mirrored in itertools.product(sizes, (False, True)):
        scale = size / (2.0 * max(w, h, 1.0))
        shift = np.array([size / 2 - scale * (x + w / 2), size / 2 - scale * (y + h / 2)])
        matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], np.float32)
        crop = cv2.warpAffine(
            image, matrix, (size, size), flags=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        )
        teacher.setInputSize((size, size))
        found = teacher.detect(np.ascontiguousarray(crop[:, ::-1]) if mirrored else crop)[1]
        if found is None:
            continue
        boxes, points = found[:, :4].copy(), found[:, 4:14].reshape(-1, 5, 2)
        if mirrored:
            boxes[:, 0] = size - boxes[:, 0] - boxes[:, 2]
            points = ([size - 1, 0] + points * [-1, 1])[:, LANDMARKS_MIRRORED]
        boxes[:, :2] = boxes[:, :2] - shift
        overlap = iou_matrix(boxes / scale, np.array([[x, y, w, h]]))[:, 0]
        best = int(overlap.argmax())
        if overlap[best] >= 0.4:
            views.append((points[best] - shift) / scale)
    return np.mean(views, axis=0).astype(np.float32) if len(views) > 1 else None


def load_teacher(
    path: Path, *, size: int = 256, score: float = 0.3, nms_iou: float = 0.4
) -> cv2.FaceDetectorYN:
    """YuNet; by default with the low threshold that `teacher_landmarks` wants.

    Raises:
        InputError: there is no such file.
    """
    check_file(str(path), str(path), remedy="give --teachers, the folder with the reference detectors")
    return cv2.FaceDetectorYN.create(str(path), "", (size, size), score, nms_iou)


def prepare(data: Path, teacher_path: Path, out: Path, *, seed: int = 0) -> Path:
    """Labels every box of the training sets, and some crops of each crop set, with a teacher's landmarks.

    Args:
        data: folder with `scenes/` and `faces/`.
        teacher_path: YuNet ONNX file.
        out: JSON file to write. `scenes`: "set/stem" to a list of 5 x 2 points or null, in box order;
            `crops`: "set/file" to {"box": x, y, w, h, "landmarks": 5 x 2 points}.
        seed: of the choice of crops.
    """
    teacher = load_teacher(teacher_path)
    scenes: dict[str, list] = {}
    for scene in tqdm(read_scenes(data / "scenes"), desc="landmarks of scenes", unit="picture"):
        if len(scene.boxes):
            image = read_image(scene.path)
            points = [teacher_landmarks(image, box, teacher) for box in scene.boxes]
            key = f"{scene.set}/{scene.path.stem}"
            scenes[key] = [None if p is None else p.round(2).tolist() for p in points]
    crops: dict[str, dict] = {}
    rng = np.random.default_rng(seed)
    for name in CROP_SETS:
        with (data / "faces" / name / "landmarks.csv").open(newline="") as file:
            rows = list(csv.reader(file))[1:]
        for i in tqdm(rng.permutation(len(rows))[:CROPS_PER_SET], desc=f"landmarks of {name}", unit="crop"):
            box = [float(v) for v in rows[i][1:5]]
            found = teacher_landmarks(read_image(data / "faces" / name / rows[i][0]), np.array(box), teacher)
            if found is not None:
                crops[f"{name}/{rows[i][0]}"] = {"box": box, "landmarks": found.round(2).tolist()}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"scenes": scenes, "crops": crops}))
    return out


def add_landmarks(scenes: list[Scene], table_path: Path) -> list[Scene]:
    """Fills `Scene.landmarks` from the file that `prepare` wrote."""
    table = json.loads(table_path.read_text())["scenes"]
    for scene in scenes:
        for i, points in enumerate(table.get(f"{scene.set}/{scene.path.stem}", [])):
            if points is not None:
                scene.landmarks[i] = points
    return scenes

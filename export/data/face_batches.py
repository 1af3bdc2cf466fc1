"""Training batches for the face detector: augmentation of scenes and the targets of each cell."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from edge.camera import read_image
from edge.masks import WORN, paint_mask, random_design
from edge.tasks.face import STRIDES, cells
from edge.types import LANDMARKS_MIRRORED
from export.data.batches import Batches
from export.data.scenes import Scene

# Face side (square root of the box area, input pixels) that a level learns; the overlaps let two
# levels answer for sizes between, NMS keeps the better one.
LEVEL_RANGES = {8: (0.0, 56.0), 16: (32.0, 112.0), 32: (80.0, 1e9)}
CENTRE_RADIUS = 1.5  # strides; FCOS's centre sampling (Tian et al. 2020)
MIN_SIDE = 5.0  # smaller faces are neither face nor background


@dataclass(slots=True)
class Crop:
    """A square crop round one face, for pasting: box x, y, w, h and landmarks 5 x 2 in crop pixels."""

    image: np.ndarray
    box: np.ndarray
    landmarks: np.ndarray
    bare: bool


def load_crops(root: Path, table_path: Path) -> list[Crop]:
    """Reads the face crops that `prepare` labelled.

    Args:
        root: folder of the crop sets.
        table_path: the file `prepare` wrote.
    """
    crops = []
    table = json.loads(table_path.read_text())["crops"]
    for key, entry in tqdm(table.items(), desc="reading crops", unit="picture"):
        box, landmarks = np.array(entry["box"], np.float32), np.array(entry["landmarks"], np.float32)
        crops.append(Crop(read_image(root / key), box, landmarks, "/with_mask/" not in key))
    return crops


@dataclass(slots=True)
class Sample:
    """A picture under construction: boxes n x 4 as x1, y1, x2, y2; landmarks n x 5 x 2, NaN = unknown."""

    image: np.ndarray
    boxes: np.ndarray
    landmarks: np.ndarray
    bare: np.ndarray


def targets(boxes: np.ndarray, landmarks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What each cell should say.

    Args:
        boxes: n x 4 float32 x1, y1, x2, y2 in input pixels.
        landmarks: n x 5 x 2, NaN where unknown.
        size: (width, height) of the input.

    Returns:
        cells x 16 float32: state (1 face, 0 background, -1 ignored), centre offset and log size (4),
        landmark offsets (10, strides), landmark weight.
    """
    centres, strides = cells(size)
    out = np.zeros((len(centres), 16), np.float32)
    if not len(boxes):
        return out
    wh = boxes[:, 2:] - boxes[:, :2]
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    side = np.sqrt(np.maximum(wh.prod(axis=1), 0))
    delta = np.abs(centres[:, None] - middle[None])  # cells x faces x 2
    inside = (delta <= wh[None] / 2).all(axis=2)
    near = (delta <= CENTRE_RADIUS * strides[:, None, None]).all(axis=2)
    low = np.array([LEVEL_RANGES[s][0] for s in STRIDES])[np.log2(strides / 8).astype(int)]
    high = np.array([LEVEL_RANGES[s][1] for s in STRIDES])[np.log2(strides / 8).astype(int)]
    fits = (side[None] >= low[:, None]) & (side[None] < high[:, None])
    positive = inside & near & fits
    # Every face gets at least the nearest cell of a level that fits it.
    distance = delta.max(axis=2) / strides[:, None]
    nearest = np.where(fits, distance, np.inf).argmin(axis=0)
    positive[nearest, np.arange(len(boxes))] = True

    tiny = side < MIN_SIDE
    out[(inside & tiny[None]).any(axis=1), 0] = -1
    positive[:, tiny] = False
    score = np.where(positive, distance * strides[:, None] / np.maximum(side[None], 1), np.inf)
    owner = score.argmin(axis=1)
    chosen = np.flatnonzero(positive.any(axis=1))
    own = owner[chosen]
    s = strides[chosen, None]
    out[chosen, 0] = 1
    out[chosen, 1:3] = (middle[own] - centres[chosen]) / s
    out[chosen, 3:5] = np.log(np.maximum(wh[own], 1) / s)
    points = landmarks[own]
    known = np.isfinite(points).all(axis=(1, 2))
    offsets = (points - centres[chosen, None]) / s[:, None]
    out[chosen, 5:15] = np.where(known[:, None, None], offsets, 0).reshape(-1, 10)
    out[chosen, 15] = known
    return out


class FaceBatches(Batches):
    """Endless variety from a few thousand scenes.

    Args:
        scenes: labelled scenes; all pictures are kept decoded in memory.
        crops: face crops for pasting.
        drawing: see `Batches`.
    """

    def __init__(self, scenes: list[Scene], crops: list[Crop], **drawing: int) -> None:
        super().__init__(workers=1, **drawing)
        self.scenes, self.crops = scenes, crops
        self.images = [read_image(s.path) for s in tqdm(scenes, desc="reading pictures", unit="picture")]
        self.with_faces = [i for i, s in enumerate(scenes) if len(s.boxes)]
        self.empty = [i for i, s in enumerate(scenes) if not len(s.boxes)]
        # Drawn by people on real scenes: worth more than one large painted face in the middle.
        weight = {"ilc": 3.0, "kaggle853": 2.0, "maskon": 0.4, "celeba_wild": 1.0, "street": 1.0}
        p = np.array([weight.get(scenes[i].set, 1.0) for i in self.with_faces])
        self.chance = p / p.sum()

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = self.rng(index)
        images = np.empty((self.batch, self.size, self.size, 3), np.uint8)
        rows = []
        for i in range(self.batch):
            image, boxes, landmarks = self.sample(rng)
            images[i] = image[..., ::-1]
            rows.append(targets(boxes, landmarks, (self.size, self.size)))
        return images.astype(np.float32), np.stack(rows)

    def sample(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One augmented picture: image BGR uint8, boxes n x 4 (x1, y1, x2, y2), landmarks n x 5 x 2."""
        kind = rng.random()
        if kind < 0.52:
            s = self._scene(rng, self.size, self.size)
        elif kind < 0.68:
            s = self._mosaic(rng)
        else:
            s = self._pasted(rng)
        s = self._paint(s, rng)
        image = change_colours(s.image, rng)
        return image, s.boxes, s.landmarks

    def _take(self, index: int) -> Sample:
        scene = self.scenes[index]
        boxes = scene.boxes.copy()
        boxes[:, 2:] += boxes[:, :2]
        bare = np.array([label == "without_mask" for label in scene.labels], bool)
        return Sample(self.images[index], boxes, scene.landmarks, bare)

    def _scene(self, rng: np.random.Generator, width: int, height: int) -> Sample:
        s = self._take(self.with_faces[rng.choice(len(self.with_faces), p=self.chance)])
        h, w = s.image.shape[:2]
        fit = min(width / w, height / h)
        if rng.random() < 0.55:  # the whole picture, roughly, as the device will see it
            scale = fit * rng.uniform(0.75, 1.6)
        else:  # a face of this picture becomes a side drawn log-uniformly
            box = s.boxes[rng.integers(len(s.boxes))]
            side = max(4.0, float(np.sqrt((box[2] - box[0]) * (box[3] - box[1]))))
            goal = np.exp(rng.uniform(np.log(12), np.log(1.05 * min(width, height))))
            scale = float(np.clip(goal / side, 0.7 * fit, 4.5 * fit))
        focus = s.boxes[rng.integers(len(s.boxes))]
        centre = np.array([(focus[0] + focus[2]) / 2, (focus[1] + focus[3]) / 2])
        if w * scale <= width:
            centre[0] = w / 2 + rng.uniform(-0.5, 0.5) * (width / scale - w)
        else:
            centre[0] += rng.uniform(-0.45, 0.45) * width / scale
            centre[0] = np.clip(centre[0], width / scale / 2, w - width / scale / 2)
        if h * scale <= height:
            centre[1] = h / 2 + rng.uniform(-0.5, 0.5) * (height / scale - h)
        else:
            centre[1] += rng.uniform(-0.45, 0.45) * height / scale
            centre[1] = np.clip(centre[1], height / scale / 2, h - height / scale / 2)
        angle = rng.normal(0, 6) if rng.random() < 0.5 else 0.0
        return _warp(
            s, centre, scale * rng.uniform(0.92, 1.08), scale, angle, rng.random() < 0.5, width, height
        )

    def _mosaic(self, rng: np.random.Generator) -> Sample:
        size = self.size
        cut_x, cut_y = (int(size * rng.uniform(0.35, 0.65)) for _ in range(2))
        canvas = np.zeros((size, size, 3), np.uint8)
        boxes, landmarks, bare = [], [], []
        for x0, y0, x1, y1 in (
            (0, 0, cut_x, cut_y),
            (cut_x, 0, size, cut_y),
            (0, cut_y, cut_x, size),
            (cut_x, cut_y, size, size),
        ):
            s = self._scene(rng, x1 - x0, y1 - y0)
            canvas[y0:y1, x0:x1] = s.image
            boxes.append(s.boxes + [x0, y0, x0, y0])
            landmarks.append(s.landmarks + [x0, y0])
            bare.append(s.bare)
        return Sample(
            canvas,
            np.concatenate(boxes).astype(np.float32),
            np.concatenate(landmarks).astype(np.float32),
            np.concatenate(bare),
        )

    def _pasted(self, rng: np.random.Generator) -> Sample:
        """Faces of the crop sets in an empty room or before a wall: far more people than the scenes have."""
        size = self.size
        if rng.random() < 0.75:
            room = self.images[self.empty[rng.integers(len(self.empty))]]
            h, w = room.shape[:2]
            scale = max(size / w, size / h) * rng.uniform(1.0, 1.5)
            s = _warp(
                _without_faces(room),
                np.array([w / 2, h / 2]),
                scale,
                scale,
                0.0,
                rng.random() < 0.5,
                size,
                size,
            )
        else:
            wall = rng.integers(0, 256, (rng.integers(1, 5), rng.integers(1, 5), 3)).astype(np.uint8)
            wall = np.zeros_like(wall) if rng.random() < 0.3 else wall
            s = _without_faces(cv2.resize(wall, (size, size), interpolation=cv2.INTER_CUBIC))
        if rng.random() < 0.35 or not self.crops:
            return s
        boxes: list[np.ndarray] = []
        landmarks, bare = [], []
        for _ in range(rng.integers(1, 7)):
            crop = self.crops[rng.integers(len(self.crops))]
            side = float(np.exp(rng.uniform(np.log(10), np.log(0.8 * size))))
            k = side / float(np.sqrt(crop.box[2] * crop.box[3]))
            angle = rng.normal(0, 9)
            middle = crop.box[:2] + crop.box[2:] / 2
            one = Sample(
                crop.image,
                np.array([[*crop.box[:2], *(crop.box[:2] + crop.box[2:])]], np.float32),
                crop.landmarks[None],
                np.array([crop.bare]),
            )
            span = min(size, int(side * 1.7))
            patch = _warp(one, middle, k * rng.uniform(0.94, 1.06), k, angle, rng.random() < 0.5, span, span)
            if not len(patch.boxes):
                continue
            # Up to a fifth of the face may lie outside the picture, as at the edge of a camera's view.
            reach = int(side * 0.2 + (span - side) / 2)
            x, y = (int(rng.integers(-reach, max(size - span + reach, 1 - reach))) for _ in range(2))
            box = patch.boxes[0] + [x, y, x, y]
            if any(np.all(box[:2] < b[2:]) and np.all(b[:2] < box[2:]) for b in boxes):
                continue
            alpha: np.ndarray = np.zeros((span, span), np.float32)
            half = patch.boxes[0, 2:] - patch.boxes[0, :2]
            grow = rng.uniform(0.54, 0.74)
            cv2.ellipse(
                alpha,
                (span // 2, span // 2),
                (max(1, int(half[0] * grow)), max(1, int(half[1] * grow))),
                0,
                0,
                360,
                1.0,
                -1,
            )
            alpha = cv2.GaussianBlur(alpha, (0, 0), max(0.5, side * 0.03))[..., None]
            x0, y0, x1, y1 = max(0, x), max(0, y), min(size, x + span), min(size, y + span)
            region = s.image[y0:y1, x0:x1]
            part = np.s_[y0 - y : y1 - y, x0 - x : x1 - x]
            region[...] = (region * (1 - alpha[part]) + patch.image[part] * alpha[part]).astype(np.uint8)
            points = patch.landmarks[0] + [x, y]
            seen = ((points >= 0) & (points < size)).all()
            boxes.append(np.clip(box, 0, size).astype(np.float32))
            landmarks.append(np.where(seen, points, np.nan).astype(np.float32))
            bare.append(bool(patch.bare[0]) and bool(seen))
        if boxes:
            s.boxes, s.landmarks, s.bare = np.stack(boxes), np.stack(landmarks), np.array(bare)
        return s

    def _paint(self, s: Sample, rng: np.random.Generator) -> Sample:
        for i in np.flatnonzero(s.bare):
            if rng.random() < 0.4 and np.isfinite(s.landmarks[i]).all() and s.boxes[i, 2] - s.boxes[i, 0] > 8:
                worn = WORN[int(rng.choice(3, p=(0.6, 0.25, 0.15)))]
                s.image = paint_mask(
                    s.image, s.landmarks[i], worn=worn, design=random_design(rng), rng=rng
                ).image
        return s


def _without_faces(image: np.ndarray) -> Sample:
    return Sample(image, np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, bool))


def _warp(
    s: Sample,
    centre: np.ndarray,
    scale_x: float,
    scale_y: float,
    angle: float,
    mirror: bool,
    width: int,
    height: int,
) -> Sample:
    """Similarity (almost) that brings `centre` to the middle of a width x height picture."""
    c, n = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    m = np.array([[scale_x * c, -scale_y * n], [scale_x * n, scale_y * c]])
    if mirror:
        m[0] *= -1
    full = np.concatenate([m, (np.array([width / 2, height / 2]) - m @ centre)[:, None]], axis=1).astype(
        np.float32
    )
    shrink = min(scale_x, scale_y) < 0.7
    image = s.image
    if shrink:  # blur first, or a strong reduction aliases in a way that no camera does
        image = cv2.GaussianBlur(image, (0, 0), 0.45 / min(scale_x, scale_y))
    image = cv2.warpAffine(image, full, (width, height), flags=cv2.INTER_LINEAR)
    landmarks = s.landmarks @ full[:, :2].T + full[:, 2]
    if mirror:
        landmarks = landmarks[:, LANDMARKS_MIRRORED]
    corners = s.boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2) @ full[:, :2].T + full[:, 2]
    if angle:  # the upright box of a turned box is too large: keep the size, move the middle
        middle = corners.mean(axis=1)
        half = (s.boxes[:, 2:] - s.boxes[:, :2]) * [scale_x / 2, scale_y / 2]
        boxes = np.concatenate([middle - half, middle + half], axis=1)
    else:
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    clipped = np.clip(boxes, 0, [width, height, width, height])
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    seen = np.prod(clipped[:, 2:] - clipped[:, :2], axis=1) / np.maximum(area, 1e-6)
    keep = seen > 0.4
    outside = np.logical_or(landmarks < 0, landmarks > np.array([width, height]))
    landmarks = np.where(np.any(outside, axis=(1, 2), keepdims=True), np.nan, landmarks)
    return Sample(image, clipped[keep].astype(np.float32), landmarks[keep].astype(np.float32), s.bare[keep])


def change_colours(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light, contrast, colour cast, grey, blur, noise, JPEG: what cameras do to a picture."""
    if rng.random() < 0.8:
        gain = np.exp(rng.normal(0, 0.22)) * np.exp(rng.normal(0, 0.08, 3))
        offset = rng.normal(0, 14)
        gamma = np.exp(rng.normal(0, 0.2))
        ramp = 255 * (np.arange(256)[:, None] / 255) ** gamma * gain + offset
        image = cv2.LUT(image, np.clip(ramp, 0, 255).astype(np.uint8).reshape(1, 256, 3))
    if rng.random() < 0.15:
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        mix = rng.uniform(0.4, 1.0)
        image = cv2.addWeighted(image, 1 - mix, cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), mix, 0)
    if rng.random() < 0.12:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.4))
    if rng.random() < 0.1:
        grain = rng.normal(0, rng.uniform(3, 12), image.shape[:2])[..., None]
        image = np.clip(image + grain, 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 80))])[1]
        image = read_image(jpeg.tobytes())
    return image

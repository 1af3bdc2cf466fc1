"""Face recognition networks that can be asked about any picture, also of faces that nobody has.

Embeddings that come with the data tell of 47,000 faces, which a network soon knows better than new ones. A
teacher at hand tells of as many as are imagined: blended, composed and warped ones (function matching, Beyer
et al. 2022, "Knowledge distillation: A good teacher is patient and consistent").
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from edge.errors import ModelError
from edge.tflite import Model
from export.data.crop_sets import unit_rows

CROP = 112
DIMENSIONS = 192


class Teacher:
    """MobileFaceNet (Chen et al. 2018) as a TFLite file.

    Args:
        path: of the file; it takes float32 RGB, (x - 127.5) / 128, batch x 112 x 112 x 3.

    Raises:
        edge.errors.ModelError: the file is missing or damaged.
        ValueError: it takes or gives something else.
    """

    dimensions = DIMENSIONS

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ModelError(f"no teacher at {path}", remedy="docs/training.md says where to get one")
        self._network = Model(path, threads=1)
        taken, given = self._network.inputs[0], self._network.outputs[0]
        crop = tuple(taken.shape[1:])
        if crop != (CROP, CROP, 3) or taken.dtype != np.float32 or given.shape[-1] != DIMENSIONS:
            raise ValueError(
                f"{path} is no such teacher: it has to take float32 {CROP}x{CROP}x3 and give {DIMENSIONS} "
                "numbers; docs/training.md says where to get one"
            )
        self._shape = tuple(taken.shape)

    def embed(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """Embeddings of length 1, n x DIMENSIONS float32, of aligned faces 112 x 112 x 3 uint8 RGB."""
        out = np.empty((len(crops), DIMENSIONS), np.float32)
        batch = self._shape[0]
        for start in range(0, len(crops), batch):
            here = np.stack(crops[start : start + batch]).astype(np.float32)
            some = np.zeros(self._shape, np.float32)
            some[: len(here)] = (here - 127.5) / 128
            out[start : start + len(here)] = self._network.run(some)[0][: len(here)]
        return unit_rows(out)


class Helper:
    """A second network to be asked, as an ONNX file that takes 1 x 3 x 112 x 112, BGR, (x - 127.5) / 127.5.

    It is not taught, but helps to tell what the teacher of the data would say.

    Args:
        path: of the file.

    Raises:
        edge.errors.ModelError: the file is missing or damaged, or takes something else.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._network = cv2.dnn.readNetFromONNX(str(path))
            self.dimensions = self.embed([np.zeros((CROP, CROP, 3), np.uint8)]).shape[1]
        except cv2.error as exc:
            raise ModelError(
                f"{path} is missing or no ONNX network that takes faces",
                remedy="docs/training.md says where to get one",
            ) from exc

    def embed(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """As `Teacher.embed`."""
        out = []
        for crop in crops:
            self._network.setInput(
                cv2.dnn.blobFromImage(crop, 1 / 127.5, mean=(127.5, 127.5, 127.5), swapRB=True)
            )
            out.append(self._network.forward().reshape(-1))
        return unit_rows(np.array(out))


class Teachers:
    """All that can be asked.

    Args:
        teacher: file of a `Teacher`.
        helper: file of a `Helper`, if there is one.
    """

    def __init__(self, teacher: Path, helper: Path | None = None) -> None:
        self.networks: list[Teacher | Helper] = [Teacher(teacher)]
        if helper:
            self.networks.append(Helper(helper))
        self.dimensions = sum(network.dimensions for network in self.networks)
        """Of all answers about a face."""

    def embed(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """Answers, n x d float16: those of the teacher, then those of the helper, each of length 1."""
        return np.hstack([network.embed(crops) for network in self.networks]).astype(np.float16)


def warp(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """The face in another shape: every point moves, smoothly, by up to about `strength` of the side."""
    side = image.shape[0]
    moves = rng.normal(0, strength * side / 2, (2, 5, 5)).astype(np.float32)
    grid = np.arange(side, dtype=np.float32)
    across, down = (cv2.resize(move, (side, side), interpolation=cv2.INTER_CUBIC) for move in moves)
    return cv2.remap(
        image, grid[None] + across, grid[:, None] + down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def share_of(side: int, rng: np.random.Generator, *, composed: float = 0.5) -> float | np.ndarray:
    """How much of an imagined face one of two faces is, the other one is the rest.

    Args:
        side: of the faces, pixels.
        rng: source of all chance.
        composed: share of faces that are one on one side of a soft border, anywhere and in any direction, and
            the other one on the other side; the rest are blended as a whole.

    Returns:
        0.3..1 of the whole face, or side x side x 1 float32, 0..1.
    """
    if rng.random() >= composed:
        return rng.uniform(0.3, 1)
    angle, soft = rng.uniform(0, 2 * np.pi), rng.uniform(0.03, 0.2) * side
    at = np.arange(side, dtype=np.float32) - side / 2
    along = np.cos(angle) * at[None] + np.sin(angle) * at[:, None] + rng.uniform(-0.2, 0.2) * side
    return (1 / (1 + np.exp(-along / soft)))[..., None].astype(np.float32)


def blend(one: np.ndarray, other: np.ndarray, share: float | np.ndarray) -> np.ndarray:
    """One face of two aligned ones, side x side x 3 uint8; `share` is that of the first, see `share_of`."""
    return (one * share + other * (1 - share)).astype(np.uint8)


def reshape(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Most faces in another shape, see `warp`; the rest as they are."""
    return warp(image, rng, rng.uniform(0, 0.05)) if rng.random() < 0.7 else image

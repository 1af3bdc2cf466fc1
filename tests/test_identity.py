"""What the identity model is shown of a face, and what is made of its answers."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from edge.tasks.identity import ARCFACE, TEMPLATE, Embedder, side_of_crop, views


class Recorder:
    """A model that says another vector of each view, and how sure it is."""

    def __init__(self, *, quality_first: bool) -> None:
        self.inputs = [SimpleNamespace(shape=(1, 112, 112, 3))]
        self.shown: list[np.ndarray] = []
        self._quality_first = quality_first

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        self.shown.append(pixels.copy())
        vector = np.zeros((1, 4), np.float32)
        vector[0, len(self.shown) - 1] = 3 * len(self.shown)  # of any length
        answer = [vector, np.full((1, 1), 2.0 - len(self.shown), np.float32)]
        return answer[::-1] if self._quality_first else answer


def test_a_face_is_shown_whole_and_mirrored_from_closer():
    assert side_of_crop(112) == 126
    across = np.tile(np.arange(126, dtype=np.uint8)[None, :, None], (126, 1, 3))
    whole, mirrored = views(across, 112)
    assert whole.shape == mirrored.shape == (112, 112, 3)
    assert whole[0, 0, 0] <= 1
    assert whole[0, -1, 0] >= 124
    assert mirrored[50, :, 0].tolist() == list(range(118, 6, -1))


@pytest.mark.parametrize("quality_first", [False, True])
def test_both_views_count_alike(quality_first: bool):
    model = Recorder(quality_first=quality_first)
    embedder = Embedder(model)
    image = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    crop = embedder.crop(image, np.array(TEMPLATE) * 200 + 50)
    assert crop.shape == (126, 126, 3)
    seen = embedder.look(crop)
    assert seen.vector == pytest.approx([math.sqrt(0.5), math.sqrt(0.5), 0, 0])
    assert seen.quality == pytest.approx((1 / (1 + math.exp(-1)) + 0.5) / 2)
    for shown, view in zip(model.shown, views(crop, 112), strict=True):
        assert (shown[0] == view[..., ::-1]).all()  # RGB
    assert embedder.last_invoke_ms > 0


def test_faces_are_shown_a_little_larger_than_in_training():
    eyes = [points[1][0] - points[0][0] for points in (TEMPLATE, ARCFACE)]
    assert eyes[0] / eyes[1] == pytest.approx(1.04, abs=0.001)

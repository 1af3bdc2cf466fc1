"""Reading of labelled scenes, and the teacher's landmarks from several views."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from export.data.scenes import VIEWS, read_scenes, teacher_landmarks


class MarkTeacher:
    """Finds a white square on black and puts the points at fixed places in it, as a detector would."""

    def __init__(self, *, blind: tuple[int, ...] = ()) -> None:
        self.size, self.calls, self.blind = (0, 0), 0, blind

    def setInputSize(self, size: tuple[int, int]) -> None:
        self.size = size

    def detect(self, image: np.ndarray) -> tuple[int, np.ndarray | None]:
        assert image.shape[:2] == self.size[::-1]
        self.calls += 1
        ys, xs = np.nonzero(image[..., 1] > 127)
        if not len(xs) or self.size[0] in self.blind:
            return 1, None
        x, y, w, h = xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1
        # The red dot is on the person's left: a real detector follows what it sees.
        nose = (
            image[ys.min() : ys.max(), xs.min() : xs.max(), 2].astype(int)
            - image[..., 0][ys.min() : ys.max(), xs.min() : xs.max()]
        )
        dot = np.argwhere(nose > 100).mean(axis=0)[::-1] + [x, y]
        points = [(x + 0.3 * w, y + 0.4 * h), (x + 0.7 * w, y + 0.4 * h), tuple(dot)]
        points += [(x + 0.35 * w, y + 0.8 * h), (x + 0.65 * w, y + 0.8 * h)]
        return 1, np.array([[x, y, w, h, *np.ravel(points), 0.9]], np.float32)


@pytest.fixture
def picture() -> tuple[np.ndarray, np.ndarray]:
    image = np.zeros((200, 300, 3), np.uint8)
    cv2.rectangle(image, (100, 60), (149, 119), (255, 255, 255), -1)
    cv2.rectangle(image, (134, 88), (138, 92), (0, 200, 255), -1)
    return image, np.array([100, 60, 50, 60], np.float32)


def test_views_agree_also_the_mirrored_ones(picture):
    teacher = MarkTeacher()
    points = teacher_landmarks(*picture, teacher)
    assert teacher.calls == 2 * len(VIEWS)
    assert points is not None
    expected = [(115, 84), (135, 84), (136, 90), (117.5, 108), (132.5, 108)]
    assert points == pytest.approx(np.array(expected), abs=1.0)


def test_nothing_found_and_too_few_views(picture):
    image, box = picture
    assert teacher_landmarks(np.zeros_like(image), box, MarkTeacher()) is None
    assert teacher_landmarks(image, box, MarkTeacher(blind=VIEWS)) is None
    # Something is found, but not where the box is.
    assert teacher_landmarks(image, box + [30, 30, 0, 0], MarkTeacher()) is None


def test_scenes_are_read_in_order_with_their_boxes(tmp_path: Path):
    for name in ("b", "a"):
        (tmp_path / "ilc" / "images").mkdir(parents=True, exist_ok=True)
        (tmp_path / "ilc" / "annotations").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "ilc" / "images" / f"{name}.jpg"), np.zeros((10, 10, 3), np.uint8))
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>5</xmax><ymax>9</ymax></bndbox>"
    (tmp_path / "ilc" / "annotations" / "a.xml").write_text(
        f"<annotation><object><name>with_mask</name>{box}</object></annotation>"
    )
    (tmp_path / "ilc" / "annotations" / "b.xml").write_text("<annotation></annotation>")
    first, second = read_scenes(tmp_path, ("ilc",))
    assert (first.path.stem, second.path.stem) == ("a", "b")
    assert first.boxes.tolist() == [[1, 2, 4, 7]]
    assert first.labels == ["with_mask"]
    assert np.isnan(first.landmarks).all()
    assert second.boxes.shape == (0, 4)


def test_a_missing_set_names_its_folder(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="kaggle853"):
        read_scenes(tmp_path, ("kaggle853",))

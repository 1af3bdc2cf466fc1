"""Completing what a mask hides: one picture, and the live view."""

from __future__ import annotations

import ast
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.camera import open_source
from edge.drawing import MARK_WORDS, PURPLE, annotate, mark
from edge.errors import ModelError
from edge.geometry import align, similarity
from edge.masks import paint_mask
from edge.pipeline import Pipeline
from edge.sinks import Canvas, Sink
from edge.sinks.summary import RunReport
from edge.tasks import attributes
from edge.tasks.face import FaceDetector
from edge.tasks.unmask import TEMPLATE, Completion, Patch, Unmasker, covered, uncovered
from edge.tflite import Model, ModelEntry, ModelFile, load_manifest, load_model
from edge.types import MASK_STATES, Analysis, Face, Frame
from edge.unmasking import LiveUnmasker
from tests.test_pipeline import Clip
from tests.tiny_models import add_model, cast_model, constant_model, unmask_model

ROOT = Path(__file__).parent.parent
SIZE = 128
COLOUR = (200.0, 120.0, 40.0)  # RGB
BGR = (40, 120, 200)

REGION = np.zeros((SIZE, SIZE), np.float32)
REGION[64:112, 40:88] = 1


def unmasker(region: np.ndarray = REGION, **more: Any) -> Unmasker:
    return Unmasker(Model(unmask_model(region, COLOUR, **more), threads=1))


def texture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """A picture in which no two neighbours are alike, so that the smallest change or shift shows."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def smooth(width: int, height: int, value: int = 128) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def face(
    x: float = 200,
    y: float = 150,
    crop: float = 128,
    *,
    angle: float = 0.0,
    state: str | None = "correct",
    track: int | None = None,
) -> Face:
    """A face whose aligned crop is `crop` pixels wide in the picture, with its middle at x, y."""
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    points = (np.array(TEMPLATE) - 0.5) @ turn.T * crop + (x, y)
    side = crop / 1.68
    mask = {"state": state, "score": 0.9, "scores": dict.fromkeys(MASK_STATES, 0.25)}
    box = (x - side / 2, y - side / 2, side, side)
    return Face(box, 0.9, points.astype(np.float32), track, mask)


def where(one: Face, shape: tuple[int, ...]) -> np.ndarray:
    """H x W float: `REGION` as it lies in the picture, found by looking each pixel up in the crop."""
    points = np.asarray(one.landmarks, np.float64)
    matrix = similarity(points, np.array(TEMPLATE) * SIZE)
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    u = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]
    v = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]
    return ((u > 40) & (u < 88) & (v > 64) & (v < 112)).astype(np.float64)


# ------------------------------------------------------------------------------------------ one face


def test_the_crop_is_that_of_the_attributes_model() -> None:
    assert TEMPLATE is attributes.TEMPLATE


@pytest.mark.parametrize(
    ("state", "wanted"), [*zip((*MASK_STATES, None), (False, False, True, True, False), strict=True)]
)
def test_only_what_covers_the_mouth_is_completed(state: str | None, wanted: bool) -> None:
    image = texture(400, 300)
    one = face(state=state)
    assert covered(one) is wanted
    picture, region = unmasker().picture(image, [one])
    assert region.any() == wanted
    assert (picture != image).any() == wanted


def test_without_attributes_nothing_is_completed() -> None:
    assert not covered(Face((0, 0, 9, 9), 0.9, np.zeros((5, 2), np.float32)))


@pytest.mark.parametrize(
    ("scores", "wanted"),
    [
        ({"none": 0.1, "chin": 0.05, "nose_out": 0.4, "correct": 0.45}, True),
        ({"none": 0.45, "chin": 0.15, "nose_out": 0.0, "correct": 0.4}, False),
        ({"none": 0.5, "chin": 0.0, "nose_out": 0.25, "correct": 0.25}, False),
        ({}, False),
    ],
)
def test_a_photo_with_an_unclear_state_is_completed_if_a_mask_is_likelier_than_none(
    scores: dict[str, float], wanted: bool
) -> None:
    one = replace(face(), mask={"state": None, "score": 0.45, "scores": scores})
    assert covered(one, likely=True) is wanted
    assert not covered(one)
    assert unmasker().picture(texture(400, 300), [one])[1].any() == wanted


def test_a_state_that_is_known_is_not_doubted() -> None:
    scores = {"none": 0.0, "chin": 0.0, "nose_out": 0.5, "correct": 0.5}
    for state in ("none", "chin"):
        assert not covered(
            replace(face(), mask={"state": state, "score": 0.9, "scores": scores}), likely=True
        )


POSES = [
    face(),
    face(angle=0.5),
    face(angle=-2.0),
    face(crop=40),
    face(crop=20, angle=0.3),
    face(crop=500),
    face(x=203.3, y=149.7, crop=131.7),
]


@pytest.mark.parametrize("one", POSES)
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_the_region_lies_where_the_crop_was_cut_out(one: Face, dtype: str) -> None:
    image = smooth(400, 300)
    picture, region = unmasker(dtype=dtype).picture(image, [one])
    expected = where(one, image.shape)
    # Half a pixel of the crop, or of the picture, is what feathering and sampling may differ by.
    slack = np.ones((3, 3), np.uint8)
    grow = max(1, math.ceil(one.box[2] * 1.68 / SIZE))
    core = cv2.erode(expected, slack, iterations=grow + 1)
    around = cv2.dilate(expected, slack, iterations=grow + 1)
    assert (region[around == 0] == 0).all()
    assert (region[core > 0] > 0.99).all()
    assert region.sum() == pytest.approx(expected.sum(), rel=0.2 if one.box[2] < 20 else 0.06)
    if core.any():
        assert np.abs(picture[core > 0].astype(int) - BGR).max() <= 1


@pytest.mark.parametrize("one", POSES)
def test_a_crop_put_back_lies_exactly_where_it_was(one: Face) -> None:
    """In a picture of slow waves an error in grey values, over their slope, is one in pixels."""
    y, x = np.mgrid[:300, :400].astype(np.float64)
    points = np.asarray(one.landmarks, np.float64)
    scale = one.box[2] * 1.68 / SIZE  # pixels of the picture in one of the crop
    slope = 8 / max(scale, 1)
    phases = np.dstack([(x - 200) * slope / 100, (y - 150) * slope / 100])
    image = np.full((300, 400, 3), 128, np.uint8)
    image[..., :2] = np.rint(128 + 100 * np.sin(phases))
    crop = align(image, points, np.array(TEMPLATE), SIZE)
    out = uncovered(image, [Patch(Completion.of(crop, REGION), points)], fine=True)
    rim = math.ceil(2 * scale)
    inside = where(one, image.shape)
    inside[300 - rim :] = 0  # beyond the picture the crop is black
    inside = (cv2.erode(inside, np.ones((3, 3), np.uint8), iterations=2) if scale > 0.3 else inside) > 0
    error = (out.astype(float) - image)[inside][:, :2]
    slopes = slope * np.cos(phases)[inside]
    shift = (error * slopes).sum(axis=0) / (slopes * slopes).sum(axis=0)
    assert np.abs(shift).max() < 0.12 * max(scale, 1)


def test_a_small_face_does_not_flicker() -> None:
    """Of the finest pattern only its mean is left, whatever the face's place between two pixels."""
    checks = np.where(np.indices((SIZE, SIZE)).sum(0) % 2, 255, 0).astype(np.uint8)
    completion = Completion.of(np.dstack([checks] * 3), REGION)
    for shift in (0.0, 0.3, 0.6):
        one = face(200 + shift, 150, 30)
        out = uncovered(smooth(400, 300), [Patch(completion, one.landmarks)])
        inside = cv2.erode(where(one, out.shape), np.ones((3, 3), np.uint8)) > 0
        assert np.abs(out[inside].astype(int) - 128).max() <= 3


def test_the_model_sees_rgb_and_what_it_copies_comes_back_as_it_was() -> None:
    image = smooth(400, 300)
    image[:] = (10, 120, 240)
    completion = unmasker().look(image, face().landmarks)
    assert (completion.pixels[10:50, 20:100] == (10, 120, 240)).all()


@pytest.mark.parametrize("one", POSES)
def test_what_is_not_replaced_is_exactly_the_picture(one: Face) -> None:
    image = texture(400, 300)
    before = image.copy()
    picture, region = unmasker().picture(image, [one])
    assert region.shape == (300, 400)
    assert (region.dtype, region.min(), region.max() <= 1) == (np.float32, 0, True)
    assert (picture[region == 0] == image[region == 0]).all()
    assert (picture[region > 0.99] != image[region > 0.99]).any()
    assert (image == before).all()
    assert picture is not image


def test_every_value_of_a_pixel_survives_beside_the_region() -> None:
    image = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 200, axis=0).repeat(3, axis=2)
    picture, region = unmasker().picture(image, [face(128, 100, 120)])
    changed = (picture != image).any(axis=2)
    assert region.any()
    assert not changed[region == 0].any()


def test_the_rim_is_soft_over_about_a_pixel_of_the_crop() -> None:
    one = face(crop=1024, x=500, y=500)
    _, region = unmasker().picture(smooth(1000, 1000), [one])
    row = region[500 + (88 - 64) * 8]
    assert 4 <= ((row > 0.02) & (row < 0.98)).sum() / 2 <= 20  # left and right
    steps = np.abs(np.diff(row))
    assert steps.max() < 0.25  # no edge that would be seen


def test_a_faint_map_leaves_the_picture_as_it_is() -> None:
    image = texture(400, 300)
    picture, region = unmasker(REGION * 0.015).picture(image, [face()])
    assert not region.any()
    assert (picture == image).all()


@pytest.mark.parametrize("hidden", [0.25, 0.5, 0.75])
def test_where_a_mask_hides_a_part_of_a_pixel_the_model_alone_fades(hidden: float) -> None:
    image = smooth(400, 300)
    picture, region = unmasker(REGION * hidden).picture(image, [face()])
    assert region.max() == pytest.approx(hidden, abs=1e-3)
    core = region > hidden - 0.01
    assert np.abs(picture[core] - (128 + hidden * (np.array(BGR) - 128))).max() <= 1


def test_what_reaches_beyond_the_crop_ends_softly_at_its_border() -> None:
    picture, region = unmasker(np.ones((SIZE, SIZE), np.float32)).picture(smooth(400, 300), [face()])
    assert region[150, 200] == 1
    assert (picture[region == 0] == 128).all()
    whole = abs(BGR[0] - 128)
    for axis in (0, 1):
        assert np.abs(np.diff(picture[..., 0].astype(int), axis=axis)).max() < 0.35 * whole


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e9, -1e9])
def test_a_model_that_gives_nonsense_does_no_harm(value: float) -> None:
    size = 32
    answers = {
        "completed": np.full((1, size, size, 3), value, np.float32),
        "hidden": np.full((1, size, size, 1), value, np.float32),
    }
    one = Unmasker(Model(constant_model((1, size, size, 3), answers), threads=1))
    image = texture(400, 300)
    picture, region = one.picture(image, [face()])
    assert np.isfinite(region).all()
    assert (picture[region == 0] == image[region == 0]).all()


@pytest.mark.parametrize(
    "data",
    [
        cast_model((1, 32, 32, 3)),
        add_model(),
        constant_model((1, 32, 32, 3), {"a": np.zeros((1, 16, 16, 3)), "b": np.zeros((1, 32, 32, 1))}),
    ],
)
def test_another_model_is_refused(data: bytes) -> None:
    with pytest.raises(ModelError, match="no unmask model"):
        Unmasker(Model(data, threads=1))


def test_the_alignment_of_the_manifest_is_used() -> None:
    shifted = [[x + 0.25, y] for x, y in TEMPLATE]
    files = {"int8": ModelFile("a.tflite", "0" * 64, 1)}
    entry = ModelEntry("unmask", "unmask", "1", "int8", files, alignment={"template": shifted})
    model = Model(unmask_model(REGION, COLOUR), threads=1)
    image = smooth(400, 300)
    regions = [Unmasker(model, one).picture(image, [face()])[1] for one in (None, entry)]
    xs = [np.nonzero(region)[1].mean() for region in regions]
    assert xs[0] - xs[1] == pytest.approx(0.25 * 128, abs=0.5)


# ------------------------------------------------------------------------------------------ the seam


def around(image: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Mean BGR of what lies next to the region."""
    ring = cv2.dilate((region > 0).astype(np.uint8), np.ones((9, 9))) - (region > 0)
    return image[ring > 0].mean(axis=0)


@pytest.mark.parametrize("level", [80, 100, 145, 165])
def test_the_colour_follows_that_of_the_picture_around(level: int) -> None:
    """A completion of a grey face, put into a frame in which the light has changed."""
    grey = Unmasker(Model(unmask_model(REGION, (120, 120, 120)), threads=1))
    one = face()
    completion = grey.look(smooth(400, 300, 120), one.landmarks)
    later = smooth(400, 300, level)
    out = uncovered(later, [Patch(completion, one.landmarks)])
    inside = where(one, later.shape) > 0
    rim = inside & (cv2.erode(inside.astype(np.uint8), np.ones((9, 9))) == 0)
    assert np.abs(out[rim].mean(axis=0) - level).max() < 4
    assert np.abs(out[inside].mean(axis=0) - level).max() < 8


def test_the_light_on_the_face_counts_also_beside_dark_hair_and_clothes() -> None:
    """In front of black, which hardly changes with the light, and must not average the change away."""
    image = smooth(400, 300, 10)
    cv2.circle(image, (200, 150), 56, (120, 150, 200), -1)
    skin = Unmasker(Model(unmask_model(REGION, (200, 150, 120)), threads=1))
    one = face()
    completion = skin.look(image, one.landmarks)
    dim = cv2.convertScaleAbs(image, alpha=0.7)
    out = uncovered(dim, [Patch(completion, one.landmarks)])
    inside = where(one, image.shape) > 0
    assert np.abs(out[inside].astype(int) - (84, 105, 140)).max() <= 8


def test_a_model_that_changes_the_light_is_matched_too() -> None:
    image = smooth(400, 300, 150)
    dark = Unmasker(Model(unmask_model(REGION, (120, 120, 120), gain=0.8), threads=1))
    picture, region = dark.picture(image, [face()])
    assert np.abs(picture[region > 0.99].mean(axis=0) - 150).max() < 6
    assert (picture[region == 0] == 150).all()


def test_another_thing_beside_the_face_is_not_taken_for_light() -> None:
    grey = Unmasker(Model(unmask_model(REGION, (120, 120, 120)), threads=1))
    one = face()
    completion = grey.look(smooth(400, 300, 120), one.landmarks)
    out = uncovered(smooth(400, 300, 255), [Patch(completion, one.landmarks)])
    assert out[where(one, out.shape) > 0].mean() < 1.6 * 120 + 3


def test_the_black_beyond_the_picture_does_not_darken_the_face() -> None:
    grey = Unmasker(Model(unmask_model(REGION, (120, 120, 120)), threads=1))
    at = face(200, 130, 128)
    completion = grey.look(smooth(400, 300, 120), at.landmarks)
    edge = face(20, 130, 128)  # a third of the crop lies beyond the left edge
    out = uncovered(smooth(400, 300, 120), [Patch(completion, edge.landmarks)])
    inside = where(edge, out.shape) > 0
    assert np.abs(out[inside].astype(int) - 120).max() <= 2


# --------------------------------------------------------------------------------------- any picture


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 2), (17, 5), (4000, 3000), (33000, 40)])
def test_any_size(size: tuple[int, int]) -> None:
    width, height = size
    image = texture(width, height)
    crop = max(min(width, height) * 1.2, 8)
    picture, region = unmasker().picture(image, [face(width / 2, height / 2, crop)])
    assert picture.shape == image.shape
    assert region.shape == image.shape[:2]
    assert (picture[region == 0] == image[region == 0]).all()


def test_a_face_larger_than_what_opencv_counts_to() -> None:
    image = smooth(34000, 200)
    picture, region = unmasker().picture(image, [face(17000, -14900, 80000)])
    assert (region[:, :1000] == 0).all()
    assert (region[:, 3000:31000] == 1).all()
    assert (region[:, 33000:] == 0).all()
    assert (picture[region == 0] == 128).all()
    assert np.abs(picture[:, 3000:31000:500].astype(int) - BGR).max() <= 1


@pytest.mark.parametrize("at", [(0, 0), (399, 299), (200, 0), (0, 150), (-30, 150), (200, 330), (-500, -500)])
def test_a_face_at_the_edge(at: tuple[float, float]) -> None:
    image = texture(400, 300)
    one = face(*at)
    picture, region = unmasker().picture(image, [one])
    assert (picture[region == 0] == image[region == 0]).all()
    expected = where(one, image.shape)
    assert region.sum() == pytest.approx(expected.sum(), abs=0.05 * expected.sum() + 4)


@pytest.mark.parametrize("count", [0, 1, 50])
def test_many_faces(count: int) -> None:
    faces = [face(40 + 80 * (i % 10), 40 + 80 * (i // 10), 60) for i in range(count)]
    image = texture(820, 420)
    picture, region = unmasker().picture(image, faces)
    assert (picture[region == 0] == image[region == 0]).all()
    expected = sum((where(one, image.shape) for one in faces), np.zeros(image.shape[:2]))
    assert region.sum() == pytest.approx(expected.sum(), rel=0.1, abs=1)


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.full((5, 2), np.nan), np.full((5, 2), np.inf)])
def test_points_of_no_face_are_passed_over(points: np.ndarray) -> None:
    image = texture(100, 100)
    bad = Face((0, 0, 9, 9), 0.9, points.astype(np.float32), None, face().mask)
    picture, region = unmasker().picture(image, [bad])
    assert (picture == image).all()
    assert not region.any()
    completion = Completion.of(np.zeros((SIZE, SIZE, 3), np.uint8), REGION)
    assert (uncovered(image, [Patch(completion, points)]) == image).all()


# --------------------------------------------------------------------------------------- what is shown


def analysis(image: np.ndarray, *faces: Face) -> Analysis:
    return Analysis(None, 0, 0.0, image.shape[1], image.shape[0], faces)


def patched(one: Face, by: Unmasker, image: np.ndarray) -> Face:
    (done,) = LiveUnmasker(by).label(image, [one])
    return done


def is_marked(picture: np.ndarray) -> bool:
    """Whether the plate of the mark is in the lower right corner."""
    height, width = picture.shape[:2]
    return bool((picture[height - 1, width - 1] == PURPLE).all())


@pytest.mark.parametrize("size", [(640, 480), (200, 200), (1920, 1080), (100, 400), (60, 60)])
def test_the_mark_is_small_and_says_what_it_is(size: tuple[int, int]) -> None:
    picture = smooth(*size)
    marked = mark(picture.copy())
    rows, columns = np.nonzero((marked != picture).any(axis=2))
    assert is_marked(marked)
    height, width = rows.max() - rows.min() + 1, columns.max() - columns.min() + 1
    assert rows.max() == size[1] - 1
    assert columns.max() == size[0] - 1
    assert height >= 12  # capitals of 8 pixels can be read
    assert height * width < 0.03 * size[0] * size[1] or min(size) < 400
    plate = marked[rows.min() :, columns.min() :]
    ink = (plate.max(axis=2) < 60) | (plate.min(axis=2) > 200)
    assert 0.05 < ink.mean() < 0.6  # letters, in ink that stands out


@pytest.mark.parametrize("size", [(1, 1), (5, 5), (1, 300), (300, 1), (20, 20)])
def test_where_no_word_fits_there_is_a_square(size: tuple[int, int]) -> None:
    marked = mark(smooth(*size))
    assert is_marked(marked)
    assert MARK_WORDS[0] == "reconstruction"


def test_in_place() -> None:
    image, one = smooth(640, 480), face(320, 200, 200, track=1)
    done = patched(one, unmasker(), image)
    shown = annotate(image, analysis(image, done))
    assert shown.shape == image.shape
    assert (image == 128).all()
    assert np.abs(shown[235, 320].astype(int) - BGR).max() <= 1
    assert is_marked(shown)
    assert not is_marked(annotate(image, analysis(image, one)))


def test_side_by_side() -> None:
    image, one = smooth(640, 480), face(320, 200, 200, track=1)
    done = patched(one, unmasker(), image)
    shown = annotate(image, analysis(image, done), beside=True)
    assert shown.shape == (480, 1280, 3)
    left, right = shown[:, :640], shown[:, 640:]
    assert (left == annotate(image, analysis(image, one))).all()
    assert np.abs(right[235, 320].astype(int) - BGR).max() <= 1
    assert is_marked(right)
    assert not is_marked(left)
    assert (right[:100] == 128).all()  # no boxes there
    # Of the same size also where there is nothing to complete, since a video cannot change its size.
    shown = annotate(image, analysis(image, one), beside=True)
    assert shown.shape == (480, 1280, 3)
    assert (shown[:, 640:] == image).all()


def test_what_is_made_up_is_not_part_of_the_results() -> None:
    image = smooth(400, 300)
    assert patched(face(), unmasker(), image).to_json() == face().to_json()


# ---------------------------------------------------------------------------------------------- live

FPS = 25


class Gate(Unmasker):
    """An unmasker that waits for leave before each look, and remembers what it looked at."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(Model(unmask_model(REGION, COLOUR), threads=1))
        self.leave, self.entered = threading.Semaphore(0), threading.Semaphore(0)
        self.looked: list[int] = []
        self.error = error

    def look(self, image: np.ndarray, landmarks: np.ndarray) -> Completion:
        self.looked.append(int(image[0, 0, 0]))
        self.entered.release()
        assert self.leave.acquire(timeout=10)
        if self.error:
            raise self.error
        return super().look(image, landmarks)


def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.002)


def frame(number: int) -> np.ndarray:
    """A picture that bears its number in its first pixel."""
    image = smooth(400, 300, 120)
    image[0, 0] = number
    return image


def test_the_loop_does_not_wait_and_the_newest_frame_wins() -> None:
    gate = Gate()
    live = LiveUnmasker(gate, every_s=0)
    one = face(track=7)
    try:
        (first,) = live.update(frame(0), [one], 0.0, {7})
        assert first.unmasked is None  # nothing is ready yet
        assert gate.entered.acquire(timeout=10)  # it looks at frame 0, and does not come back
        begun = time.monotonic()
        for number in range(1, 20):
            live.update(frame(number), [one], number / FPS, {7})
        assert time.monotonic() - begun < 5
        assert live.replaced == 18
        gate.leave.release(2)
        until(lambda: len(gate.looked) == 2)
        assert gate.looked == [0, 19]
        until(lambda: live.update(frame(20), [one], 20 / FPS, {7})[0].unmasked is not None)
        assert live.update(frame(20), [one], 20 / FPS, {7})[0].unmasked.landmarks.shape == (5, 2)
    finally:
        gate.leave.release(1000)
        live.close()


@pytest.mark.parametrize("every_s", [0.0, 0.5])
def test_every_face_gets_its_turn(every_s: float) -> None:
    one = LiveUnmasker(unmasker(), every_s=every_s)
    faces = [face(40 + 60 * i, 150, 50, track=i) for i in range(6)]
    ids, number = set(range(6)), 0
    ready: set[int | None] = set()
    try:
        while len(ready) < 6 and number < 1000:
            number += 1
            done = one.update(frame(0), faces, number / FPS, ids)
            ready = {face.track for face in done if face.unmasked is not None}
            time.sleep(0.002)
        assert ready == ids
        assert [face.track for face in done] == list(range(6))
    finally:
        one.close()


@pytest.mark.parametrize(("every_s", "looks"), [(0.0, 20), (0.2, 4), (10.0, 1)])
def test_how_often_a_face_is_completed(every_s: float, looks: int) -> None:
    gate = Gate()
    gate.leave.release(1000)
    live = LiveUnmasker(gate, every_s=every_s)
    try:
        for number in range(20):
            before = len(live.finished_ms), len(gate.looked)
            live.update(frame(number), [face(track=1)], number / FPS, {1})
            if every_s == 0:
                until(lambda before=before: len(gate.looked) > before[1])  # type: ignore[misc]
            time.sleep(0.01)
        assert abs(len(gate.looked) - looks) <= 1
    finally:
        live.close()


def test_without_a_mask_there_is_no_work_and_no_thread() -> None:
    gate = Gate()
    live = LiveUnmasker(gate)
    faces = [face(state=state, track=1) for state in ("none", "chin", None)]
    for number, one in enumerate(faces):
        assert live.update(frame(0), [one], number / FPS, {1}) == (one,)
    assert live.update(frame(0), [], 1.0, set()) == ()
    assert gate.looked == []
    assert "unmask" not in {thread.name for thread in threading.enumerate()}
    live.close()


def test_when_the_mask_comes_off_the_face_is_shown_as_it_is() -> None:
    live = LiveUnmasker(unmasker(), wait=True)
    assert live.update(frame(0), [face(track=1)], 0.0, {1})[0].unmasked is not None
    assert live.update(frame(1), [face(track=1, state="none")], 0.04, {1})[0].unmasked is None
    assert live.update(frame(2), [face(track=1, state=None)], 0.08, {1})[0].unmasked is None


def test_what_is_old_is_not_shown() -> None:
    gate = Gate()
    gate.leave.release(1)
    live = LiveUnmasker(gate, every_s=0)
    one = face(track=1)
    try:
        until(lambda: live.update(frame(0), [one], 0.0, {1})[0].unmasked is not None)
        assert live.update(frame(1), [one], 2.0, {1})[0].unmasked is not None
        assert live.update(frame(2), [one], 4.0, {1})[0].unmasked is None
    finally:
        gate.leave.release(1000)
        live.close()


def test_tracks_that_are_gone_are_forgotten() -> None:
    live = LiveUnmasker(unmasker(), wait=True)
    for track in range(100):
        live.update(frame(0), [face(track=track)], track / FPS, {track})
    assert len(live._tracks) == 1
    assert len(live._looks) == 1


def test_an_error_reaches_the_user_once_and_the_thread_ends() -> None:
    gate = Gate(ModelError("the model broke"))
    gate.leave.release(1000)
    live = LiveUnmasker(gate, every_s=0)
    raised = []
    for number in range(200):
        try:
            live.update(frame(number), [face(track=1)], number / FPS, {1})
        except ModelError as error:
            raised.append(str(error))
        time.sleep(0.001)
    live.close()
    assert raised == ["the model broke"]
    assert len(gate.looked) == 1
    assert live._thread is not None
    assert not live._thread.is_alive()


def test_an_error_that_nobody_saw_comes_with_the_end() -> None:
    gate = Gate(ModelError("the model broke"))
    live = LiveUnmasker(gate, every_s=0)
    live.update(frame(0), [face(track=1)], 0.0, {1})
    assert gate.entered.acquire(timeout=10)
    gate.leave.release()
    with pytest.raises(ModelError, match="the model broke"):
        live.close()
    live.close()


def test_points_of_no_face_do_not_stop_the_thread() -> None:
    live = LiveUnmasker(unmasker(), every_s=0)
    bad = Face((0, 0, 9, 9), 0.9, np.zeros((5, 2), np.float32), 1, face().mask)
    worse = Face((0, 0, 9, 9), 0.9, np.full((5, 2), np.nan, np.float32), 3, face().mask)
    try:
        for number in range(50):
            live.update(frame(0), [bad, worse], number / FPS, {1, 3})
            time.sleep(0.001)
        until(lambda: live.update(frame(0), [face(track=2)], 3.0, {2})[0].unmasked is not None)
    finally:
        live.close()


def test_closing_ends_the_thread_at_once_and_for_good() -> None:
    live = LiveUnmasker(unmasker(), every_s=0)
    live.update(frame(0), [face(track=1)], 0.0, {1})
    live.close()
    live.close()
    assert live._thread is not None
    assert not live._thread.is_alive()
    live.update(frame(1), [face(track=1)], 1.0, {1})
    assert "unmask" not in {thread.name for thread in threading.enumerate()}


class Board:
    """What a pacer says of the heat."""

    level, why = 0, ""


def test_while_the_board_is_hot_it_rests_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    board = Board()
    live = LiveUnmasker(unmasker(), every_s=0, pacer=board)  # type: ignore[arg-type]
    one = face(track=1)
    caplog.set_level("INFO", "edge")
    try:
        until(lambda: live.update(frame(0), [one], 0.0, {1})[0].unmasked is not None)
        board.level, board.why = 1, "82 °C"
        for number in range(20):
            assert live.update(frame(0), [one], number / FPS, {1}) == (one,)
        assert live.finished_ms == []
        board.level = 2
        live.update(frame(0), [one], 1.0, {1})
        board.level = 0
        until(lambda: live.update(frame(0), [one], 2.0, {1})[0].unmasked is not None)
    finally:
        live.close()
    assert [one.getMessage() for one in caplog.records] == [
        "unmask rests until the board has cooled down (82 °C)",
        "unmask goes on",
    ]


def test_waiting_gives_each_frame_its_own_completion() -> None:
    live = LiveUnmasker(unmasker(), wait=True)
    for number in range(5):
        faces = [face(100, 150, 90, track=1), face(300, 150, 90, track=2, state="none")]
        a, b = live.update(frame(number), faces, number / FPS, {1, 2})
        assert a.unmasked is not None
        assert b.unmasked is None
        assert len(live.finished_ms) == 1
    assert live._thread is None
    live.close()


def test_pictures_that_stand_for_themselves_are_completed_at_once() -> None:
    live = LiveUnmasker(unmasker())
    a, b = live.label(frame(0), [face(), face(state="none")])
    assert a.unmasked is not None
    assert b.unmasked is None
    assert len(live.finished_ms) == 1


# -------------------------------------------------------------------------------------------- the loop


class Masked:
    """A detector that finds one face with a mask."""

    last_invoke_ms = 0.0

    def detect(self, image: np.ndarray) -> tuple[Face, ...]:
        return (face(32, 24, 40),)


class Keep(Sink):
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.got: list[tuple[Frame, Analysis]] = []
        self.reports: list[RunReport] = []

    def write(self, frame: Frame, analysis: Analysis) -> None:
        self.got.append((frame, analysis))

    def finish(self, report: RunReport) -> None:
        self.reports.append(report)


def test_in_the_loop_frames_stay_as_they_are_and_the_stage_is_told() -> None:
    keep = Keep()
    live = LiveUnmasker(unmasker(), wait=True)
    canvas = Canvas()
    report = Pipeline(Clip(20), Masked(), [keep], unmasker=live, canvas=canvas).run()
    assert len(keep.got) == 20
    for frame_, found in keep.got:
        assert (frame_.image == frame_.id).all()
        assert found.faces[0].unmasked is not None
        assert "unmask" in found.timing_ms
        assert "unmasked" not in found.to_json()["faces"][0]
        assert (canvas.picture(frame_, found) != frame_.image).any()
        assert (frame_.image == frame_.id).all()
    assert report.stages["unmask_invoke"].count == 20


@pytest.mark.parametrize("wait", [True, False])
def test_an_error_ends_the_loop_once_and_cleanly(wait: bool) -> None:
    gate = Gate(ModelError("the model broke"))
    gate.leave.release(1000)
    keep = Keep()
    live = LiveUnmasker(gate, every_s=0, wait=wait)
    with pytest.raises(ModelError, match="the model broke"):
        Pipeline(Clip(2000, pause=0.002), Masked(), [keep], unmasker=live).run()
    assert [report.ended for report in keep.reports] == ["error"]
    assert len(keep.got) < 2000
    assert "unmask" not in {thread.name for thread in threading.enumerate()}


def test_the_end_of_the_loop_ends_the_thread() -> None:
    live = LiveUnmasker(unmasker(), every_s=0)
    Pipeline(Clip(30, pause=0.002), Masked(), unmasker=live).run()
    assert live._thread is not None
    assert not live._thread.is_alive()


# ----------------------------------------------------------------------------------------- steadiness


def noisy(face_: Face, rng: np.random.Generator, sigma: float) -> Face:
    points = face_.landmarks + rng.normal(0, sigma, (5, 2)).astype(np.float32)
    return Face(face_.box, face_.score, points, face_.track, face_.mask)


def test_a_face_that_stands_still_trembles_less_than_its_landmarks() -> None:
    rng = np.random.default_rng(0)
    live = LiveUnmasker(unmasker(), wait=True)
    places, raw = [], []
    for number in range(200):
        one = noisy(face(track=1), rng, 1.0)
        (done,) = live.update(frame(0), [one], number / FPS, {1})
        places.append(done.unmasked.landmarks.mean(axis=0))
        raw.append(one.landmarks.mean(axis=0))
    assert np.std(places[20:]) - np.std(raw[20:]) < 0
    spread = [np.std(np.diff(np.array(some[20:]), axis=0)) for some in (places, raw)]
    assert spread[0] < 0.5 * spread[1]  # from frame to frame, where trembling is seen


@pytest.mark.parametrize("speed", [0.5, 1.0, 3.0])
def test_a_face_that_moves_is_followed(speed: float) -> None:
    """`speed` in sizes of the face a second; the lag in sizes."""
    live = LiveUnmasker(unmasker(), wait=True)
    lags = []
    for number in range(30):
        one = face(x=50 + number / FPS * speed * 76, track=1)
        (done,) = live.update(frame(0), [one], number / FPS, {1})
        lags.append(np.abs(done.unmasked.landmarks - one.landmarks).max() / one.box[2])
    assert lags[0] == 0
    assert max(lags) < 0.05
    assert max(lags[10:]) < 0.03


def test_a_face_that_jumps_is_there_at_once_after_a_pause() -> None:
    live = LiveUnmasker(unmasker(), wait=True)
    live.update(frame(0), [face(100, track=1)], 0.0, {1})
    for at in (5.0, 1.0):  # later, and a clock that jumps back
        (done,) = live.update(frame(0), [face(300, track=1)], at, {1})
        assert np.abs(done.unmasked.landmarks - face(300).landmarks).max() < 1e-3


class Flickering(Unmasker):
    """Completes with another shade each time."""

    shade = 100.0
    rng = np.random.default_rng(0)
    sigma = 8.0

    def look(self, image: np.ndarray, landmarks: np.ndarray) -> Completion:
        value = np.clip(self.shade + self.rng.normal(0, self.sigma), 0, 255)
        return Completion.of(np.full((SIZE, SIZE, 3), round(float(value)), np.uint8), REGION)


def shades(live: LiveUnmasker, count: int, begin: int = 0) -> list[float]:
    out = []
    for number in range(begin, begin + count):
        (done,) = live.update(frame(0), [face(track=1)], number / FPS, {1})
        out.append(float(done.unmasked.completion.pixels[88, 64, 0]))
    return out


def test_a_live_face_does_not_shimmer() -> None:
    by = Flickering(Model(unmask_model(REGION, COLOUR), threads=1))
    steps = np.diff(shades(LiveUnmasker(by, wait=True), 200))
    assert np.std(steps) < 0.4 * by.sigma * math.sqrt(2)


def test_another_look_is_taken_at_once() -> None:
    by = Flickering(Model(unmask_model(REGION, COLOUR), threads=1))
    by.sigma = 0.0
    live = LiveUnmasker(by, wait=True)
    shades(live, 10)
    by.shade = 140.0
    assert shades(live, 1, 10)[0] == 140


def test_a_region_that_is_gone_leaves_the_picture_be() -> None:
    class Vanishing(Unmasker):
        alpha = REGION

        def look(self, image: np.ndarray, landmarks: np.ndarray) -> Completion:
            return Completion.of(np.full((SIZE, SIZE, 3), 100, np.uint8), self.alpha)

    by = Vanishing(Model(unmask_model(REGION, COLOUR), threads=1))
    live = LiveUnmasker(by, wait=True)
    shades(live, 5)
    by.alpha = np.zeros_like(REGION)
    for number in range(5, 60):
        (done,) = live.update(frame(0), [face(track=1)], number / FPS, {1})
    assert not done.unmasked.completion.alpha.any()


# ------------------------------------------------------------------------------------------ never unlock


def test_nothing_of_unlocking_imports_it() -> None:
    script = (
        "import importlib, pkgutil, sys, edge.unlock\n"
        "for one in pkgutil.walk_packages(edge.unlock.__path__, 'edge.unlock.'):\n"
        "    importlib.import_module(one.name)\n"
        "sys.exit(str([name for name in sys.modules if 'unmask' in name]) if any('unmask' in name for name"
        " in sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_nothing_of_unlocking_names_it() -> None:
    """Not even inside a function, where an import would only show when it is called."""
    for path in (ROOT / "edge" / "unlock").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [getattr(node, key, None) for key in ("id", "attr", "arg", "module", "name")]
            assert not any("unmask" in str(name) for name in names if name), f"{path}, line {node.lineno}"  # type: ignore[attr-defined]


# ----------------------------------------------------------------------------------- the shipped model


@pytest.fixture(scope="module")
def masked() -> list[tuple[np.ndarray, np.ndarray, np.ndarray, Face]]:
    """The bare face of the built-in clip in three masks: bare picture, masked one, hidden region, face."""
    with open_source("demo") as source:
        bare = next(frame.image for frame in source.frames() if frame.id == 20)
    detector = FaceDetector(load_model("face"), load_manifest().entry("face"))
    (face,) = detector.detect(bare)
    out = []
    for seed in range(3):
        painted = paint_mask(bare, face.landmarks, worn="correct", rng=np.random.default_rng(seed))
        (found,) = detector.detect(painted.image)
        worn = {"state": "correct", "score": 1.0, "scores": {}}
        out.append((bare, painted.image, painted.region, replace(found, mask=worn)))
    return out


@pytest.mark.parametrize("precision", list(load_manifest().entry("unmask").files))
def test_the_shipped_model_finds_the_mask_and_completes_the_face(precision, masked) -> None:
    entry = load_manifest().entry("unmask")
    unmasker = Unmasker(load_model("unmask", precision=precision), entry)
    gains = []
    for bare, image, region, face in masked[: 1 if precision == "int16x8" else 3]:  # its kernels are slow
        picture, hidden = unmasker.picture(image, [face])
        known, found = region > 0.5, hidden > 0.5
        assert (known & found).sum() / (known | found).sum() > 0.75
        assert (picture[hidden == 0] == image[hidden == 0]).all()

        def error(one: np.ndarray, bare=bare, known=known) -> float:
            return float(((one.astype(float) - bare) ** 2)[known].mean())

        gains.append(10 * np.log10(error(image) / error(picture)))
    assert np.mean(gains) > 5, "nearer to the true face than the mask is, dB"

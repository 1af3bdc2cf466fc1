"""Signs of life: what a flat picture cannot do. How well they do on people is measured apart, see docs."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge.camera import open_source
from edge.errors import UsageError
from edge.geometry import align
from edge.tasks.face import FaceDetector
from edge.tasks.identity import TEMPLATE
from edge.tflite import load_manifest, load_model
from edge.unlock import liveness
from edge.unlock.liveness import Alike, Screen, Turn, View, difference, grid_peak, nose_place, reduced

# A face seen from the front: eyes, nose tip in front of them, mouth; x to the right, z to the camera.
HEAD = np.array([[-1, 0, 0], [1, 0, 0], [0, 1.1, 0.85], [-0.8, 2.1, 0.1], [0.8, 2.1, 0.1]])


def seen(degrees: float, *, flat: bool = False, scale: float = 40) -> np.ndarray:
    """Landmarks of a head turned to its left by so much, 5 x 2 pixels; `flat`: of a photo turned so."""
    turn = np.radians(degrees)
    points = HEAD.copy()
    if flat:
        points[:, 2] = 0
    x = points[:, 0] * np.cos(turn) + points[:, 2] * np.sin(turn)
    return (np.stack([x, points[:, 1]], axis=1) * scale + 200).astype(np.float32)


def view(landmarks: np.ndarray, time: float, crop: np.ndarray | None = None) -> View:
    blank = np.zeros((112, 112, 3), np.uint8)
    return View(np.zeros((8, 8, 3), np.uint8), (0, 0, 8, 8), landmarks, blank if crop is None else crop, time)


@pytest.fixture(scope="module")
def face() -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """The first frame of the built-in clip with one face large enough, and its box."""
    detector = FaceDetector(load_model("face", threads=1), load_manifest().entry("face"))
    with open_source("demo") as source:
        for frame in source.frames():
            faces = detector.detect(frame.image)
            if len(faces) == 1 and min(faces[0].box[2:]) > 120:
                return frame.image, faces[0].box
    raise AssertionError("no such frame")


def crop_of(image: np.ndarray) -> np.ndarray:
    detector = FaceDetector(load_model("face", threads=1), load_manifest().entry("face"))
    best = max(detector.detect(image), key=lambda one: one.box[2])
    return align(image, best.landmarks, np.array(TEMPLATE, np.float32), 112)


def moved_about(image: np.ndarray, seed: int, tilt: float = 0.04) -> np.ndarray:
    """A photo of the picture, held by hand: moved, tilted, lit and grainy by chance."""
    rng = np.random.default_rng(seed)
    height, width = image.shape[:2]
    corners = np.float32([[0, 0], [width, 0], [width, height], [0, height]])
    there = corners + rng.uniform(-tilt, tilt, (4, 2)).astype(np.float32) * height
    there += rng.uniform(-10, 10, 2).astype(np.float32)
    matrix = cv2.getPerspectiveTransform(corners, there.astype(np.float32))
    out = cv2.warpPerspective(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)
    lit = out.astype(np.float32) * rng.uniform(0.9, 1.1) + rng.normal(0, 2, out.shape)
    return np.clip(lit, 0, 255).astype(np.uint8)


# ------------------------------------------------------------------------------------------------ alike


def test_a_still_photo_is_too_much_alike(face: tuple) -> None:
    check = Alike()
    rng = np.random.default_rng(0)
    crop = crop_of(face[0])
    for i in range(20):
        noisy = np.clip(crop + rng.normal(0, 3, crop.shape), 0, 255).astype(np.uint8)
        check.look(view(seen(0), i * 0.1, noisy))
    assert check.state == "waiting"
    assert "photo" in check.says


def test_a_photo_moved_about_is_too_much_alike(face: tuple) -> None:
    check = Alike()
    for i in range(12):
        check.look(view(seen(0), i * 0.2, crop_of(moved_about(face[0], i))))
    assert check.state == "waiting"
    assert "photo" in check.says


def test_a_stream_that_stands_still_is_too_much_alike(face: tuple) -> None:
    check = Alike()
    crop = crop_of(face[0])
    for i in range(50):
        check.look(view(seen(0), i * 0.1, crop))
    assert check.state == "waiting"


def test_a_face_that_moves_by_itself_is_not(face: tuple) -> None:
    """Eyes that close, a mouth that opens: here by a change of the picture that no perspective makes."""
    check = Alike()
    crop = crop_of(face[0])
    moving = crop.copy()
    moving[44:58, 28:50] = crop[60:74, 28:50]
    moving[44:58, 62:84] = crop[60:74, 62:84]
    moving[86:100, 40:72] = crop[86:100, 40:72][::-1]
    for i in range(6):
        check.look(view(seen(0), i * 0.1, moving if i > 3 else crop))
    assert check.state == "passed"


def test_frames_at_one_time_are_not_compared(face: tuple) -> None:
    check = Alike()
    rng = np.random.default_rng(0)
    for i in range(9):
        check.look(view(seen(0), i * 0.02, rng.integers(0, 255, (112, 112, 3)).astype(np.uint8)))
    assert (check.state, check.says) == ("waiting", "")


def test_difference_of_the_same_and_of_unrelated_pictures(face: tuple) -> None:
    rng = np.random.default_rng(0)
    a = reduced(crop_of(face[0]))
    assert difference(a, a) < 1e-3
    assert difference(a, a * 0.7 + 20) < 0.01
    b = reduced(rng.integers(0, 255, (112, 112, 3)).astype(np.uint8))
    assert difference(a, b) > 0.5
    flat = np.full_like(a, 90)
    assert difference(flat, flat) in (0.0, 1.4)


# ----------------------------------------------------------------------------------------------- screen


def on_screen(image: np.ndarray, pitch: float, contrast: float) -> np.ndarray:
    """The picture as a camera sees it on a screen whose pixels are `pitch` of its own, askew."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = x * 0.996 - y * 0.087, x * 0.087 + y * 0.996
    grid = (1 + contrast * np.cos(2 * np.pi * x / pitch)) * (1 + contrast * np.cos(2 * np.pi * y / pitch))
    return np.clip(image * (grid / (1 + contrast))[..., None], 0, 255).astype(np.uint8)


def test_the_grid_of_a_screen_is_seen(face: tuple) -> None:
    image, box = face
    plain = grid_peak(image, box)
    assert plain is not None
    for pitch in (2.4, 3.1, 4.3):
        check = Screen()
        for seed in range(3):
            noise = np.random.default_rng(seed).normal(0, 2, image.shape)
            shown = np.clip(on_screen(image, pitch, 0.15) + noise, 0, 255).astype(np.uint8)
            assert grid_peak(shown, box) > 2 * plain
            check.look(View(shown, box, seen(0), image[:112, :112], seed * 0.1))
        assert check.state == "refused"
        assert "screen" in check.says


def test_a_face_without_a_grid_passes(face: tuple) -> None:
    image, box = face
    check = Screen()
    for seed in range(3):
        noise = np.random.default_rng(seed).normal(0, 3, image.shape)
        shown = np.clip(image + noise, 0, 255).astype(np.uint8)
        check.look(View(shown, box, seen(0), image[:112, :112], seed * 0.1))
    assert check.state == "passed"


def test_too_small_to_tell(face: tuple) -> None:
    image, _ = face
    assert grid_peak(image, (0, 0, 30, 30)) is None
    check = Screen()
    for i in range(9):
        check.look(View(image, (0, 0, 30, 30), seen(0), image[:112, :112], i * 0.1))
    assert check.state == "waiting"


# ------------------------------------------------------------------------------------------------- turn


def play(check: Turn, poses: list[float], *, flat: bool = False) -> Turn:
    """Show a head held at each pose for half a second, at 10 frames a second."""
    for i, degrees in enumerate(np.repeat(poses, 5)):
        check.look(view(seen(float(degrees), flat=flat), i * 0.1))
    return check


def test_where_the_nose_is() -> None:
    assert nose_place(seen(0)) == pytest.approx(0, abs=1e-6)
    assert nose_place(seen(30)) > 0.35
    assert nose_place(seen(-30)) < -0.35
    rng = np.random.default_rng(0)
    for _ in range(20):  # no way of holding a photo moves it
        matrix = rng.normal(0, 1, (2, 2)) + np.eye(2) * 3
        assert nose_place((seen(20) @ matrix.T + 50).astype(np.float32)) == pytest.approx(
            nose_place(seen(20)), abs=1e-3
        )
    assert nose_place(np.zeros((5, 2), np.float32)) == 0.0


def test_the_turns_asked_for_pass() -> None:
    check = Turn(chosen=["left", "right"])
    assert check.says == "look straight at the camera"
    play(check, [0])
    assert check.says == "turn your head to your left"
    play(Turn(chosen=["left", "right"]), [0])
    assert play(Turn(chosen=["left", "right"]), [0, 15, 30, 15, 0, -15, -30]).state == "passed"


def test_a_replay_with_the_wrong_turn_is_refused() -> None:
    check = play(Turn(chosen=["left", "right"]), [0, 15, 30, 15, 0, 15, 30])
    assert check.state == "refused"
    assert "not to the right" in check.says
    assert play(Turn(chosen=["right"]), [0, 15, 30]).state == "refused"


def test_a_photo_that_is_turned_shows_no_depth() -> None:
    check = play(Turn(chosen=["left"]), [0, 15, 30, 45, 30, 0, -30, -45, 0, 30], flat=True)
    assert check.state == "refused"
    assert check.says == "the head did not turn"


def test_a_turn_must_begin_straight() -> None:
    """A face that looks aside all the time has not turned."""
    check = play(Turn(chosen=["left"]), [30] * 10)
    assert (check.state, check.says) == ("waiting", "look straight at the camera")


def test_the_turns_are_by_chance() -> None:
    asked = {tuple(Turn(3).asked) for _ in range(200)}
    assert len(asked) == 8
    with pytest.raises(UsageError):
        Turn(0)


def test_a_video_of_turns_passes_by_chance_alone() -> None:
    passed = sum(play(Turn(2), [0, 30, 0, -30]).state == "passed" for _ in range(200))
    assert 20 < passed < 85  # one in four


def test_checks_by_name() -> None:
    assert [check.name for check in liveness.checks(["turn", "alike", "turn"])] == ["turn", "alike"]
    assert liveness.checks([]) == []
    with pytest.raises(UsageError, match="unknown liveness check 'smile'"):
        liveness.checks(["smile"])

"""What hides a face and is no mask: hands, scarves, collars, things before the mouth."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge.masks import Painted
from export.data.occluders import KINDS, Occluder, paint_occluder
from tests.test_masks import FRONTAL, PROFILE, TURNED, at, picture, points_of


def lower_face(face: np.ndarray) -> np.ndarray:
    """Nose tip, middle of the mouth and chin."""
    mouth = face[3:].mean(0)
    return np.stack([face[2], mouth, mouth + (0, 0.72)])


def hidden_points(painted: Painted, points: np.ndarray) -> np.ndarray:
    return np.array([at(painted, point) > 0.5 for point in points])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unit", [8, 30, 70])
@pytest.mark.parametrize("degrees", [0, -80])
@pytest.mark.parametrize("face", [FRONTAL, TURNED, PROFILE])
def test_part_of_the_lower_face_is_hidden(kind: Occluder, unit: int, degrees: int, face: np.ndarray) -> None:
    side, share = unit * 7, {"hand": 0.8, "scarf": 1.0, "object": 0.8, "collar": 0.6}[kind]
    image, centre = picture(side, side), (side / 2, side / 2)
    points, lower = (points_of(shape, unit, centre, degrees) for shape in (face, lower_face(face)))
    seen = []
    for seed in range(5):
        before = image.copy()
        painted = paint_occluder(image, points, kind=kind, rng=np.random.default_rng(seed))
        np.testing.assert_array_equal(image, before)  # the input is left alone
        assert painted.image.shape == image.shape
        assert painted.image.dtype == np.uint8
        assert painted.region.dtype == np.float32
        assert 0 <= painted.region.min() <= painted.region.max() <= 1
        seen.append(hidden_points(painted, lower).any())
    assert np.mean(seen) >= share


@pytest.mark.parametrize(("kind", "share"), [("hand", 0.75), ("scarf", 0.6), ("object", 0.75)])
def test_the_mouth_is_mostly_hidden_and_the_eyes_mostly_free(kind: Occluder, share: float) -> None:
    image, points = picture(210, 210), points_of(FRONTAL, 30, (105, 90))
    mouth, eyes = [], []
    for seed in range(60):
        painted = paint_occluder(image, points, kind=kind, rng=np.random.default_rng(seed))
        mouth.append(hidden_points(painted, points[3:].mean(0)[None])[0])
        eyes.append(hidden_points(painted, points[:2]).any())
    assert np.mean(mouth) >= share
    assert np.mean(eyes) <= 0.2


def test_without_a_kind_all_are_met() -> None:
    image, points = picture(90, 90), points_of(FRONTAL, 20, (45, 35))
    pictures = {
        paint_occluder(image, points, kind=kind, rng=np.random.default_rng(1)).image.tobytes()
        for kind in KINDS
    }
    assert len(pictures) == len(KINDS)
    sizes = [paint_occluder(image, points, rng=np.random.default_rng(s)).region.sum() for s in range(30)]
    assert np.ptp(sizes) > 20**2


def test_a_scarf_reaches_past_the_face_and_down_to_the_border() -> None:
    image, points = picture(200, 130), points_of(FRONTAL, 30, (100, 60))
    for seed in range(12):
        region = paint_occluder(image, points, kind="scarf", rng=np.random.default_rng(seed)).region
        covered = np.flatnonzero(region[-4] > 0.5)
        assert covered.size
        assert covered[0] < 100 - 30 * 1.1
        assert covered[-1] > 100 + 30 * 1.1


def test_a_hand_has_the_colour_of_the_face() -> None:
    points, hues = points_of(FRONTAL, 40, (140, 100)), []
    image = picture(280, 280)
    for seed in range(12):
        painted = paint_occluder(image, points, kind="hand", rng=np.random.default_rng(seed))
        # The fingers lie near the mouth; a sleeve does not.
        x, y = points[3:].mean(0).astype(int)
        near = painted.image[y - 30 : y + 30, x - 30 : x + 30]
        hidden = painted.region[y - 30 : y + 30, x - 30 : x + 30] > 0.95
        hues.append(np.median(near[hidden], axis=0))
    b, g, r = np.median(hues, axis=0)
    assert b < g < r
    assert r / b == pytest.approx(200 / 120, rel=0.25)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_only_what_is_painted_and_its_near_shadow_change(kind: Occluder, seed: int) -> None:
    image, points = picture(400, 400), points_of(FRONTAL, 40, (200, 150))
    painted = paint_occluder(image, points, kind=kind, rng=np.random.default_rng(seed))
    reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (41, 41))
    near = cv2.dilate((painted.region > 0).astype(np.uint8), reach)
    np.testing.assert_array_equal(painted.image[near == 0], image[near == 0])
    assert (painted.image != image)[painted.region > 0.99].mean() > 0.5
    beside = (painted.region == 0) & (near > 0)
    assert (painted.image[beside].astype(int) <= image[beside].astype(int)).all()
    ys, xs = np.nonzero(painted.region)
    assert np.hypot(xs - 200, ys - 190).max() < 40 * 6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unit", [4, 5, 6])
def test_tiny_faces_are_hidden_too(kind: Occluder, unit: int) -> None:
    image, points = picture(60, 60), points_of(FRONTAL, unit, (30, 25))
    painted = paint_occluder(image, points, kind=kind, rng=np.random.default_rng(1))
    assert painted.region.sum() > 0.3 * unit**2


@pytest.mark.parametrize(
    ("centre", "empty"),
    [
        ((0, 60), False), ((120, 60), False), ((60, 0), False), ((60, 70), False),
        ((-400, 60), True), ((60, 700), True), ((60, -300), True), ((1e7, 1e7), True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", KINDS)
def test_faces_partly_or_fully_outside_the_picture(
    centre: tuple[float, float], empty: bool, kind: Occluder
) -> None:
    image = picture(120, 90)
    points = points_of(FRONTAL, 30, centre)
    painted = paint_occluder(image, points, kind=kind, rng=np.random.default_rng(0))
    assert painted.image.shape == image.shape
    assert painted.region.shape == image.shape[:2]
    if empty:
        assert not painted.region.any()
        np.testing.assert_array_equal(painted.image, image)


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((5, 2)),
        np.full((5, 2), 30.0),
        np.full((5, 2), np.nan),
        np.array([[9.0, 9]] * 4 + [[np.inf, 9]]),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_landmarks_that_make_no_face_change_nothing(points: np.ndarray, kind: Occluder) -> None:
    image = picture(64, 64)
    painted = paint_occluder(image, points, kind=kind, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(painted.image, image)
    assert not painted.region.any()


@pytest.mark.filterwarnings("error")
def test_any_five_points_are_survived() -> None:
    rng, image = np.random.default_rng(0), picture(80, 60)
    for index in range(120):
        points = rng.uniform(-40, 120, (5, 2))
        painted = paint_occluder(image, points, kind=KINDS[index % len(KINDS)], rng=rng)
        assert painted.image.shape == image.shape
        assert np.isfinite(painted.region).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_random_state_paints_the_same_thing(kind: Occluder) -> None:
    image, points = picture(200, 200), points_of(TURNED, 45, (100, 80), 12)
    first, again, other = (
        paint_occluder(image, points, kind=kind, rng=np.random.default_rng(seed)) for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.region, again.region)
    assert (first.image != other.image).any()


@pytest.mark.parametrize("kind", KINDS)
def test_grey_pictures_stay_grey(kind: Occluder) -> None:
    image, points = picture(160, 160, grey=True), points_of(FRONTAL, 40, (80, 60))
    for seed in range(4):
        painted = paint_occluder(image, points, kind=kind, rng=np.random.default_rng(seed))
        assert int(np.ptp(painted.image.astype(int), axis=2).max()) <= 1


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="scarf"):
        paint_occluder(picture(9, 9), FRONTAL, kind="hat", rng=np.random.default_rng(0))  # type: ignore[arg-type]

"""The mask painter, and the demo clip that is made with it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.masks import KINDS, PATTERNS, WORN, Design, Painted, Worn, paint_mask, random_design
from export.data.templates import held_out_painting, load_templates, load_textures, paint_template

ROOT = Path(__file__).resolve().parent.parent
CLIP = ROOT / "edge" / "assets" / "demo.mp4"
TRUTH = ROOT / "tests" / "data" / "demo_truth.json"

# A face as the five points see it: 1 between the eyes, origin between them.
FRONTAL = np.array([(-0.5, 0.0), (0.5, 0.0), (0.0, 0.55), (-0.4, 1.0), (0.4, 1.0)])
TURNED = np.array([(-0.42, 0.0), (0.34, 0.0), (0.2, 0.55), (-0.28, 1.0), (0.36, 1.0)])  # towards larger x
PROFILE = np.array([(-0.2, 0.0), (0.2, 0.0), (0.45, 0.5), (-0.05, 1.0), (0.3, 1.0)])
HIDES = {"correct": (True, True, True), "nose_out": (False, True, True), "chin": (False, False, True)}


def points_of(face: np.ndarray, unit: float, centre: tuple[float, float], degrees: float = 0) -> np.ndarray:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return (face @ turn * unit + centre).astype(np.float32)


def picture(width: int, height: int, seed: int = 0, *, grey: bool = False) -> np.ndarray:
    """Skin-like colour with a fall of light and grain."""
    rng = np.random.default_rng(seed)
    light = np.linspace(0.7, 1.2, width)[None, :, None]
    image = np.clip(np.array((120, 150, 200)) * light + rng.normal(0, 3, (height, width, 1)), 0, 255)
    image = image.astype(np.uint8)
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR) if grey else image


def at(painted: Painted, point: np.ndarray) -> float:
    x, y = np.round(point).astype(int)
    return float(painted.region[y, x])


@pytest.mark.parametrize("worn", WORN)
@pytest.mark.parametrize("unit", [8, 30, 90])
@pytest.mark.parametrize("degrees", [0, 35, -80])
@pytest.mark.parametrize(
    ("face", "mirrored"), [(FRONTAL, False), (TURNED, False), (TURNED, True), (PROFILE, False)]
)
def test_each_state_hides_what_its_name_says(
    worn: Worn, unit: int, degrees: int, face: np.ndarray, mirrored: bool
) -> None:
    if mirrored:
        face = (face * (-1, 1))[[1, 0, 2, 4, 3]]
    side = unit * 7
    image = picture(side, side)
    below = np.array([(face[3:, 0].mean(), 1.72)])  # the chin, straight under the mouth
    for seed in range(4):
        points = points_of(face, unit, (side / 2, side / 2), degrees)
        chin = points_of(below, unit, (side / 2, side / 2), degrees)[0]
        painted = paint_mask(image, points, worn=worn, rng=np.random.default_rng(seed))
        mouth = points[3:].mean(0)
        for point, hidden in zip((points[2], mouth, chin), HIDES[worn], strict=True):
            assert (at(painted, point) > 0.5) == hidden, (seed, point)
        assert max(at(painted, points[0]), at(painted, points[1])) < 0.5, seed  # the eyes stay free


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_design_paints_its_colour(kind: str, pattern: str) -> None:
    image, points = picture(260, 260), points_of(FRONTAL, 60, (130, 90))
    design = Design(kind, pattern, (0.8, 0.3, 0.1), (0.7, 0.35, 0.1), (0.8, 0.3, 0.1), border=0)
    painted = paint_mask(image, points, worn="correct", design=design, rng=np.random.default_rng(3))
    b, g, r = (float(painted.image[..., k][painted.region > 0.95].mean()) for k in range(3))
    assert b > g > r or pattern == "print"  # a print adds colours of its own
    assert abs(painted.image.astype(int) - image).max() > 40


@pytest.mark.parametrize("seed", range(8))
def test_only_the_mask_and_its_near_shadow_change(seed: int) -> None:
    image, points = picture(400, 400), points_of(FRONTAL, 50, (200, 150))
    before = image.copy()
    painted = paint_mask(image, points, worn=WORN[seed % 3], rng=np.random.default_rng(seed))
    np.testing.assert_array_equal(image, before)  # the input is left alone
    assert painted.image.dtype == np.uint8
    assert painted.region.dtype == np.float32
    assert painted.region.min() >= 0
    assert painted.region.max() <= 1
    assert painted.region.max() > 0.99
    near = cv2.dilate(
        (painted.region > 0).astype(np.uint8), np.ones((31, 31), np.uint8)
    )  # 0.3 of the eye distance
    np.testing.assert_array_equal(painted.image[near == 0], image[near == 0])
    ys, xs = np.nonzero(painted.region)
    assert np.hypot(xs - 200, ys - 190).max() < 50 * 3.2  # nothing far from the face
    # Beside the mask there is shadow only: darker, never lighter.
    beside = (painted.region == 0) & (near > 0)
    assert (painted.image[beside].astype(int) <= image[beside].astype(int)).all()


@pytest.mark.parametrize("unit", [4, 5, 6])
def test_tiny_faces_are_masked_too(unit: int) -> None:
    image, points = picture(40, 40), points_of(FRONTAL, unit, (20, 15))
    painted = paint_mask(image, points, worn="correct", rng=np.random.default_rng(1))
    assert unit**2 < painted.region.sum() < 6 * unit**2


@pytest.mark.parametrize(
    ("centre", "empty"),
    [
        ((0, 60), False), ((120, 60), False), ((60, 0), False), ((60, 70), False),
        ((60, -25), False), ((-300, 60), True), ((60, 600), True), ((1e7, 1e7), True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("worn", WORN)
def test_faces_partly_or_fully_outside_the_picture(
    centre: tuple[float, float], empty: bool, worn: Worn
) -> None:
    image = picture(120, 90)
    painted = paint_mask(image, points_of(FRONTAL, 30, centre), worn=worn, rng=np.random.default_rng(0))
    assert painted.image.shape == image.shape
    assert painted.region.shape == image.shape[:2]
    if empty:
        assert not painted.region.any()
        np.testing.assert_array_equal(painted.image, image)


def test_the_part_of_a_mask_outside_the_picture_is_hidden_all_the_same() -> None:
    image, points = picture(120, 90), points_of(FRONTAL, 30, (0, 20))
    painted = paint_mask(image, points, worn="correct", rng=np.random.default_rng(0))
    assert painted.region[45, 1] > 0.9
    assert not painted.region[:, 80:].any()


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((5, 2)),
        np.full((5, 2), 30.0),
        np.full((5, 2), np.nan),
        np.array([[9.0, 9]] * 4 + [[np.inf, 9]]),
    ],
)
def test_landmarks_that_make_no_face_change_nothing(points: np.ndarray) -> None:
    image = picture(64, 64)
    painted = paint_mask(image, points, worn="correct", rng=np.random.default_rng(0))
    np.testing.assert_array_equal(painted.image, image)
    assert not painted.region.any()


def test_any_five_points_are_survived() -> None:
    rng, image = np.random.default_rng(0), picture(80, 60)
    for _ in range(150):
        points = rng.uniform(-40, 120, (5, 2))
        painted = paint_mask(image, points, worn=WORN[rng.integers(3)], rng=rng)
        assert painted.image.shape == image.shape
        assert np.isfinite(painted.region).all()


def test_an_unknown_state_is_refused() -> None:
    with pytest.raises(ValueError, match="nose_out"):
        paint_mask(picture(9, 9), FRONTAL, worn="hat", rng=np.random.default_rng(0))  # type: ignore[arg-type]


def test_the_same_random_state_paints_the_same_mask() -> None:
    image, points = picture(200, 200), points_of(TURNED, 45, (100, 80), 12)
    first, again, other = (
        paint_mask(image, points, worn="correct", rng=np.random.default_rng(seed)) for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.region, again.region)
    assert (first.image != other.image).any()


@pytest.mark.parametrize("grey", [True, False])
def test_grey_pictures_stay_grey(grey: bool) -> None:
    image, points = picture(160, 160, grey=grey), points_of(FRONTAL, 40, (80, 60))
    design = Design(color=(0.9, 0.3, 0.1))
    painted = paint_mask(image, points, worn="correct", design=design, rng=np.random.default_rng(2))
    spread = int(np.ptp(painted.image.astype(int), axis=2).max())
    assert spread <= 1 if grey else spread > 60


def test_masks_are_darker_in_the_dark() -> None:
    points, design = points_of(FRONTAL, 40, (80, 60)), Design(color=(0.9, 0.9, 0.9))
    means = []
    for gain in (0.2, 0.6, 1.0):
        image = (picture(160, 160) * gain).astype(np.uint8)
        painted = paint_mask(image, points, worn="correct", design=design, rng=np.random.default_rng(2))
        means.append(float(painted.image[painted.region > 0.95].mean()))
    assert means[0] < means[1] < means[2]


def test_random_designs_cover_all_cuts_and_prints() -> None:
    rng = np.random.default_rng(0)
    designs = [random_design(rng) for _ in range(400)]
    assert {design.kind for design in designs} == set(KINDS)
    assert {design.pattern for design in designs} == set(PATTERNS)
    assert all(
        0 <= value <= 1 for design in designs for value in (*design.color, *design.color2, *design.inner)
    )


def test_now_and_then_a_design_is_folded_or_hangs_on_the_neck() -> None:
    rng = np.random.default_rng(0)
    designs = [random_design(rng) for _ in range(400)]
    assert 0.03 < np.mean([design.folded for design in designs]) < 0.15
    assert 0.05 < np.mean([design.slipped for design in designs]) < 0.2


@pytest.mark.parametrize("face", [FRONTAL, TURNED])
@pytest.mark.parametrize(
    ("worn", "design", "hides"),
    [
        ("nose_out", Design(folded=True), (False, True, False)),
        ("chin", Design(slipped=True), (False, False, False)),
        ("correct", Design(folded=True, slipped=True), (True, True, True)),
    ],
)
def test_folded_and_slipped_masks_leave_the_chin_bare(
    face: np.ndarray, worn: Worn, design: Design, hides: tuple[bool, bool, bool]
) -> None:
    image, points = picture(280, 280), points_of(face, 40, (140, 110))
    chin = points_of(np.array([(face[3:, 0].mean(), 1.72)]), 40, (140, 110))[0]
    for seed in range(6):
        painted = paint_mask(image, points, worn=worn, design=design, rng=np.random.default_rng(seed))
        for point, hidden in zip((points[2], points[3:].mean(0), chin), hides, strict=True):
            assert (at(painted, point) > 0.5) == hidden, (seed, point)
        assert painted.region.sum() > 0.3 * 40**2


# Photographed masks, kept out of training.


def photograph(folder: Path, name: str, color: tuple[int, int, int], *, looks: int = 0) -> None:
    """A mask cut out of a photograph: an opaque body, and thin straps where it is seen from the side."""
    picture = np.zeros((200, 260, 4), np.uint8)
    body = np.array([(40, 30), (130, 10), (220, 30), (215, 120), (130, 190), (45, 120)], np.int32)
    if looks:
        body = np.array([(30, 40), (70, 10), (190, 40), (190, 130), (80, 190), (35, 130)], np.int32)
        if looks > 0:
            body[:, 0] = 259 - body[:, 0]
        for y in (50, 125):
            cv2.line(picture, (130, y), (255 if looks < 0 else 4, y - 15), (250, 250, 250, 255), 4)
    cv2.fillPoly(picture, [body], (*color, 255))
    assert cv2.imwrite(str(folder / f"{name}.png"), picture)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    photograph(tmp_path, "blue", (220, 120, 60))
    photograph(tmp_path, "blue_left", (220, 120, 60), looks=-1)
    photograph(tmp_path, "blue_right", (220, 120, 60), looks=1)
    photograph(tmp_path, "dark_grey", (60, 60, 60))
    photograph(tmp_path, "dark_grey_left", (60, 60, 60), looks=-1)
    photograph(tmp_path, "plain", (200, 200, 200))
    return tmp_path


def test_photographs_are_grouped_by_mask_and_missing_sides_are_mirrored(photographs: Path) -> None:
    blue, grey, plain = load_templates(photographs)
    assert (blue.kind, grey.kind, plain.kind) == ("blue", "dark_grey", "plain")
    np.testing.assert_allclose(grey.right.paint, grey.left.paint[:, ::-1], atol=1e-6)
    np.testing.assert_array_equal(plain.left.paint, plain.front.paint)
    for view in (blue.left, grey.right):  # found on the body, not on the straps
        assert np.ptp(view.anchors[:, 0]) < 175


def test_folders_without_usable_photographs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no mask pictures"):
        load_templates(tmp_path)
    with pytest.raises(FileNotFoundError, match="no fabrics"):
        load_textures(tmp_path)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(ValueError, match="transparency"):
        load_templates(tmp_path)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 20, 4), np.uint8))
    with pytest.raises(ValueError, match="no mask is seen"):
        load_templates(tmp_path)


@pytest.mark.parametrize("worn", WORN)
@pytest.mark.parametrize("unit", [8, 30, 90])
@pytest.mark.parametrize("degrees", [0, 35, -80])
@pytest.mark.parametrize(("face", "mirrored"), [(FRONTAL, False), (TURNED, False), (TURNED, True)])
def test_photographed_masks_hide_what_their_state_says(
    photographs: Path, worn: Worn, unit: int, degrees: int, face: np.ndarray, mirrored: bool
) -> None:
    if mirrored:
        face = (face * (-1, 1))[[1, 0, 2, 4, 3]]
    side = unit * 7
    image, centre = picture(side, side), (side / 2, side / 2)
    points = points_of(face, unit, centre, degrees)
    chin = points_of(np.array([(face[3:, 0].mean(), 1.72)]), unit, centre, degrees)[0]
    for template in load_templates(photographs):
        for seed in range(3):
            painted = paint_template(image, points, template, worn=worn, rng=np.random.default_rng(seed))
            for point, hidden in zip((points[2], points[3:].mean(0), chin), HIDES[worn], strict=True):
                assert (at(painted, point) > 0.5) == hidden, (template.kind, seed, point)
            assert max(at(painted, points[0]), at(painted, points[1])) < 0.5, (template.kind, seed)


def test_a_photographed_mask_keeps_its_colour_or_takes_a_fabric(photographs: Path) -> None:
    image, points = picture(260, 260), points_of(FRONTAL, 60, (130, 90))
    blue = load_templates(photographs)[0]
    fabric = np.zeros((30, 30, 3), np.uint8)
    fabric[..., 1] = 200
    looks = [({}, 0), ({"texture": fabric}, 1), ({"color": (0.1, 0.1, 0.8)}, 2)]
    for options, strongest in looks:
        rng = np.random.default_rng(0)
        painted = paint_template(image, points, blue, worn="correct", rng=rng, **options)
        color = painted.image[painted.region > 0.95].mean(axis=0)
        assert color.argmax() == strongest


@pytest.mark.parametrize("worn", WORN)
def test_held_out_masks_vary_and_repeat_with_the_random_state(
    photographs: Path, tmp_path: Path, worn: Worn
) -> None:
    fabrics = tmp_path / "fabrics"
    fabrics.mkdir()
    cv2.imwrite(str(fabrics / "a.png"), np.random.default_rng(0).integers(0, 255, (9, 9, 4)).astype(np.uint8))
    cv2.imwrite(str(fabrics / "b.jpg"), np.full((9, 14, 3), 90, np.uint8))
    (fabrics / "LICENCE").write_text("none")
    templates, textures = load_templates(photographs), load_textures(fabrics)
    assert [texture.shape for texture in textures] == [(9, 9, 3), (9, 14, 3)]
    image, points = picture(120, 120), points_of(TURNED, 30, (60, 45), 10)

    def paint(seed: int) -> Painted:
        rng = np.random.default_rng(seed)
        return held_out_painting(image, points, worn=worn, rng=rng, templates=templates, textures=textures)

    np.testing.assert_array_equal(paint(3).image, paint(3).image)
    assert len({paint(seed).image.tobytes() for seed in range(12)}) == 12
    rng = np.random.default_rng(0)
    assert held_out_painting(image, points, worn=worn, rng=rng, templates=templates).region.any()


def test_photographed_masks_survive_any_landmarks(photographs: Path) -> None:
    rng, image = np.random.default_rng(0), picture(80, 60, grey=True)
    templates = load_templates(photographs)
    for index in range(120):
        points = rng.uniform(-40, 120, (5, 2))
        painted = held_out_painting(image, points, worn=WORN[index % 3], rng=rng, templates=templates)
        assert painted.image.shape == image.shape
        assert np.isfinite(painted.region).all()
        assert 0 <= painted.region.min() <= painted.region.max() <= 1
        np.testing.assert_array_equal(np.ptp(painted.image, axis=2), 0)  # grey stays grey
    for points in (np.zeros((5, 2)), np.full((5, 2), np.nan), points_of(FRONTAL, 30, (-300, 60))):
        painted = paint_template(image, points, templates[0], worn="correct", rng=rng)
        np.testing.assert_array_equal(painted.image, image)
        assert not painted.region.any()
    with pytest.raises(ValueError, match="nose_out"):
        paint_template(image, FRONTAL, templates[0], worn="hat", rng=rng)  # type: ignore[arg-type]


# The shipped clip.


@pytest.fixture(scope="module")
def truth() -> dict[str, Any]:
    return json.loads(TRUTH.read_text(encoding="utf-8"))


def iou(a: list[float], b: list[float]) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def test_the_clip_is_what_the_record_says(truth: dict[str, Any]) -> None:
    assert CLIP.stat().st_size < 2_000_000
    capture = cv2.VideoCapture(str(CLIP))
    frames = 0
    while True:
        ok, image = capture.read()
        if not ok:
            break
        assert image.shape == (480, 640, 3)
        frames += 1
    fps = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    assert frames == len(truth["frames"])
    assert fps == pytest.approx(truth["fps"])
    assert frames / fps >= 12


def test_the_record_shows_everything_the_clip_is_for(truth: dict[str, Any]) -> None:
    frames = truth["frames"]
    whole = [face for faces in frames for face in faces if not face["partial"]]
    assert {face["mask"] for face in whole} == {"none", "chin", "nose_out", "correct"}
    assert min(face["box"][2] for face in whole) < 50
    assert max(face["box"][2] for face in whole) > 200
    assert sum(len(faces) == 2 for faces in frames) > 100
    assert sum(not faces for faces in frames) >= truth["fps"]  # a second with nobody in view
    for face in whole:
        x, y, w, h = face["box"]
        assert all(x <= px <= x + w and y <= py <= y + h for px, py in face["landmarks"])
        assert face["landmarks"][0][0] < face["landmarks"][1][0]  # the person's right is on our left


def test_faces_in_the_record_move_without_jumps(truth: dict[str, Any]) -> None:
    gone: set[int] = set()
    for before, after in pairwise(truth["frames"]):
        old, new = ({face["id"]: face["box"] for face in faces} for faces in (before, after))
        gone |= old.keys() - new.keys()
        assert not gone & new.keys()  # who left comes back under another id
        assert all(iou(old[key], new[key]) > 0.6 for key in old.keys() & new.keys())

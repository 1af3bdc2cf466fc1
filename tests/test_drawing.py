from __future__ import annotations

import numpy as np
import pytest

from edge.drawing import GREY as UNKNOWN
from edge.drawing import MASK_COLORS, TRACK_COLORS, annotate, color_of, label_of, status_of
from edge.types import Analysis, Face

GREY = 120


def face(
    x: float = 0.3,
    y: float = 0.3,
    w: float = 0.3,
    h: float = 0.4,
    size: tuple[int, int] = (640, 480),
    **more: object,
) -> Face:
    """A face in parts of a picture of that size."""
    box = np.array([x, y, w, h]) * np.tile(size, 2)
    points = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]) * box[2:] + box[:2]
    return Face(tuple(map(float, box)), 0.97, points.astype(np.float32), **({"track": 1} | more))  # type: ignore[arg-type]


def analysis(*faces: Face, size: tuple[int, int] = (640, 480)) -> Analysis:
    return Analysis(None, 0, 0.0, *size, faces, {"face": 2.14})


def picture(width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """H x W bool: what was drawn on."""
    return (before != after).any(axis=2)


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 300), (300, 1), (16, 16), (240, 180), (640, 480), (480, 640), (3840, 2160)]
)
def test_any_size_and_the_original_stays(size: tuple[int, int]) -> None:
    before = picture(*size)
    faces = [
        face(size=size),
        face(-0.1, 0.9, 0.2, 0.2, size=size),
        face(0.9, -0.1, 0.2, 0.2, size=size, track=12345),
    ]
    after = annotate(before, analysis(*faces, size=size), fps=30)
    assert after.shape == before.shape
    assert after.dtype == np.uint8
    assert (before == GREY).all()


def test_without_faces_only_the_status_line_is_drawn() -> None:
    before = picture(640, 480)
    rows, columns = np.nonzero(changed(before, annotate(before, analysis())))
    assert rows.min() > 440
    assert columns.max() < 320


def test_a_picture_too_small_for_text_is_left_as_it_is() -> None:
    before = picture(12, 12)
    assert not changed(before, annotate(before, analysis())).any()


def plate(size: tuple[int, int], one: Face) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels of the label: what differs between two texts of one length."""
    first = annotate(picture(*size), analysis(one, size=size))
    other = Face(one.box, one.score, one.landmarks, 8, one.mask)
    assert label_of(one) == "#1 97%"
    # Tracks 1 and 8 have the same colour, so that only the text differs.
    return np.nonzero(changed(first, annotate(picture(*size), analysis(other, size=size))))


SIZES = [((240, 180), 6, 14), ((640, 480), 8, 20), ((1920, 1080), 20, 45), ((3840, 2160), 40, 90)]


@pytest.mark.parametrize(("size", "least", "most"), SIZES)
def test_text_grows_with_the_picture_and_can_be_read(size: tuple[int, int], least: int, most: int) -> None:
    rows, _ = plate(size, face(size=size))
    assert least <= np.ptp(rows) + 1 <= most


CORNERS = [
    (-0.1, -0.1),
    (0.45, 0.0),
    (0.9, -0.2),
    (0.9, 0.45),
    (0.9, 0.8),
    (0.4, 0.85),
    (-0.2, 0.5),
    (0.0, 0.0),
]


@pytest.mark.parametrize(("x", "y"), CORNERS)
def test_the_whole_label_is_inside_the_picture(x: float, y: float) -> None:
    size = (640, 480)
    inside, _ = plate(size, face(0.4, 0.4, 0.2, 0.2, size=size))
    rows, columns = plate(size, face(x, y, 0.2, 0.2, size=size))
    # As many pixels of the differing digit are seen as in the middle of the picture.
    assert len(rows) == len(inside)
    assert rows.min() > 0
    assert rows.max() < 479
    assert columns.min() > 0
    assert columns.max() < 639


def test_a_face_that_fills_the_picture_is_labelled_inside() -> None:
    rows, _ = plate((640, 480), face(-0.05, -0.05, 1.1, 1.1))
    assert len(rows) > 0


@pytest.mark.parametrize(("size", "least"), [((240, 180), 1), ((640, 480), 2), ((3840, 2160), 6)])
def test_lines_grow_with_the_picture(size: tuple[int, int], least: int) -> None:
    after = annotate(picture(*size), analysis(face(size=size), size=size))
    row = after[int(size[1] * 0.45), : int(size[0] * 0.35)]
    width = int((row == TRACK_COLORS[1]).all(axis=1).sum())
    assert least <= width <= 3 * least


@pytest.mark.parametrize(
    ("one", "color"),
    [
        (face(track=None), TRACK_COLORS[0]),
        (face(track=1), TRACK_COLORS[1]),
        (face(track=1 + len(TRACK_COLORS)), TRACK_COLORS[1]),
        *((face(mask={"state": state, "score": 0.9}), color) for state, color in MASK_COLORS.items()),
        (face(mask={"state": None, "score": 0.4}), UNKNOWN),
        (face(mask={"state": "unheard of", "score": 0.9}), UNKNOWN),
    ],
)
def test_colors(one: Face, color: tuple[int, int, int]) -> None:
    assert color_of(one) == color
    after = annotate(picture(640, 480), analysis(one))
    assert (after == color).all(axis=2).any()


@pytest.mark.parametrize(
    ("state", "pieces"), [("none", 2), ("chin", 5), ("nose_out", 3), ("correct", 1), (None, 1)]
)
def test_states_differ_in_their_lines_too(state: str | None, pieces: int) -> None:
    # For somebody who sees no colour at all, and for faces too small for text.
    def counted(w: float) -> int:
        one = face(0.3, 0.3, w, w, mask={"state": state, "score": 0.9})
        after = annotate(picture(640, 480), analysis(one))
        x, y, width, height = (round(v) for v in one.box)
        for side in (after[y + height, x - 3 : x + width + 3], after[y - 3 : y + height + 3, x]):
            drawn = (side == color_of(one)).all(axis=1).astype(int)
            count = int((np.diff(drawn) == 1).sum())
        return count

    assert counted(0.3) == counted(0.1) == pieces
    assert counted(0.02) == 1  # no room for gaps


def test_neighbouring_tracks_differ_in_brightness_too() -> None:
    # For somebody who sees no colour at all.
    assert len(set(TRACK_COLORS)) == len(TRACK_COLORS)
    grey = [0.114 * b + 0.587 * g + 0.299 * r for b, g, r in MASK_COLORS.values()]
    assert min(abs(a - b) for i, a in enumerate(grey) for b in grey[:i]) > 8


@pytest.mark.parametrize(
    ("one", "label"),
    [
        (face(track=None), "97%"),
        (face(track=3), "#3 97%"),
        (face(track=3, mask={"state": "nose_out", "score": 0.942}), "#3 nose out 94%"),
        (face(mask={"state": "none", "score": 0.9999}), "#1 no mask 99%"),
        (
            face(track=3, mask={"state": "chin", "score": 0.97}, gender={"label": "female", "score": 0.91}),
            "#3 mask on chin 97%  woman 91%",
        ),
        (
            face(track=None, mask={"state": "correct", "score": 0.9}, gender={"label": "male", "score": 0.6}),
            "mask 90%  man 60%",
        ),
        (
            face(mask={"state": None, "score": 0.4}, gender={"label": "male", "score": 0.91}),
            "#1 mask ?  man 91%",
        ),
        (face(mask={"state": None, "score": 0.4}, gender={"label": None, "score": 0.5}), "#1 mask ?"),
        (face(track=2, gender={"label": "male", "score": 0.91}), "#2  man 91%"),
        (face(track=None, gender={"label": None, "score": 0.55}), "?"),
        (face(track=3, identity={"name": "Zoë Łüç"}), "Zoe ?uc 97%"),
        (face(track=3, identity={"name": None}), "#3 97%"),
    ],
)
def test_labels(one: Face, label: str) -> None:
    assert label_of(one) == label


@pytest.mark.parametrize(
    ("faces", "timing", "fps", "text"),
    [
        ((), {}, None, "0 faces"),
        ((face(),), {"face": 2.14}, None, "1 face  2.1 ms"),
        ((face(), face()), {"face": 12.0}, 29.7, "2 faces  12.0 ms  30 fps"),
        ((face(),), {"face": 2.0, "attributes": 1.5}, None, "1 face  3.5 ms"),
    ],
)
def test_the_status_line(
    faces: tuple[Face, ...], timing: dict[str, float], fps: float | None, text: str
) -> None:
    assert status_of(Analysis(None, 0, 0, 1, 1, faces, timing), fps) == text


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1e30, 1e30])
def test_impossible_coordinates_are_no_reason_to_fall_over(bad: float) -> None:
    before = picture(64, 48)
    for box in ((bad, 0, 10, 10), (0, 0, bad, 10)):
        one = Face(box, 0.9, np.full((5, 2), bad, np.float32))
        assert annotate(before, analysis(one, size=(64, 48))).shape == before.shape


def test_landmarks_are_dots_that_leave_the_face_visible() -> None:
    one = face()
    after = annotate(picture(640, 480), analysis(one))
    for x, y in one.landmarks:
        assert (after[round(float(y)), round(float(x))] == 255).all()
    x, y, w, h = (round(v) for v in one.box)
    inner = changed(picture(640, 480), after)[y + 20 : y + h - 20, x + 10 : x + w - 10]
    assert inner.mean() < 0.02

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest

from edge.tracking import Tracker
from edge.types import Face

POINTS = np.zeros((5, 2), np.float32)
FPS = 25


def face(x: float, y: float = 100, size: float = 80, score: float = 0.9) -> Face:
    """A face with its centre at x, y."""
    return Face((x - size / 2, y - size / 2, size, size), score, POINTS)


def follow(tracker: Tracker, frames: Iterable[list[Face]], start: int = 0) -> list[tuple[int | None, ...]]:
    """The ids of each frame."""
    return [
        tuple(one.track for one in tracker.update(faces, number / FPS))
        for number, faces in enumerate(frames, start)
    ]


def test_a_face_has_an_id_in_its_first_frame_and_keeps_all_its_other_values() -> None:
    given = Face(
        (1, 2, 30, 40), 0.7, POINTS, mask={"state": "none"}, gender={"label": "male"}, identity={"name": "a"}
    )
    (found,) = Tracker().update([given], 0.0)
    assert found.track == 1
    assert (found.box, found.score, found.mask, found.gender, found.identity) == (
        given.box, given.score, given.mask, given.gender, given.identity,
    )  # fmt: skip
    assert found.landmarks is given.landmarks


MOVES: list[tuple[str, Callable[[int], list[Face]]]] = [
    ("standing still", lambda n: [face(100)]),
    ("trembling", lambda n: [face(100 + 3 * (n % 2), 100 - 2 * (n % 3))]),
    ("walking", lambda n: [face(100 + 8 * n)]),
    ("faster than half its size per frame", lambda n: [face(100 + 60 * n)]),
    ("coming nearer", lambda n: [face(300, 300, 40 * 1.08**n)]),
    ("going away", lambda n: [face(300, 300, 400 * 0.92**n)]),
    ("two side by side", lambda n: [face(100 + 5 * n), face(190 + 5 * n)]),
    (
        "two in opposite directions, one above the other",
        lambda n: [face(100 + 9 * n), face(460 - 9 * n, 160)],
    ),
    ("fifty", lambda n: [face(100 * (i % 10) + 4 * n, 120 * (i // 10)) for i in range(50)]),
]


@pytest.mark.parametrize("move", [move for _, move in MOVES], ids=[name for name, _ in MOVES])
def test_ids_stay(move: Callable[[int], list[Face]]) -> None:
    ids = follow(Tracker(), (move(number) for number in range(40)))
    assert set(ids) == {tuple(range(1, len(move(0)) + 1))}


def test_order_of_the_faces_does_not_matter() -> None:
    tracker = Tracker()
    assert follow(tracker, [[face(100), face(300)]]) == [(1, 2)]
    assert follow(tracker, [[face(305), face(105)]], 1) == [(2, 1)]


def test_faces_that_cross_keep_their_ids() -> None:
    # Detectors merge two faces that cover each other: for three frames only one box is reported.
    frames = []
    for number in range(40):
        left, right = face(100 + 10 * number), face(500 - 10 * number, 110)
        frames.append([left] if abs(left.box[0] - right.box[0]) < 25 else [left, right])
    ids = follow(Tracker(), frames)
    assert ids[0] == ids[-1] == (1, 2)
    assert {one for frame in ids for one in frame} == {1, 2}


GAPS = [
    # frames without the face, frames before it, is it the same afterwards?
    (0, 5, True),
    (10, 5, True),
    (20, 5, True),
    (26, 5, False),  # longer than max_age_s
    (10, 1, False),  # seen once only: forgotten sooner
]


@pytest.mark.parametrize(("missing", "before", "same"), GAPS)
def test_a_gap(missing: int, before: int, same: bool) -> None:
    frames = [[face(200)]] * before + [[]] * missing + [[face(203)]]
    assert follow(Tracker(max_age_s=1.0), frames)[-1] == ((1,) if same else (2,))


def test_a_moving_face_is_expected_where_it_would_be_after_a_gap() -> None:
    frames = [[face(100 + 12 * n)] if not 10 <= n < 18 else [] for n in range(30)]
    assert follow(Tracker(), frames)[-1] == (1,)


def test_ids_are_never_given_twice() -> None:
    tracker = Tracker(max_age_s=0.1)
    seen: list[int | None] = []
    for number in range(30):
        seen += [
            one.track for one in tracker.update([face(200)], number)
        ]  # one second apart: always a new one
    assert seen == list(range(1, 31))
    assert tracker.seen == 30


def test_a_new_face_elsewhere_is_another_one() -> None:
    assert follow(Tracker(), [[face(100)], [face(400)]]) == [(1,), (2,)]
    assert follow(Tracker(), [[face(100, size=40)], [face(100, size=200)]]) == [(1,), (2,)]


def test_nothing_at_all() -> None:
    tracker = Tracker()
    assert follow(tracker, [[], [], []]) == [(), (), ()]
    assert tracker.alive == 0


@pytest.mark.parametrize("size", [0.0, 1e-3, 1e5])
def test_boxes_of_any_size_do_not_break_it(size: float) -> None:
    ids = follow(Tracker(), [[face(100, size=size)]] * 3)
    assert len(ids) == 3
    assert all(len(frame) == 1 for frame in ids)


@pytest.mark.parametrize("times", [(0.0, 0.0, 0.0), (5.0, 4.9, 4.8), (0.0, 1e-9, 2e-9)])
def test_a_clock_that_stands_or_jumps_back(times: tuple[float, ...]) -> None:
    tracker = Tracker()
    assert [tracker.update([face(100 + 2 * n)], t)[0].track for n, t in enumerate(times)] == [1, 1, 1]


def test_a_clock_that_begins_anew_forgets_the_old_tracks() -> None:
    tracker = Tracker()
    follow(tracker, [[face(100)]] * 5, start=1000)
    tracker.update([], 0.0)
    assert tracker.alive == 0


def test_weak_faces_continue_a_track_but_start_none() -> None:
    tracker = Tracker(start_score=0.5)
    assert follow(tracker, [[face(100, score=0.4)]]) == [()]
    assert follow(tracker, [[face(100, score=0.6)], [face(101, score=0.4)]], 1) == [(1,), (1,)]
    assert follow(tracker, [[face(100, score=0.4), face(300, score=0.4)]], 3) == [(1,)]


def test_a_strong_face_is_matched_before_a_weak_one_that_overlaps_better() -> None:
    tracker = Tracker(start_score=0.5)
    follow(tracker, [[face(100)]])
    assert [one.score for one in tracker.update([face(100, score=0.4), face(110)], 1 / FPS)] == [0.9]


def test_noise_does_not_pile_up_tracks() -> None:
    tracker, random = Tracker(), np.random.default_rng(0)
    for number in range(300):
        places = random.uniform(0, 5000, (50, 2))
        tracker.update([face(x, y, 20) for x, y in places], number / FPS)
    assert tracker.alive < 50 * FPS * 0.5

"""Mask state, gender and rejection: single views, the vote over a track, and what is said of it in words."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pytest

from edge.errors import ModelError
from edge.tasks.attributes import (
    TEMPLATE,
    AttributesEstimator,
    AttributesVoter,
    Thresholds,
    in_words,
    sharpness,
)
from edge.tflite import Model, ModelEntry, ModelFile
from edge.types import GENDERS, MASK_STATES, Face
from tests.tiny_models import RED_LEVELS, attributes_model

CROP = 1.68  # sides of a face that the crop shows
FPS = 25
RED = dict(zip(MASK_STATES, RED_LEVELS, strict=True))
GREEN = {"female": 60, "male": 190}
IS_FACE, NO_FACE, HARDLY = 200, 55, 95  # blue: probabilities of being a face of 0.99, 0.015 and 0.14

MODEL = attributes_model()


class Person:
    """A face as `attributes_model` sees it: a patch of one mean colour."""

    def __init__(
        self,
        state: str | float = "correct",
        gender: str | float = "female",
        face: float = IS_FACE,
        *,
        x: float = 200,
        y: float = 200,
        side: float = 60,
        blur: float = 0,
        track: int | None = 1,
    ) -> None:
        red = RED[state] if isinstance(state, str) else state
        green = GREEN[gender] if isinstance(gender, str) else gender
        self.bgr = (face, green, red)
        self.x, self.y, self.side, self.blur, self.track = x, y, side, blur, track

    def paint(self, image: np.ndarray) -> Face:
        """Into a picture; texture that leaves the mean alone makes it sharp."""
        half = max(1, round(self.side * CROP / 2 * 1.2))
        rng = np.random.default_rng(3)
        texture = rng.choice([-40.0, 40.0], (24, 24))
        texture -= texture.mean()
        texture = cv2.resize(texture, (2 * half, 2 * half), interpolation=cv2.INTER_NEAREST)
        if self.blur:
            texture = cv2.GaussianBlur(texture, (0, 0), self.blur * self.side)
        patch = np.clip(texture[..., None] + self.bgr, 0, 255).astype(np.uint8)
        height, width = image.shape[:2]
        left, top = round(self.x) - half, round(self.y) - half
        x0, y0, x1, y1 = max(0, left), max(0, top), min(width, left + 2 * half), min(height, top + 2 * half)
        if x1 > x0 and y1 > y0:
            image[y0:y1, x0:x1] = patch[y0 - top : y1 - top, x0 - left : x1 - left]
        points = (np.float32(TEMPLATE) - 0.5) * CROP * self.side + np.float32([self.x, self.y])
        half_side = self.side / 2
        box = (self.x - half_side, self.y - half_side, self.side, self.side)
        return Face(tuple(map(float, box)), 0.9, points, self.track)  # type: ignore[arg-type]


def scene(*people: Person, size: tuple[int, int] = (640, 480)) -> tuple[np.ndarray, list[Face]]:
    image = np.zeros((size[1], size[0], 3), np.uint8)
    return image, [person.paint(image) for person in people]


def estimator(**options: Any) -> AttributesEstimator:
    return AttributesEstimator(Model(MODEL, threads=1), **options)


def entry(**more: Any) -> ModelEntry:
    thresholds = {"mask": 0.7, "gender": 0.65, "face": 0.4, "min_side": 20, "sharpness": 0.1}
    known = {"thresholds": {key: {"value": value, "figure": "a test"} for key, value in thresholds.items()}}
    files = {"int8": ModelFile("a.tflite", "0" * 64, 1)}
    return ModelEntry("attributes", "attributes", "1", "int8", files, **(known | more))


# ------------------------------------------------------------------------------------ single views


@pytest.mark.parametrize(("state", "gender"), list(itertools.product(MASK_STATES, GENDERS)))
def test_the_model_sees_an_rgb_crop_of_each_face(state: str, gender: str) -> None:
    (view,) = estimator().estimate(*scene(Person(state, gender)))
    assert view is not None
    assert view.gender is not None
    assert MASK_STATES[int(np.argmax(view.mask))] == state
    assert GENDERS[int(np.argmax(view.gender))] == gender
    assert (sum(view.mask), sum(view.gender)) == pytest.approx((1, 1))
    assert max(view.mask) > 0.9
    assert view.face == pytest.approx(0.989, abs=0.005)
    assert view.side == pytest.approx(60)


@pytest.mark.parametrize("count", [0, 1, 50])
def test_one_invoke_a_face_in_the_order_given(count: int) -> None:
    people = [
        Person(MASK_STATES[i % 4], x=40 + 80 * (i % 10), y=40 + 80 * (i // 10), side=40) for i in range(count)
    ]
    seen = estimator()
    views = seen.estimate(*scene(*people, size=(800, 400)))
    assert [int(np.argmax(view.mask)) for view in views if view] == [i % 4 for i in range(count)]
    assert seen.invokes == count
    assert (seen.last_invoke_ms > 0) == (count > 0)


class OneSided:
    """A model that looks at the left half of a crop alone: the redder, the likelier `correct`."""

    inputs, outputs = Model(MODEL, threads=1).inputs, Model(MODEL, threads=1).outputs

    def __init__(self) -> None:
        self.seen: list[bool] = []  # whether the left half was the redder one

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        left, right = (float(half.mean()) for half in np.split(pixels[0, ..., 0], 2, axis=1))
        self.seen.append(left > right)
        mask = np.zeros((1, len(MASK_STATES)), np.float32)
        mask[0, -1] = left / 32
        known = {len(MASK_STATES): mask, len(GENDERS): np.zeros((1, 2), np.float32)}
        return [known.get(spec.shape[-1], np.full((1, 1), 4, np.float32)) for spec in self.outputs]


def test_a_photo_is_judged_by_the_face_and_its_mirror_image() -> None:
    model, (image, (face,)) = OneSided(), scene(Person(200))
    image[:, :200, 2] = 0
    seen = AttributesEstimator(model)  # type: ignore[arg-type]
    (labelled,) = seen.label(image, [face])
    assert model.seen == [False, True]
    assert seen.invokes == 2
    assert labelled.mask is not None
    one, other = (
        np.log(view.mask[-1] / view.mask[0])
        for ways in ((False,), (True,))
        for view in seen.estimate(image, [face], [ways])
        if view is not None
    )
    assert other - one > 2
    scores = labelled.mask["scores"]
    assert np.log(scores["correct"] / scores["none"]) == pytest.approx((one + other) / 2, abs=0.02)


def test_views_of_a_track_take_turns_with_their_mirror_images() -> None:
    model, (image, (face,)) = OneSided(), scene(Person(200))
    image[:, :200, 2] = 0
    voter = AttributesVoter(AttributesEstimator(model), every_s=0)  # type: ignore[arg-type]
    for i in range(4):
        voter.update(image, [face], i / FPS, {1})
    assert model.seen == [False, True, False, True]


@pytest.mark.parametrize(
    ("size", "person"),
    [
        ((1, 1), Person(x=0, y=0, side=40)),
        ((1, 300), Person(x=0, y=100)),
        ((64, 48), Person(x=-500, y=9000)),
        ((64, 48), Person(x=30, y=20, side=2000)),
        ((64, 48), Person(x=30, y=20, side=0.5)),
    ],
)
def test_odd_pictures_and_places_have_an_answer(size: tuple[int, int], person: Person) -> None:
    image, faces = scene(size=size), [person.paint(np.zeros((1, 1, 3), np.uint8))]
    (view,) = estimator().estimate(image[0], faces)
    assert view is not None
    assert np.isfinite([*view.mask, view.face, view.sharpness, view.side]).all()
    (labelled,) = estimator().label(image[0], faces, reject=False)
    json.dumps(labelled.to_json(), allow_nan=False)


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.full((5, 2), np.nan), np.full((5, 2), np.inf)])
def test_landmarks_that_are_none_are_not_looked_at(points: np.ndarray) -> None:
    image, (face,) = scene(Person())
    broken = Face(face.box, face.score, points.astype(np.float32), 1)
    seen = estimator()
    assert seen.estimate(image, [broken, face])[0] is None
    assert seen.invokes == 1
    assert seen.label(image, [broken]) == (broken,)
    voter = AttributesVoter(seen)
    for number in range(30):
        assert voter.update(image, [broken], number / FPS, {1})[0].mask is None


def test_thresholds_and_template_come_from_the_manifest() -> None:
    shifted = [[x + 0.2, y] for x, y in TEMPLATE]
    seen = estimator(entry=entry(alignment={"template": shifted}))
    assert seen.thresholds == Thresholds(0.7, 0.65, 0.4, 20, 0.1)
    image, (face,) = scene(Person("none"))
    image[:, 195:] = 0  # what is shown left of the middle of the face stays
    (view,) = seen.estimate(image, [face])
    (centred,) = estimator().estimate(image, [face])
    assert view is not None
    assert centred is not None
    assert view.face > centred.face
    with pytest.raises(ModelError, match="no threshold 'sharpness'"):
        estimator(entry=entry(thresholds=dict.fromkeys(("mask", "gender", "face", "min_side"), 0.5)))


def test_sharpness_compares_faces_of_all_sizes_and_falls_with_blur() -> None:
    def of(side: float, blur: float = 0.0, noise: float = 0.0) -> float:
        image, faces = scene(Person(side=side, blur=blur))
        if noise:
            image = np.clip(image + np.random.default_rng(1).normal(0, noise, image.shape), 0, 255)
        (view,) = estimator().estimate(image.astype(np.uint8), faces)
        assert view is not None
        return view.sharpness

    assert of(60) == pytest.approx(of(180), rel=0.2)
    falling = [of(100, blur) for blur in (0, 0.02, 0.04, 0.08)]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] < 0.5 * falling[0]
    assert of(100, 0.08, noise=4) < 0.5 * falling[0]
    assert sharpness(np.full((96, 96, 3), 77, np.uint8)) == 0


LABELLED: list[tuple[Person, str | None, str | None]] = [
    (Person("correct", "female"), "correct", "female"),
    (Person("chin", "male"), "chin", "male"),
    (Person((RED["chin"] + RED["nose_out"]) / 2, "male"), None, "male"),  # half-way between two states
    (Person("none", 125), "none", None),  # either gender
    (Person("none", "male", side=12), None, None),
    (Person("none", "male", blur=0.2), None, None),
]


@pytest.mark.parametrize(("person", "state", "label"), LABELLED)
def test_a_single_picture_is_labelled_or_unknown(
    person: Person, state: str | None, label: str | None
) -> None:
    person.track = None
    ((face,), seen) = (estimator().label(*scene(person)), estimator())
    assert face.mask is not None
    assert face.gender is not None
    assert (face.mask["state"], face.gender["label"]) == (state, label)
    assert face.mask["score"] == max(face.mask["scores"].values())
    assert list(face.mask["scores"]) == list(MASK_STATES)
    assert sum(face.mask["scores"].values()) == pytest.approx(1, abs=3e-4)
    assert json.loads(json.dumps(face.to_json()))["mask"] == face.mask
    assert all(round(score, 4) == score for score in (face.gender["score"], *face.mask["scores"].values()))
    assert seen.label(scene(person)[0], ()) == ()


@pytest.mark.parametrize(
    ("tasks", "mask", "gender"),
    [(("mask", "gender"), True, True), (("mask",), True, False), (("gender", "face"), False, True)],
)
def test_what_is_not_asked_for_is_nowhere(tasks: Sequence[str], mask: bool, gender: bool) -> None:
    seen = estimator(tasks=tasks)
    image, faces = scene(Person())
    (view,) = seen.estimate(image, faces)
    assert view is not None
    assert (view.gender is not None) == gender
    for (face,) in (seen.label(image, faces), AttributesVoter(seen).update(image, faces, 0.0, {1})):
        keys = face.to_json().keys()
        assert (("mask" in keys), ("gender" in keys)) == (mask, gender)


def test_what_is_no_face_is_left_out_of_a_single_picture() -> None:
    image, faces = scene(Person(x=100), Person(face=NO_FACE, x=300), Person(face=HARDLY, x=500))
    seen = estimator()
    assert [face.box[0] for face in seen.label(image, faces)] == [70]
    assert len(seen.label(image, faces, reject=False)) == 3
    voter = AttributesVoter(seen)
    assert len(voter.label(image, faces)) == 1
    assert voter.rejected == 2
    assert len(AttributesVoter(seen, reject=False).label(image, faces)) == 3


# ---------------------------------------------------------------------------------- over a track


class Watch:
    """A voter in a loop of 25 frames a second."""

    def __init__(self, *, tasks: Sequence[str] = ("mask", "gender"), **options: Any) -> None:
        self.estimator = estimator(tasks=tasks)
        self.voter = AttributesVoter(self.estimator, **options)
        self.frame = 0
        self.invokes: list[int] = []

    def see(self, *people: Person, size: tuple[int, int] = (640, 480)) -> tuple[Face, ...]:
        image, faces = scene(*people, size=size)
        before = self.estimator.invokes
        alive = {person.track for person in people if person.track is not None}
        found = self.voter.update(image, faces, self.frame / FPS, alive)
        self.frame += 1
        self.invokes.append(self.estimator.invokes - before)
        return found

    def states(self, people: Sequence[Person]) -> list[str | None]:
        """The state shown in each frame, of one person; "gone" where the face was left out."""
        shown = []
        for person in people:
            found = self.see(person)
            shown.append(found[0].mask["state"] if found and found[0].mask else "gone")
        return shown


def changes(shown: Sequence[str | None]) -> int:
    return sum(a != b for a, b in itertools.pairwise(shown))


def test_a_new_face_is_told_at_once() -> None:
    (face,) = Watch().see(Person("chin", "male"))
    assert face.track == 1
    assert face.mask is not None
    assert face.gender is not None
    assert (face.mask["state"], face.gender["label"]) == ("chin", "male")


def test_without_faces_nothing_is_computed() -> None:
    watch = Watch()
    assert watch.see() == ()
    assert watch.voter.last_invoke_ms == 0
    assert watch.invokes == [0]


@pytest.mark.parametrize(
    ("every_s", "least", "most"), [(0, 100, 100), (0.08, 49, 53), (0.2, 19, 23), (60, 3, 3)]
)
def test_a_face_that_stays_the_same_is_looked_at_now_and_then(every_s: float, least: int, most: int) -> None:
    watch = Watch(every_s=every_s)
    watch.states([Person()] * 100)
    assert least <= sum(watch.invokes) <= most
    assert watch.invokes[:3] == [1, 1, 1]  # one view may be a bad one


def test_a_larger_view_is_looked_at_at_once() -> None:
    watch = Watch(every_s=60)
    watch.states([Person(side=40)] * 10)
    watch.states([Person(side=42)] * 3)
    assert sum(watch.invokes[3:]) == 0
    watch.states([Person(side=60)])
    assert watch.invokes[-1] == 1


def test_a_face_that_stays_unclear_does_not_take_all_the_time() -> None:
    for person in (Person(75), Person(side=10), Person(blur=0.3)):
        watch = Watch(every_s=0.4)
        assert set(watch.states([person] * 100)) == {None}
        assert sum(watch.invokes[10:]) <= 10


def test_a_crowd_takes_turns() -> None:
    people = [Person(x=40 + 75 * (i % 10), y=40 + 75 * (i // 10), side=40, track=i + 1) for i in range(50)]
    watch = Watch()
    told = [sum(face.mask is not None for face in watch.see(*people, size=(800, 400))) for _ in range(40)]
    assert max(watch.invokes) == 4
    assert told[12] == 50  # new ones first
    assert told == sorted(told)
    watch.see(*people, Person(track=99, x=770, y=370, side=40), size=(800, 400))
    (new,) = [face for face in watch.see(*people, Person(track=99, x=770, y=370, side=40), size=(800, 400))
              if face.track == 99]  # fmt: skip
    assert new.mask is not None
    # Nobody waits much longer than their turn: everybody's change of state is seen in time.
    for person in people:
        person.bgr = (IS_FACE, GREEN["male"], RED["none"])
    for _ in range(60):
        found = watch.see(*people, size=(800, 400))
    assert {face.mask["state"] for face in found if face.mask} == {"none"}


@pytest.mark.parametrize(("before", "after"), list(itertools.permutations(MASK_STATES, 2)))
@pytest.mark.parametrize("long", [10, 400])
def test_a_change_is_shown_once_and_soon(before: str, after: str, long: int) -> None:
    shown = Watch().states([Person(before)] * long + [Person(after)] * 25)
    assert changes(shown) == 1
    assert shown.index(after) - long <= 0.16 * FPS
    assert shown[long:].count(before) >= 1  # not for a single view


@pytest.mark.parametrize("side", [24, 60])
def test_a_small_face_takes_longer_to_change(side: float) -> None:
    shown = Watch().states([Person("correct", side=side)] * 20 + [Person("none", side=side)] * 25)
    assert changes(shown) == 1
    assert shown.index("none") - 20 <= (0.4 if side < 48 else 0.16) * FPS


def test_odd_views_do_not_flicker() -> None:
    people = [Person("none" if number % 7 == 3 else "correct") for number in range(200)]
    assert changes(Watch(every_s=0).states(people)) == 0


@pytest.mark.parametrize("seed", range(5))
def test_an_unsure_model_does_not_flicker(seed: int) -> None:
    # Four of five views speak for nose_out, by little; the others for correct.
    reds = np.random.default_rng(seed).normal(170, 6, 300)
    shown = Watch(every_s=0).states([Person(float(red)) for red in reds])
    assert set(shown[10:]) == {"nose_out"}


def test_the_score_is_that_of_the_state_shown() -> None:
    watch = Watch()
    for person in [Person("correct")] * 10 + [Person("none")] * 10:
        (face,) = watch.see(person)
        assert face.mask is not None
        assert face.mask["score"] == face.mask["scores"][face.mask["state"]]
        assert sum(face.mask["scores"].values()) == pytest.approx(1, abs=3e-4)


def test_unknown_after_a_while_without_a_clear_view() -> None:
    halfway = (RED["correct"] + RED["nose_out"]) / 2
    shown = Watch().states([Person("correct")] * 20 + [Person(halfway)] * 40 + [Person("correct")] * 20)
    assert shown[22] == "correct"
    assert shown[55] is None
    assert shown[-1] == "correct"
    assert changes(shown) == 2


@pytest.mark.parametrize("bad", [Person("none", blur=0.3), Person("none", side=10)], ids=["blurred", "small"])
def test_bad_views_do_not_vote_and_are_bridged_for_a_second(bad: Person) -> None:
    shown = Watch().states([Person("correct")] * 20 + [bad] * 50 + [Person("correct")] * 10)
    assert shown[20:44] == ["correct"] * 24
    assert shown[55:70] == [None] * 15
    assert shown[-1] == "correct"


def test_gender_is_what_the_whole_track_says() -> None:
    watch = Watch(every_s=0)

    def labels(*people: Person) -> list[str | None]:
        return [face.gender["label"] for person in people for face in watch.see(person) if face.gender]

    assert set(labels(*[Person(gender="female")] * 50)) == {"female"}
    assert set(labels(*[Person(gender="male")] * 20)) == {"female"}  # 0.8 s against 2 s
    shown = labels(*[Person(gender="male")] * 200)
    assert shown[-1] == "male"  # somebody else took the track over
    assert shown[: shown.index("male")].count(None) > 0
    assert changes(shown) == 2
    (face,) = watch.see(Person(gender="male", blur=0.3))
    assert face.gender is not None
    assert face.gender["label"] == "male"  # blur hides nothing that is known already


def test_masked_and_bare_views_vote_on_gender_alike() -> None:
    watch = Watch(every_s=0)
    for state in ("none", "correct") * 10:
        (face,) = watch.see(Person(state, "male" if state == "none" else 125))
    assert face.gender is not None
    assert 0.6 < face.gender["score"] < 0.9


def test_unknown_gender_keeps_its_score() -> None:
    (face,) = Watch().see(Person(gender=125))
    assert face.gender is not None
    assert face.gender["label"] is None
    assert face.gender["score"] == pytest.approx(0.5, abs=0.05)


REJECTED: list[tuple[str, list[float], list[int]]] = [
    # how much of a face each frame shows, and in which frames it is reported
    ("never a face", [NO_FACE] * 8, []),
    ("always one", [IS_FACE] * 8, list(range(8))),
    ("hardly one: given a second look", [HARDLY] * 8, [0]),
    ("hardly one at first", [HARDLY, *[IS_FACE] * 7], list(range(8))),
    ("one bad view of a known face", [*[IS_FACE] * 4, NO_FACE, *[IS_FACE] * 3], list(range(8))),
    ("two bad views", [*[IS_FACE] * 4, *[NO_FACE] * 2, *[IS_FACE] * 2], list(range(8))),
    ("three bad views", [*[IS_FACE] * 4, *[NO_FACE] * 4], [0, 1, 2, 3, 4, 5]),
    ("a face after all", [NO_FACE, *[IS_FACE] * 7], [2, 3, 4, 5, 6, 7]),
]


@pytest.mark.parametrize(
    ("blues", "reported"), [one[1:] for one in REJECTED], ids=[one[0] for one in REJECTED]
)
def test_what_is_no_face_is_left_out(blues: Sequence[float], reported: list[int]) -> None:
    watch = Watch(every_s=0)
    assert [i for i, blue in enumerate(blues) if watch.see(Person(face=blue))] == reported
    assert watch.voter.rejected == (len(blues) - 1 not in reported)


def test_nothing_is_left_out_where_that_is_not_wanted() -> None:
    watch = Watch(reject=False)
    assert len(watch.states([Person(face=NO_FACE)] * 8)) == 8
    assert "gone" not in watch.states([Person(face=NO_FACE)] * 8)
    assert watch.voter.rejected == 0


def test_a_track_that_is_gone_is_forgotten() -> None:
    watch = Watch(every_s=60)
    watch.states([Person("correct")] * 5)
    watch.see(Person(track=2))  # the tracker knows only this one now
    assert watch.states([Person("none")]) == ["none"]


def test_a_track_out_of_sight_is_remembered_as_long_as_the_tracker_does() -> None:
    watch = Watch(every_s=60)
    watch.states([Person("correct")] * 5)
    assert watch.voter.update(*scene(), 1.0, {1}) == ()
    assert watch.states([Person("none")]) == ["correct"]


@pytest.mark.parametrize("times", [[0.0] * 9, [9, 8, 7, 6, 5, 4, 3, 2, 1], [0, 1e9, 0, 1e9, 0]])
def test_a_clock_that_stands_still_or_jumps_does_no_harm(times: list[float]) -> None:
    seen = estimator()
    voter = AttributesVoter(seen)
    image, faces = scene(Person("chin"))
    for time_s in times:
        (face,) = voter.update(image, faces, time_s, {1})
        assert face.mask is not None
        assert face.mask["state"] == "chin"


# --------------------------------------------------------------------------------------- in words


def mask(state: str | None, score: float = 0.94) -> dict[str, Any]:
    return {"state": state, "score": score, "scores": {}}


def gender(label: str | None, score: float = 0.91) -> dict[str, Any]:
    return {"label": label, "score": score}


WORDS: list[tuple[dict[str, Any] | None, dict[str, Any] | None, str]] = [
    (mask("none"), gender("female"), "a woman without a mask (94 %)"),
    (mask("chin"), gender("female"), "a woman, mask on her chin (94 %)"),
    (mask("nose_out"), gender("female"), "a woman, mask under her nose (94 %)"),
    (mask("correct"), gender("female"), "a woman, mask worn correctly (94 %)"),
    (mask(None, 0.4), gender("female"), "a woman, mask not clear"),
    (mask("none"), gender("male"), "a man without a mask (94 %)"),
    (mask("chin"), gender("male"), "a man, mask on his chin (94 %)"),
    (mask("nose_out"), gender("male"), "a man, mask under his nose (94 %)"),
    (mask("correct"), gender("male"), "a man, mask worn correctly (94 %)"),
    (mask(None, 0.4), gender("male"), "a man, mask not clear"),
    (mask("none"), gender(None, 0.55), "a person without a mask (94 %)"),
    (mask("chin"), gender(None, 0.55), "a person, mask on the chin (94 %)"),
    (mask("nose_out"), gender(None, 0.55), "a person, mask under the nose (94 %)"),
    (mask("correct"), gender(None, 0.55), "a person, mask worn correctly (94 %)"),
    (mask(None, 0.4), gender(None, 0.55), "a person, mask not clear"),
    (mask("none"), gender("male", 0.72), "probably a man (72 %) without a mask (94 %)"),
    (mask("nose_out"), gender("female", 0.72), "probably a woman (72 %), mask under the nose (94 %)"),
    (mask(None, 0.4), gender("female", 0.72), "probably a woman (72 %), mask not clear"),
    # --tasks mask
    (mask("none"), None, "a person without a mask (94 %)"),
    (mask("chin"), None, "a person, mask on the chin (94 %)"),
    (mask("nose_out"), None, "a person, mask under the nose (94 %)"),
    (mask("correct"), None, "a person, mask worn correctly (94 %)"),
    (mask(None, 0.4), None, "a person, mask not clear"),
    # --tasks gender
    (None, gender("female"), "a woman (91 %)"),
    (None, gender("male", 0.72), "probably a man (72 %)"),
    (None, gender(None, 0.55), "a person"),
    # --tasks face
    (None, None, "a face of 30x40 px at 10,20 (90 %)"),
    # nothing is certain
    (mask("none", 0.9999), gender("male", 1.0), "a man without a mask (99 %)"),
]


@pytest.mark.parametrize(("mask_", "gender_", "words"), WORDS, ids=[one[2] for one in WORDS])
def test_in_words(mask_: dict[str, Any] | None, gender_: dict[str, Any] | None, words: str) -> None:
    face = Face((10.2, 20, 30, 40), 0.9, np.zeros((5, 2), np.float32), None, mask_, gender_)
    assert in_words(face) == words

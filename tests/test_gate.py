"""Unlocking, frame by frame: who is accepted, who is refused, and what the person is told."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from edge.errors import InputError
from edge.tasks.identity import Embedding
from edge.types import Analysis, Face, Frame
from edge.unlock import gate as module
from edge.unlock.enrol import Enroller, Views, trimmed_mean
from edge.unlock.gate import Gate
from edge.unlock.liveness import Check, State, View
from edge.unlock.policy import Gallery, Limits
from edge.unlock.vault import Person

LIMITS = Limits(1e-4, {"bare": 0.5, "masked": 0.5})
ADA, GRACE, EVE = 40, 100, 160
"""What people look like here: hues."""


def vector_of(hue: float) -> np.ndarray:
    angle = np.radians(hue * 2)
    return np.array([np.cos(angle), np.sin(angle), 0], np.float32)


class ByHue:
    """Stands for the embedder: who somebody is, is the colour of the picture."""

    quality = 0.9

    def crop(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        return image[:112, :112]

    def look(self, crop: np.ndarray) -> Embedding:
        hue = np.median(cv2.cvtColor(crop, cv2.COLOR_BGR2HSV)[..., 0])
        return Embedding(vector_of(float(hue)), self.quality)

    def embed(self, image: np.ndarray, landmarks: np.ndarray) -> Embedding:
        return self.look(self.crop(image, landmarks))


def picture(hue: int, light: int = 200) -> np.ndarray:
    grain = np.random.default_rng(hue).integers(light - 50, light, (120, 120)).astype(np.uint8)
    hsv = np.dstack([np.full_like(grain, hue), np.full_like(grain, 200), grain])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)


LANDMARKS = np.array([[35, 45], [75, 45], [55, 65], [40, 85], [70, 85]], np.float32)


def face(track: int | None = 1, side: float = 110) -> Face:
    return Face((0.0, 0.0, side, side), 0.9, LANDMARKS, track)


def step(
    sink: Any, number: int, hue: int | None, *faces: Face, light: int = 200, name: str | None = None
) -> None:
    image = picture(hue or 0, light)
    found = faces or ((face(),) if hue is not None else ())
    time = number / 10
    sink.write(Frame(image, number, time, name), Analysis(name, number, time, 120, 120, tuple(found), {}))


def gate_of(**options: Any) -> Gate:
    people = [
        Person(name, {"bare": vector_of(hue)}, {"bare": 3}) for name, hue in (("ada", ADA), ("grace", GRACE))
    ]
    given: dict[str, Any] = {"checks": list, "seconds": 5.0} | options
    return Gate(ByHue(), Gallery(people, LIMITS), **given)  # type: ignore[arg-type]


def refused(gate: Gate) -> str:
    gate.close()
    assert gate.decision is not None
    assert gate.decision.name is None
    return gate.decision.reason


def test_three_views_of_an_enrolled_person_unlock() -> None:
    gate = gate_of()
    for i in range(2):
        step(gate, i, ADA)
        assert gate.decision is None
    step(gate, 2, ADA)
    assert gate.decision is not None
    assert (gate.decision.name, gate.decision.reason, gate.decision.views) == ("ada", "", 3)
    assert gate.decision.seconds == pytest.approx(0.2)
    assert gate.stop_requested


def test_a_stranger_is_refused_at_the_time_limit() -> None:
    gate = gate_of()
    for i in range(80):
        step(gate, i, EVE)
    assert gate.decision is not None
    assert (gate.decision.name, gate.decision.reason) == (None, "not recognised")
    assert gate.decision.seen
    assert gate.decision.seconds == pytest.approx(5.0)


def test_views_of_different_tracks_do_not_add_up() -> None:
    gate = gate_of()
    for i in range(40):
        step(gate, i, ADA, face(track=i // 2))
    assert refused(gate) == "too few clear views"


def test_two_people_in_view_unlock_nothing() -> None:
    gate = gate_of()
    for i in range(30):
        step(gate, i, ADA, face(1), face(2))
    assert refused(gate) == "more than one face is in view"


def test_somebody_who_steps_in_ends_the_votes_so_far() -> None:
    gate = gate_of()
    for i in range(2):
        step(gate, i, ADA)
    step(gate, 2, ADA, face(1), face(2))
    for i in range(3, 5):
        step(gate, i, ADA)
    assert gate.decision is None
    step(gate, 5, ADA)
    assert gate.decision is not None
    assert gate.decision.name == "ada"


def test_a_swap_within_a_track_is_nobody() -> None:
    gate = gate_of()
    for i in range(2):
        step(gate, i, ADA)
    for i in range(2, 20):
        step(gate, i, GRACE)
    assert refused(gate) == "not recognised"


def test_nobody_in_view_ends_early_and_is_no_attempt() -> None:
    attempts: list[int] = []
    gate = gate_of(on_attempt=lambda: attempts.append(1), seconds=60.0)
    for i in range(60):
        step(gate, i, None)
        if gate.decision:
            break
    assert gate.decision is not None
    assert (gate.decision.reason, gate.decision.seen) == ("nobody is in view", False)
    assert gate.decision.seconds == pytest.approx(3.0)
    assert attempts == []


def test_the_attempt_is_counted_before_it_can_succeed() -> None:
    """To cut the power between the comparison and its result is no way round the lock-out."""

    class Counted(Exception):
        pass

    def count() -> None:
        raise Counted

    gate = gate_of(on_attempt=count)
    with pytest.raises(Counted):
        step(gate, 0, ADA)
    assert gate.decision is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"side": 40}, "come closer"),
        ({"light": 51}, "it is too dark"),
    ],
)
def test_what_is_wrong_is_said(options: dict[str, Any], says: str) -> None:
    told: list[str] = []
    gate = gate_of(say=told.append)
    for i in range(5):
        step(gate, i, ADA, face(side=options.get("side", 110)), light=options.get("light", 200))
    assert told == [says]
    assert refused(gate) == says


def test_a_useless_crop_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ByHue, "quality", 0.1)
    gate = gate_of()
    for i in range(5):
        step(gate, i, ADA)
    assert refused(gate) == "look at the camera"
    assert not gate.decision.seen  # type: ignore[union-attr]


def test_a_blurred_face_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "sharpness", lambda crop: 0.1)
    gate = gate_of()
    for i in range(5):
        step(gate, i, ADA)
    assert refused(gate) == "hold still, the picture is blurred"


def test_a_source_that_ends_at_once_is_refused() -> None:
    assert refused(gate_of()) == "nobody is in view"


class Scripted:
    """A check that passes, or refuses, at a view."""

    name = "scripted"

    def __init__(self, at: int, end: State) -> None:
        self.state: State = "waiting"
        self.says = "wave"
        self._left, self._end = at, end

    def look(self, view: View) -> None:
        self._left -= 1
        if self._left <= 0:
            self.state = self._end


@pytest.mark.parametrize("at", [1, 10])
def test_all_signs_of_life_must_pass(at: int) -> None:
    made: list[list[Check]] = []

    def checks() -> list[Check]:
        made.append([Scripted(1, "passed"), Scripted(at, "passed")])
        return made[-1]

    gate = gate_of(checks=checks)
    for i in range(max(at, 3) - 1):
        step(gate, i, ADA)
        assert gate.decision is None
    step(gate, 20, ADA)
    assert gate.decision is not None
    assert gate.decision.name == "ada"


def test_one_refusal_is_enough() -> None:
    gate = gate_of(checks=lambda: [Scripted(1, "passed"), Scripted(3, "refused")])
    for i in range(3):
        step(gate, i, ADA)
    assert gate.decision is not None
    assert (gate.decision.name, gate.decision.reason) == (None, "wave")


def test_a_check_that_comes_to_no_end_refuses() -> None:
    gate = gate_of(checks=lambda: [Scripted(10_000, "passed")])
    for i in range(80):
        step(gate, i, ADA)
    assert gate.decision is not None
    assert (gate.decision.name, gate.decision.reason) == (None, "wave")


def test_signs_of_life_begin_anew_with_every_track() -> None:
    """Somebody alive shows that, then holds a photo of somebody else into the camera."""
    gate = gate_of(checks=lambda: [Scripted(5, "passed")])
    for i in range(10):
        step(gate, i, EVE, face(track=1))
    for i in range(10, 14):
        step(gate, i, ADA, face(track=2))
    assert gate.decision is None


# ---------------------------------------------------------------------------------------------- enrolling


class Estimator:
    """Stands for the attributes model: what is dark is masked."""

    class thresholds:
        mask, face = 0.6, 0.3

    def estimate(self, image: np.ndarray, faces: Any) -> tuple[Any, ...]:
        class Seen:
            mask = (0.0, 0.0, 0.1, 0.9) if image.mean() < 90 else (0.9, 0.1, 0.0, 0.0)
            face = 0.9

        return (Seen(),)


def enroller(**options: Any) -> Enroller:
    return Enroller(ByHue(), Estimator(), **({"live": True, "wanted": 4} | options))  # type: ignore[arg-type]


def test_a_camera_is_led_through_bare_and_masked() -> None:
    told: list[str] = []
    sink = enroller(say=told.append)
    number = 0
    while not sink.stop_requested and number < 100:
        step(sink, number * 3, ADA, light=200 if len(sink.taken["bare"]) < 4 else 130)
        number += 1
    assert {mode: len(views) for mode, views in sink.taken.items()} == {"bare": 4, "masked": 4}
    assert told == ["look at the camera, without a mask"]
    person = sink.person("ada", least=0.4)
    assert person.views == {"bare": 4, "masked": 4}
    assert not person.painted
    for template in person.templates.values():
        assert float(template @ vector_of(ADA)) > 0.99


def test_who_keeps_the_mask_off_is_asked_to_put_it_on() -> None:
    told: list[str] = []
    sink = enroller(say=told.append)
    for number in range(8):
        step(sink, number * 3, ADA)
    assert told[-1] == "now put a mask on"


def test_without_masked_views_masks_are_painted() -> None:
    sink = enroller(masked=False)
    for number in range(4):
        step(sink, number * 3, ADA)
    assert sink.stop_requested
    person = sink.person("ada", least=0.0)
    assert person.painted
    assert set(person.templates) == {"bare", "masked"}
    assert len(sink.painted) == 12


def test_the_template_for_masked_faces_is_half_bare() -> None:
    sink = enroller(live=False)
    for number in range(3):
        step(sink, 0, ADA, name=f"{number}.jpg")
        step(sink, 0, EVE, name=f"masked{number}.jpg", light=130)
    templates = sink.person("ada", least=0.0).templates
    assert float(templates["bare"] @ vector_of(ADA)) > 0.99
    halves = [float(templates["masked"] @ vector_of(hue)) for hue in (ADA, EVE)]
    assert halves[0] == pytest.approx(halves[1], abs=0.01)
    assert halves[0] > float(vector_of(ADA) @ vector_of(EVE))
    masked = enroller(live=False)
    for number in range(4):
        step(masked, 0, ADA, name=f"{number}.jpg", light=130)
    with pytest.raises(InputError, match="without a mask: 0"):
        masked.person("ada", least=0.0)


def test_pictures_all_count() -> None:
    sink = enroller(live=False)
    for number in range(6):
        step(sink, 0, ADA, name=f"{number}.jpg")
    assert len(sink.taken["bare"]) == 6
    assert not sink.stop_requested


def test_too_few_views_say_why() -> None:
    sink = enroller(live=False)
    for number in range(2):
        step(sink, number * 3, ADA)
    for number in range(9):
        step(sink, 30 + number, ADA, face(1), face(2))
    with pytest.raises(InputError, match="ada without a mask: 2; mostly: more than one face"):
        sink.person("ada", least=0.4)


def test_views_of_several_people_are_refused() -> None:
    sink = enroller(live=False)
    for number, hue in enumerate((ADA, EVE, ADA + 45, EVE + 20, ADA, 10)):
        step(sink, 0, hue, name=f"{number}.jpg")
    with pytest.raises(InputError, match="do not seem to be of one person"):
        sink.person("ada", least=0.8)


def test_a_template_leaves_outliers_out() -> None:
    views = Views()
    for hue in (38, 39, 40, 41, 42, 39, 40, 41):
        views.add(vector_of(hue), 1.0)
    clean = trimmed_mean(views)
    views.add(vector_of(EVE), 1.0)
    assert float(clean @ trimmed_mean(views)) > 0.9999
    with pytest.raises(ValueError, match="no views"):
        trimmed_mean(Views())

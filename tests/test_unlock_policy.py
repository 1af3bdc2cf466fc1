"""When a face may unlock: thresholds, votes, and the lock-out that no restart and no clock gets round."""

from __future__ import annotations

import time

import numpy as np
import pytest

from edge.errors import UsageError
from edge.unlock import policy
from edge.unlock.policy import Gallery, Limits, Match, Votes
from edge.unlock.vault import Lockout, Person

LIMITS = Limits(1e-4, {"bare": 0.4, "masked": 0.5})
YES, NO = Match("ada", 0.7, 0.3), Match("ada", 0.3, -0.1)


def unit(*values: float) -> np.ndarray:
    vector = np.zeros(16, np.float32)
    vector[: len(values)] = values
    return vector / np.linalg.norm(vector)


# ------------------------------------------------------------------------------------------- the gallery


def test_each_template_has_the_threshold_of_its_mode() -> None:
    one = Person("ada", {"bare": unit(1), "masked": unit(0, 1)}, {"bare": 3, "masked": 3})
    gallery = Gallery([one], LIMITS)
    bare = gallery.search(unit(1))
    assert bare is not None
    assert (bare.name, round(bare.score, 4), round(bare.margin, 4)) == ("ada", 1.0, 0.6)
    between = gallery.search(unit(0.45, 0.48, 1))
    assert between is not None
    # 0.387 to the bare template, 0.413 to the masked one: nearer to the first threshold.
    assert between.score == pytest.approx(0.376, abs=1e-3)
    assert between.margin == pytest.approx(-0.024, abs=1e-3)


def test_the_nearest_person_is_found() -> None:
    people = [Person(f"p{i}", {"bare": unit(*np.eye(16)[i])}, {"bare": 3}) for i in range(16)]
    found = Gallery(people, LIMITS).search(unit(*(np.eye(16)[5] + 0.2)))
    assert found is not None
    assert found.name == "p5"
    assert Gallery([], LIMITS).search(unit(1)) is None


def test_a_thousand_people_are_searched_at_once() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((2000, 128)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    people = [
        Person(f"p{i}", {"bare": vectors[2 * i], "masked": vectors[2 * i + 1]}, {}) for i in range(1000)
    ]
    gallery = Gallery(people, LIMITS)
    for i in (0, 499, 999):
        found = gallery.search(vectors[2 * i + 1])
        assert found is not None
        assert found.name == f"p{i}"


# ------------------------------------------------------------------------------------------------ votes


def test_three_views_must_agree() -> None:
    votes = Votes()
    assert [votes.add(YES, 1.0) for _ in range(3)] == [None, None, "ada"]
    with pytest.raises(UsageError, match="too few"):
        Votes(2)


def test_a_lucky_view_among_many_is_not_enough() -> None:
    votes = Votes()
    assert [votes.add(NO if i % 2 else YES, 1.0) for i in range(100)] == [None] * 100


def test_trying_for_longer_does_not_help() -> None:
    rng = np.random.default_rng(1)
    votes = Votes()
    for _ in range(5000):  # one in ten views of a stranger passes the threshold
        margin = float(rng.normal(-0.13, 0.1))
        assert votes.add(Match("ada", 0.4 + margin, margin), 1.0) is None


def test_a_few_bad_views_do_not_shut_the_right_person_out() -> None:
    votes = Votes()
    said = [votes.add(match, 1.0) for match in (NO, YES, YES, NO, YES, YES)]
    assert said[-1] == "ada"


def test_small_and_blurred_views_count_less() -> None:
    votes = Votes()
    for _ in range(3):
        votes.add(NO, 0.1)
    assert [votes.add(YES, 1.0) for _ in range(3)][-1] == "ada"


def test_views_of_two_people_are_of_nobody() -> None:
    votes = Votes()
    for match in (YES, YES, Match("grace", 0.9, 0.5), YES, YES, YES):
        assert votes.add(match, 1.0) is None


def test_without_templates_nobody_is_accepted() -> None:
    votes = Votes()
    assert [votes.add(None, 1.0) for _ in range(9)] == [None] * 9


# --------------------------------------------------------------------------------------------- lock-out


def test_pauses_grow() -> None:
    assert [policy.pause_s(n) for n in range(8)] == [0, 0, 0, 0, 0, 30, 60, 120]
    assert policy.pause_s(1000) == 3600


def failed(times: int, *, now: float = 1e9, boot: tuple[str, float] = ("a", 100.0)) -> Lockout:
    state = Lockout()
    for _ in range(times):
        policy.count_failure(state, now=now, boot=boot)
    return state


def test_a_pause_ends() -> None:
    state = failed(6)
    assert policy.remaining_s(state, now=1e9, boot=("a", 100.0)) == 60
    assert policy.remaining_s(state, now=1e9 + 59, boot=("a", 159.0)) == 1
    assert policy.remaining_s(state, now=1e9 + 61, boot=("a", 161.0)) == 0
    policy.clear(state)
    assert (state.failures, policy.remaining_s(state, now=1e9, boot=("a", 161.0))) == (0, 0)


def test_a_few_failures_are_free() -> None:
    assert policy.remaining_s(failed(4), now=1e9, boot=("a", 100.0)) == 0


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_setting_the_clock_does_not_shorten_or_lengthen_it(jump: float) -> None:
    state = failed(6)
    assert policy.remaining_s(state, now=1e9 + jump, boot=("a", 110.0)) == 50


def test_it_survives_a_restart_of_the_machine() -> None:
    state = failed(6)
    assert policy.remaining_s(state, now=1e9 + 20, boot=("b", 5.0)) == 40
    assert policy.remaining_s(state, now=1e9 + 30, boot=("b", 15.0)) == 30
    assert policy.remaining_s(state, now=1e9 + 65, boot=("b", 50.0)) == 0


def test_a_restart_with_the_clock_set_back_begins_the_rest_anew() -> None:
    state = failed(6)
    assert policy.remaining_s(state, now=1e9 + 20, boot=("a", 120.0)) == 40  # last use: 40 s were left
    assert policy.remaining_s(state, now=0.0, boot=("b", 5.0)) == 40
    assert policy.remaining_s(state, now=10.0, boot=("b", 35.0)) == 10
    assert policy.remaining_s(state, now=20.0, boot=("b", 46.0)) == 0


def test_with_the_real_clocks() -> None:
    state = Lockout()
    for _ in range(5):
        policy.count_failure(state)
    left = policy.remaining_s(state)
    assert 29 < left <= 30
    time.sleep(0.02)
    assert policy.remaining_s(state) < left

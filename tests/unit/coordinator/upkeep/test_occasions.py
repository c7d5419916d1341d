"""When tasks without an agent are looked at again: after news and at sweeps, not on every round of placement."""

from __future__ import annotations

import pytest

from coordinator.upkeep.assign_agents import REST, Assigned, Occasions
from shared.clock import FrozenClock

NOBODY = Assigned()
ALL_BUSY = Assigned(waits_for_room=True)


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def occasions(clock: FrozenClock) -> Occasions:
    made = Occasions(clock.monotonic)
    assert made.take()
    return made


def look(occasions: Occasions, clock: FrozenClock, found: Assigned, seconds: float = 0.0) -> None:
    began = clock.monotonic()
    clock.advance(seconds)
    occasions.looked(found, began=began)


def test_a_new_leader_looks_at_once() -> None:
    assert Occasions().take()


def test_a_round_without_news_takes_no_look(occasions: Occasions, clock: FrozenClock) -> None:
    look(occasions, clock, NOBODY)
    assert not occasions.take()
    assert occasions.due_at == float("inf")


@pytest.mark.parametrize("reason", ["unassigned", "lane", "fleet", "amended", "redriven"])
def test_news_is_an_occasion_once(occasions: Occasions, clock: FrozenClock, reason: str) -> None:
    look(occasions, clock, NOBODY)
    occasions.heard(reason)
    assert occasions.take()
    assert not occasions.take()


@pytest.mark.parametrize("reason", ["submitted", "assigned"])
def test_work_of_others_is_none(occasions: Occasions, clock: FrozenClock, reason: str) -> None:
    look(occasions, clock, ALL_BUSY)
    occasions.heard(reason)
    assert not occasions.take()


def test_an_end_of_work_is_one_only_while_somebody_waits_for_room(occasions: Occasions, clock: FrozenClock) -> None:
    look(occasions, clock, NOBODY)
    occasions.heard("report")
    assert not occasions.take()
    occasions.swept()
    assert occasions.take()
    look(occasions, clock, ALL_BUSY)
    occasions.heard("report")
    assert occasions.take()


def test_every_sweep_is_one(occasions: Occasions, clock: FrozenClock) -> None:
    look(occasions, clock, NOBODY)
    occasions.swept()
    assert occasions.take()


def test_a_fruitless_look_is_followed_by_a_rest(occasions: Occasions, clock: FrozenClock) -> None:
    look(occasions, clock, NOBODY, seconds=0.1)
    occasions.heard("unassigned")
    assert not occasions.take()
    assert occasions.due_at == pytest.approx(clock.monotonic() + REST * 0.1)
    clock.advance(REST * 0.1 + 0.001)
    assert occasions.take()


def test_a_full_batch_is_followed_by_the_next_one_at_once(occasions: Occasions, clock: FrozenClock) -> None:
    look(occasions, clock, Assigned(100, may_go_on=True), seconds=0.1)
    assert occasions.take()


def test_what_is_heard_during_a_look_is_not_forgotten(occasions: Occasions, clock: FrozenClock) -> None:
    occasions.heard("unassigned")
    look(occasions, clock, NOBODY)
    assert occasions.take()

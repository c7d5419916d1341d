"""Who is deaf, by what its row and its heartbeat say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.domains.fleet.canaries import DEAF_AFTER, Hearing, judge
from shared.contracts.node import Heartbeat


def heard(queue: Any, *, known: int = 4, missed: int = DEAF_AFTER, restarted: bool = False) -> Hearing:
    node = SimpleNamespace(canaries_heard=known, canaries_missed=missed)
    told = Heartbeat(epoch="e", vitals={"queue": queue})
    return judge(node, told, restarted=restarted, canary_seconds=30)


def test_a_node_that_heard_one_more_hears_and_its_count_begins_anew() -> None:
    assert heard({"pings": 5}) == Hearing(columns={"canaries_heard": 5, "canaries_missed": 0})


def test_a_node_that_missed_three_is_deaf_and_its_old_consumer_starts_anew() -> None:
    assert heard({"pings": 4, "listening_seconds": 31}) == Hearing(is_deaf=True, needs_restart=True)


@pytest.mark.parametrize("listening", [None, 0, 29.9])
def test_a_consumer_that_has_only_begun_is_given_time(listening: float | None) -> None:
    assert heard({"pings": 4, "listening_seconds": listening}) == Hearing(is_deaf=True)


def test_two_that_were_missed_prove_nothing() -> None:
    assert heard({"pings": 4, "listening_seconds": 500}, missed=DEAF_AFTER - 1) == Hearing()


def test_a_daemon_that_was_started_anew_is_not_blamed_for_the_one_before() -> None:
    assert heard({"pings": 4}, restarted=True) == Hearing(columns={"canaries_heard": 4, "canaries_missed": 0})
    assert heard({"pings": 0}).columns == {"canaries_heard": 0, "canaries_missed": 0}


@pytest.mark.parametrize("queue", [None, "x", {}, {"pings": "7"}, {"pings": -1}, {"pings": 2**40}])
def test_what_makes_no_sense_is_no_news(queue: Any) -> None:
    assert heard(queue) == Hearing()

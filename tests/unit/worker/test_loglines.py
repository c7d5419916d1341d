"""Log lines on their way: bounded, in order, never left out silently."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from shared.client.errors import Unreachable
from shared.contracts.node import JobSpec
from worker.attempts import Attempt
from worker.loglines import OVERHEAD, LogShipper


class Coordinator:
    """Stores lines as the real one does: an offset that is there already is not stored again."""

    def __init__(self) -> None:
        self.batches: list[list[dict[str, Any]]] = []
        self.open = threading.Event()
        self.open.set()
        self.asked = threading.Event()
        self.failures = 0
        self.stale: list[str] = []

    def send_lines(self, lines: Sequence[dict[str, Any]]) -> list[str]:
        self.asked.set()
        self.open.wait(10)
        if self.failures:
            self.failures -= 1
            raise Unreachable("no")
        self.batches.append(list(lines))
        return self.stale

    @property
    def text(self) -> list[str]:
        return [line["message"] for batch in self.batches for line in batch]


@pytest.fixture
def link() -> Coordinator:
    return Coordinator()


@pytest.fixture
def stale() -> list[str]:
    return []


@pytest.fixture
def shipper(link: Coordinator, stale: list[str]) -> Iterator[LogShipper]:
    made = LogShipper(link, max_bytes=10 * (OVERHEAD + 5), patience_seconds=0.05, on_stale=stale.append)
    made.start()
    yield made
    link.open.set()
    made.close(5)


@pytest.fixture
def attempt() -> Attempt:
    return Attempt(attempt_id="a1", job_id="j1", number=1, token="t1", spec=JobSpec("task", "agent", "command"))


def test_lines_arrive_in_order_with_their_offsets_and_age(
    shipper: LogShipper, link: Coordinator, attempt: Attempt
) -> None:
    log = shipper.open(attempt)
    for number in range(5):
        log.write("stdout", "info", str(number))
    assert log.finish(5) is True
    lines = [line for batch in link.batches for line in batch]
    assert [(line["offset"], line["message"]) for line in lines] == [(number, str(number)) for number in range(5)]
    assert {(line["attempt_id"], line["token"], line["stream"]) for line in lines} == {("a1", "t1", "stdout")}
    assert all(0 <= line["age_ms"] < 5000 for line in lines)


def test_lines_that_were_not_taken_are_sent_again(shipper: LogShipper, link: Coordinator, attempt: Attempt) -> None:
    link.failures = 2
    log = shipper.open(attempt)
    log.write("stdout", "info", "once")
    assert log.finish(5) is True
    assert link.text == ["once"]


def test_a_job_is_held_up_only_so_long_and_what_is_left_out_is_counted(
    shipper: LogShipper, link: Coordinator, attempt: Attempt
) -> None:
    link.open.clear()
    log = shipper.open(attempt)
    log.write("stdout", "info", "first")
    assert link.asked.wait(5)
    for number in range(30):
        log.write("stdout", "info", f"l{number:04}")
    left_out = log.left_out
    assert left_out > 10
    assert log.finish(0.05) is False
    link.open.set()
    assert log.finish(5) is True
    kept = [text for text in link.text if text.startswith("l")]
    assert len(kept) == 30 - left_out
    assert link.text[-1] == f"{left_out} lines were left out here: the coordinator did not take them"


def test_a_gap_in_the_middle_is_told_where_it_is(shipper: LogShipper, link: Coordinator, attempt: Attempt) -> None:
    link.open.clear()
    log = shipper.open(attempt)
    log.write("stdout", "info", "first")
    assert link.asked.wait(5)
    for number in range(20):
        log.write("stdout", "info", f"l{number:04}")
    lost = log.left_out
    link.open.set()
    assert shipper.wait_for(log, 5)
    log.write("stdout", "info", "after")
    assert log.finish(5)
    assert link.text[-2:] == [f"{lost} lines were left out here: the coordinator did not take them", "after"]
    offsets = [line["offset"] for batch in link.batches for line in batch]
    # A line has its number whether others got through or not: what is told again after a crash has the same.
    assert offsets == [*range(21 - lost), 20, 21]


def test_an_attempt_that_is_no_longer_ours_is_told(
    shipper: LogShipper, link: Coordinator, attempt: Attempt, stale: list[str]
) -> None:
    link.stale = ["a1"]
    log = shipper.open(attempt)
    log.write("stdout", "info", "x")
    assert log.finish(5)
    assert stale == ["a1"]

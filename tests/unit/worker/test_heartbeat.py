"""When a heart beats, and who hears of the answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from shared.client.errors import Unreachable
from shared.contracts.node import Heartbeat, HeartbeatReply
from shared.errors import Forbidden, LongshoreError, Unauthenticated
from worker.heartbeat import Pulse

MakePulse = Callable[[float], Pulse]


class Coordinator:
    """Answers beats; `errors` come first."""

    def __init__(self) -> None:
        self.every = 60.0
        self.errors: list[LongshoreError] = []
        self.times: list[float] = []
        self.changed = threading.Condition()

    def heartbeat(self, told: Heartbeat, *, timeout: float) -> HeartbeatReply:
        with self.changed:
            self.times.append(time.monotonic())
            self.changed.notify_all()
            if self.errors:
                raise self.errors.pop(0)
        return HeartbeatReply("online", is_approved=True, heartbeat_seconds=self.every, lease_seconds=30)

    def wait_beats(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.times) >= count, 10), f"{len(self.times)} beats"


class Heard:
    def __init__(self) -> None:
        self.replies: list[float] = []
        self.void = threading.Event()
        self.cut_off = threading.Event()


@pytest.fixture
def link() -> Coordinator:
    return Coordinator()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def pulse(link: Coordinator, heard: Heard) -> Iterator[Pulse]:
    made = Pulse(
        link,
        tell=lambda: Heartbeat("e1"),
        on_reply=lambda _reply, sent_at: heard.replies.append(sent_at),
        on_void=heard.void.set,
        on_cut_off=heard.cut_off.set,
    )
    yield made
    made.close()


def test_it_beats_at_once_and_then_as_often_as_it_is_told(pulse: Pulse, link: Coordinator) -> None:
    link.every = 0.1
    pulse.start()
    link.wait_beats(4)
    gaps = [after - before for before, after in zip(link.times, link.times[1:], strict=False)]
    assert all(gap >= 0.09 for gap in gaps)


def test_a_nudge_does_not_wait_for_the_next_beat(pulse: Pulse, link: Coordinator) -> None:
    pulse.start()
    link.wait_beats(1)
    pulse.now()
    link.wait_beats(2)
    assert pulse.beat_and_wait(5) is True
    assert len(link.times) == 3


def test_an_answer_is_told_with_the_time_of_its_asking(pulse: Pulse, link: Coordinator, heard: Heard) -> None:
    before = time.monotonic()
    pulse.start()
    assert pulse.beat_and_wait(5)
    assert before <= heard.replies[0] <= link.times[0]


def test_a_beat_that_was_missed_is_tried_again_soon(pulse: Pulse, link: Coordinator) -> None:
    link.errors = [Unreachable("no"), Unreachable("no")]
    pulse.start()
    link.wait_beats(3)
    assert link.times[2] - link.times[0] < 5
    assert pulse.beat_and_wait(5)
    assert pulse.is_heard


def test_while_it_is_missed_nobody_is_told_an_answer(pulse: Pulse, link: Coordinator, heard: Heard) -> None:
    link.errors = [Unreachable("no")] * 50
    pulse.start()
    link.wait_beats(2)
    assert heard.replies == []
    assert not pulse.is_heard


def test_a_void_credential_is_told(pulse: Pulse, link: Coordinator, heard: Heard) -> None:
    link.errors = [Unauthenticated("removed")]
    pulse.start()
    assert heard.void.wait(5)


def test_being_cut_off_is_told_and_it_goes_on_asking(pulse: Pulse, link: Coordinator, heard: Heard) -> None:
    link.errors = [Forbidden("rejected")]
    pulse.start()
    assert heard.cut_off.wait(5)
    assert pulse.beat_and_wait(5)

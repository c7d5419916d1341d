"""When a node must believe that its leases are over."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from worker.fence import Fence


class Silence:
    def __init__(self) -> None:
        self.times: list[float] = []
        self.came = threading.Event()

    def __call__(self) -> None:
        self.times.append(time.monotonic())
        self.came.set()


@pytest.fixture
def silence() -> Silence:
    return Silence()


@pytest.fixture
def fence(silence: Silence) -> Iterator[Fence]:
    made = Fence(silence)
    made.start()
    yield made
    made.close()


def test_silence_is_counted_from_when_the_last_answered_beat_was_sent(fence: Fence, silence: Silence) -> None:
    sent_at = time.monotonic() - 0.1
    fence.acknowledged(sent_at=sent_at, lease_seconds=0.3)
    assert silence.came.wait(5)
    assert silence.times[0] >= sent_at + 0.2


def test_an_answer_pushes_it_away(fence: Fence, silence: Silence) -> None:
    for _ in range(5):
        fence.acknowledged(sent_at=time.monotonic(), lease_seconds=0.3)
        assert not silence.came.wait(0.05)


def test_one_silence_is_told_once_and_the_next_again(fence: Fence, silence: Silence) -> None:
    fence.acknowledged(sent_at=time.monotonic(), lease_seconds=0.03)
    assert silence.came.wait(5)
    silence.came.clear()
    assert not silence.came.wait(0.1)
    fence.acknowledged(sent_at=time.monotonic(), lease_seconds=0.03)
    assert silence.came.wait(5)
    assert len(silence.times) == 2


def test_a_node_that_was_never_answered_has_no_lease_to_lose(fence: Fence, silence: Silence) -> None:
    assert not silence.came.wait(0.1)

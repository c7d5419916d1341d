"""Chance and time of the code under test, taken from the schedule's seed so that a schedule can be played again."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import coordinator.dispatcher
from shared import ids
from shared.clock import FrozenClock


class _Entropy:
    """Stands for `os` in `shared.ids`."""

    def __init__(self, dice: Callable[[], random.Random]) -> None:
        self._dice = dice

    def urandom(self, size: int) -> bytes:
        return self._dice().randbytes(size)


class _Time:
    """Stands for `time` where the code under test measures durations or stamps ids."""

    def __init__(self, clock: FrozenClock) -> None:
        self._clock = clock

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def time_ns(self) -> int:
        return int(self._clock.now().timestamp() * 1e9)


@contextmanager
def played(clock: FrozenClock, dice: Callable[[], random.Random]) -> Iterator[None]:
    """Within the block ids, jitter and durations depend on `clock` and `dice` alone."""
    time = _Time(clock)
    with (
        patch.object(ids, "os", _Entropy(dice)),
        patch.object(ids, "time", time),
        patch.object(ids, "_last", 0),
        patch.object(random, "random", lambda: dice().random()),
        patch.object(coordinator.dispatcher, "time", time),
    ):
        yield

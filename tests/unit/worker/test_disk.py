"""The watch over a computer's disk quota."""

from __future__ import annotations

from collections.abc import Iterator

from worker.computer.contract import ComputerLost
from worker.computer.disk import DiskWatch


def test_a_look_that_fails_is_followed_by_others() -> None:
    looks: Iterator[ComputerLost | int] = iter([ComputerLost("the container is gone"), 2_000])

    def measure() -> int:
        found = next(looks)
        if isinstance(found, ComputerLost):
            raise found
        return found

    with DiskWatch(measure, quota_bytes=1_000) as watch:
        assert watch.over.wait(10)

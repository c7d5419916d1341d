"""The disk watchdog: a soft quota, measured while a command runs and once more when it ended."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from worker.computer.contract import ComputerError

_FIRST_LOOK_SECONDS = 0.5
_SHORTEST_PAUSE_SECONDS = 1.0
_SHARE_OF_TIME = 20
"""Looking may take at most one part in so many of the time, so a huge tree does not keep a core busy."""

Measure = Callable[[], int | None]
"""Bytes used now, or None when it cannot be told at the moment."""


def used_bytes(path: str) -> int | None:
    """Blocks that the tree at `path` takes. `du` copes with any depth and with a tree that changes below it."""
    done = subprocess.run(
        ["du", "-sxk", "--", path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return parse_du(done.stdout)


def parse_du(text: bytes) -> int | None:
    """`du` answers "KIBIBYTES<tab>PATH"; files that vanish meanwhile only cost it its exit code."""
    first = text.split(None, 1)[:1]
    return int(first[0]) * 1024 if first and first[0].isdigit() else None


class DiskWatch:
    """Looks again and again on a thread of its own; sets `over` once the quota is passed."""

    def __init__(self, measure: Measure, quota_bytes: int) -> None:
        self._measure = measure
        self._quota = quota_bytes
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="disk-watch", daemon=True)
        self.over = threading.Event()

    def __enter__(self) -> DiskWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()

    def look(self) -> None:
        used = self._measure()
        if used is not None and used > self._quota:
            self.over.set()

    def _run(self) -> None:
        pause = _FIRST_LOOK_SECONDS
        while not self._stop.wait(pause) and not self.over.is_set():
            began = time.monotonic()
            # A computer that is gone or cannot be asked: the watched command itself tells its caller.
            with suppress(ComputerError):
                self.look()
            pause = max(_SHORTEST_PAUSE_SECONDS, (time.monotonic() - began) * _SHARE_OF_TIME)

"""The watch over our own leases: whoever cannot reach the coordinator must end what it runs before others start it.

Only the monotonic clock counts, and the time at which a heartbeat was *sent*: the coordinator renewed the leases no
earlier than that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

SHARE_OF_LEASE = 2 / 3
"""The rest of the lease is for ending what runs."""

log = structlog.get_logger(__name__)


class Fence:
    """Calls `on_silence` once for each time that no heartbeat was acknowledged for two thirds of a lease."""

    def __init__(self, on_silence: Callable[[], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._on_silence = on_silence
        self._clock = clock
        self._deadline: float | None = None
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="fence", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def acknowledged(self, *, sent_at: float, lease_seconds: float) -> None:
        """A heartbeat that was sent at `sent_at` has been answered."""
        with self._changed:
            self._deadline = sent_at + lease_seconds * SHARE_OF_LEASE
            self._changed.notify()

    def expect(self, until: float) -> None:
        """What runs was acknowledged by the coordinator to an earlier daemon, and is safe until then."""
        with self._changed:
            self._deadline = until
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while self._wait_for_silence():
            log.error("coordinator_silent", doing="ending what runs: the coordinator will give it to other nodes")
            self._on_silence()

    def _wait_for_silence(self) -> bool:
        """True when the deadline has passed; False when the watch ends."""
        with self._changed:
            while not self._closing:
                left = None if self._deadline is None else self._deadline - self._clock()
                if left is not None and left <= 0:
                    self._deadline = None
                    return True
                self._changed.wait(left)
            return False

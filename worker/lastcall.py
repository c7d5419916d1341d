"""The deadline of a drain: what still runs when it is over is handed back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_SAME_SECONDS = 2.0
"""A deadline that is told again, in seconds from now, moves by what the telling took."""


class LastCall:
    """Calls `on_over` once the time is over that was set last."""

    def __init__(self, on_over: Callable[[], None]) -> None:
        self._on_over = on_over
        self._timer: threading.Timer | None = None
        self._at: float | None = None
        self._lock = threading.Lock()

    def set(self, seconds: float | None) -> None:
        """The deadline is so many seconds away; None: there is none."""
        at = None if seconds is None else time.monotonic() + max(0.0, seconds)
        with self._lock:
            if at is not None and self._at is not None and abs(at - self._at) < _SAME_SECONDS:
                return
            if self._timer is not None:
                self._timer.cancel()
            self._at, self._timer = at, None
            if at is not None:
                self._timer = threading.Timer(max(0.0, at - time.monotonic()), self._on_over)
                self._timer.daemon = True
                self._timer.start()

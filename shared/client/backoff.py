"""How long to wait before the next try."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import TypeVar

from shared.client.errors import worth_retrying
from shared.errors import LongshoreError

T = TypeVar("T")


class Interrupted(Exception):
    """The wait between two tries was cut short because the caller is told to stop."""


class Backoff:
    """Growing waits with full jitter, so that a fleet does not come back as one; a success starts it over."""

    def __init__(self, *, base: float = 0.1, cap: float = 5.0) -> None:
        self._base = base
        self._cap = cap
        self._failures = 0

    def next_seconds(self, error: LongshoreError | None = None) -> float:
        """The wait after one more failure; at least what the other side asked for."""
        ceiling = min(self._cap, self._base * 2**self._failures)
        self._failures = min(self._failures + 1, 30)
        asked = error.details.get("retry_after_seconds") if error else None
        return max(float(asked or 0.0), random.uniform(ceiling / 2, ceiling))  # noqa: S311 - jitter, not a secret

    def reset(self) -> None:
        self._failures = 0


def persist(call: Callable[[], T], *, stop: threading.Event, backoff: Backoff | None = None) -> T:
    """Call until it succeeds or fails for good; a `stop` that is set ends the waiting with Interrupted."""
    waits = backoff or Backoff()
    while True:
        try:
            return call()
        except LongshoreError as error:
            if not worth_retrying(error):
                raise
            if stop.wait(waits.next_seconds(error)):
                raise Interrupted from error

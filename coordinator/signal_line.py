"""Signals over the broker that make nobody wait for it: while it is away they are dropped unsent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import redis
import structlog

PROBE_SECONDS = 0.2
PATIENCE_SECONDS = 0.2
"""A signal that waits for longer than this holds back those that come after it."""

T = TypeVar("T")
log = structlog.get_logger(__name__)


class SignalLine:
    """One for a process. When the broker stops answering, only those who are just sending wait, once.

    Losing a signal costs an interval somewhere, never work. Whether the broker has come back is found out by a thread
    that exists only while it is away.
    """

    def __init__(self, client: redis.Redis, *, probe_seconds: float = PROBE_SECONDS) -> None:
        self._client = client
        self._probe_seconds = probe_seconds
        self._lock = threading.Lock()
        self._back = threading.Event()
        self._back.set()
        # When each signal that is under way was sent, oldest first.
        self._sent_at: dict[int, float] = {}

    @property
    def is_away(self) -> bool:
        """Whether the broker did not answer lately, or makes somebody wait now."""
        if not self._back.is_set():
            return True
        with self._lock:
            oldest = next(iter(self._sent_at.values()), None)
        return oldest is not None and time.monotonic() - oldest > PATIENCE_SECONDS

    def send(self, what: str, signal: Callable[[redis.Redis], T]) -> T | None:
        """Send one signal; None when it was dropped. `what` is for the log."""
        if self.is_away:
            return None
        ticket = threading.get_ident()
        with self._lock:
            self._sent_at[ticket] = time.monotonic()
        try:
            return signal(self._client)
        except (redis.RedisError, OSError) as error:
            log.warning("signal.lost", signal=what, error=type(error).__name__)
            self._lost()
            return None
        finally:
            with self._lock:
                self._sent_at.pop(ticket, None)

    def wait_back(self, timeout: float) -> bool:
        """Whether the broker answers, or does so within `timeout`."""
        return self._back.wait(timeout)

    def _lost(self) -> None:
        with self._lock:
            if not self._back.is_set():
                return
            self._back.clear()
        log.warning("broker.away")
        threading.Thread(target=self._probe, name="broker-probe", daemon=True).start()

    def _probe(self) -> None:
        pause = threading.Event()
        while not self._answers():
            pause.wait(self._probe_seconds)
        self._back.set()
        log.info("broker.back")

    def _answers(self) -> bool:
        try:
            self._client.ping()
        except (redis.RedisError, OSError):
            return False
        return True

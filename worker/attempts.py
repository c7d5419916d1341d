"""The attempts that a node holds: claimed and not yet reported. Who runs one asks here whether to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any, Protocol

from shared.contracts.node import JobSpec

_LOOK_AGAIN_SECONDS = 0.1


class Stop(IntEnum):
    """Why an attempt has to stop, the stronger reason winning."""

    hand_back = 1
    """The node drains: report `returned` once the computer is gone."""
    deadline = 2
    """Its job's deadline is over: report `failed` once the computer is gone."""
    cancel = 3
    """Somebody cancelled it: report `cancelled` once the computer is gone."""
    fence = 4
    """The coordinator has not been heard: it will give the work to others, so ours must end. Report `lost`."""
    kill = 5
    """It is not ours (any more): end it, report nothing."""


class Stopped(Exception):
    """Raised between two steps of an attempt that has been told to stop."""


class Lines(Protocol):
    """The log of an attempt, as its end sees it."""

    def finish(self, timeout: float) -> bool:
        """Wait until every line has reached the coordinator; whether that was so within `timeout`."""


class Attempt:
    """One attempt in hand. The thread that runs it reads, others call `stop`."""

    def __init__(
        self,
        *,
        attempt_id: str,
        job_id: str,
        number: int,
        token: str,
        spec: JobSpec,
        deadline: float | None = None,
    ) -> None:
        self.id = attempt_id
        self.job_id = job_id
        self.number = number
        self.token = token
        self.spec = spec
        self.deadline = deadline
        """When its job must be over (monotonic clock)."""
        self.phase = "claimed"
        self.since = time.monotonic()
        self.stopping = threading.Event()
        self.lines: Lines | None = None
        self.computer: Mapping[str, Any] | None = None
        """What it runs in, as its report will say."""
        self._reason: Stop | None = None
        self._end_now: Callable[[], None] | None = None
        self._deadline: threading.Timer | None = None
        self._last_moment: threading.Timer | None = None
        self._lock = threading.Lock()

    @property
    def stop_reason(self) -> Stop | None:
        return self._reason

    def check(self) -> None:
        """Raise Stopped when it has been told to stop."""
        if self.stopping.is_set():
            raise Stopped

    def stop(self, reason: Stop, *, grace_seconds: float) -> None:
        """Ask it to stop; after `grace_seconds` what still runs is killed. A weaker reason changes nothing."""
        with self._lock:
            if self._reason is not None and reason <= self._reason:
                return
            self._reason = reason
            self._cancel_deadline()
            if grace_seconds < self.spec.cancel_grace_seconds:
                # The command was started with the job's own grace; a shorter one is ours to enforce.
                self._deadline = threading.Timer(grace_seconds, self._kill)
                self._deadline.daemon = True
                self._deadline.start()
        self.stopping.set()

    def watch_deadline(self, on_over: Callable[[Attempt], None]) -> None:
        """Have `on_over` called when the job's deadline is over, whoever can be reached then."""
        if self.deadline is not None:
            self._last_moment = threading.Timer(max(0.0, self.deadline - time.monotonic()), on_over, (self,))
            self._last_moment.daemon = True
            self._last_moment.start()

    def is_over(self) -> None:
        """It is reported: no deadline is of interest any more."""
        if self._last_moment is not None:
            self._last_moment.cancel()

    def hurry(self) -> None:
        """Whatever grace there was is over."""
        self._kill()

    def on_kill(self, end_now: Callable[[], None] | None) -> None:
        """What ends the computer's processes at once, while there is a computer."""
        with self._lock:
            self._end_now = end_now
            if end_now is None:
                self._cancel_deadline()

    def _kill(self) -> None:
        with self._lock:
            end_now = self._end_now
        if end_now is not None:
            end_now()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Attempts:
    """All attempts in hand, by id."""

    def __init__(self) -> None:
        self._held: dict[str, Attempt] = {}
        self._expected: set[str] = set()
        self._changed = threading.Condition()
        self._new_ones: Stop | None = None

    def expect(self, attempt_id: str) -> bool:
        """Note that a claim is under way; False when the attempt is in hand or asked for already."""
        with self._changed:
            if attempt_id in self._expected or attempt_id in self._held:
                return False
            self._expected.add(attempt_id)
            return True

    def add(self, attempt: Attempt) -> None:
        """Take a granted attempt in hand."""
        with self._changed:
            self._expected.discard(attempt.id)
            self._held[attempt.id] = attempt
            reason = self._new_ones
        if reason is not None:
            attempt.stop(reason, grace_seconds=0)

    def stop_new(self, reason: Stop) -> None:
        """From now on an attempt that is granted has to stop at once: its claim was under way when the node stopped."""
        with self._changed:
            self._new_ones = reason

    def remove(self, attempt_id: str) -> None:
        """It is reported, or was never granted."""
        with self._changed:
            self._expected.discard(attempt_id)
            attempt = self._held.pop(attempt_id, None)
            self._changed.notify_all()
        if attempt is not None:
            attempt.is_over()

    @property
    def claims_wait(self) -> bool:
        """Whether an answer to a claim is awaited."""
        with self._changed:
            return bool(self._expected)

    def find(self, attempt_id: str) -> Attempt | None:
        with self._changed:
            return self._held.get(attempt_id)

    def all(self) -> list[Attempt]:
        with self._changed:
            return list(self._held.values())

    def held(self) -> list[dict[str, Any]]:
        """What the heartbeat says of them."""
        return [{"attempt_id": item.id, "token": item.token, "phase": item.phase} for item in self.all()]

    def known_ids(self) -> set[str]:
        """Those in hand and those being claimed: their computers must be left alone."""
        with self._changed:
            return {*self._held, *self._expected}

    def wait_empty(self, timeout: float | None) -> bool:
        """Whether nothing was in hand or being claimed within `timeout`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._held and not self._expected, timeout)

    def wait_until(self, probe: Callable[[], bool], timeout: float) -> bool:
        """Whether `probe` became true within `timeout`; asked again and again, for phases change without a word."""
        give_up = time.monotonic() + timeout
        while not (is_true := probe()) and time.monotonic() < give_up:
            with self._changed:
                self._changed.wait(_LOOK_AGAIN_SECONDS)
        return is_true

    def __len__(self) -> int:
        return len(self._held)

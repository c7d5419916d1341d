"""Log lines on their way to the coordinator: bounded in memory, in order, in batches, never left out silently."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from shared.client.backoff import Backoff, Interrupted, persist
from shared.client.errors import Unreachable
from shared.errors import LongshoreError
from worker.attempts import Attempt

BATCH_LINES = 500
BATCH_BYTES = 512 * 1024
OVERHEAD = 200
"""Bytes that a line costs beside its text, in memory and on the wire."""

log = structlog.get_logger(__name__)


class Link(Protocol):
    """What the shipper needs of the node's HTTP client."""

    def send_lines(self, lines: Sequence[dict[str, Any]]) -> list[str]: ...


@dataclass(slots=True)
class _Line:
    log: AttemptLog
    offset: int
    stream: str
    level: str
    message: str
    seen_at: float

    @property
    def size(self) -> int:
        return len(self.message) + OVERHEAD


class AttemptLog:
    """The log of one attempt. One thread writes it."""

    def __init__(self, shipper: LogShipper, attempt: Attempt) -> None:
        self.attempt = attempt
        self.unsent = 0
        self.left_out = 0
        self._shipper = shipper
        self._offset = 0

    def write(self, stream: str, level: str, message: str) -> None:
        """Add a line. Waits a little when too much is unsent, then leaves lines out, and says later how many."""
        if self.left_out and self._shipper.has_room:
            self._tell_left_out(must=False)
        self._put(stream, level, message)

    def finish(self, timeout: float) -> bool:
        """Wait until every line has reached the coordinator; whether that was so within `timeout`."""
        if self.left_out:
            self._tell_left_out(must=True)
        return self._shipper.wait_for(self, timeout)

    def _tell_left_out(self, *, must: bool) -> None:
        """In place of the last of them, so that a line has the same number whether others got through or not."""
        message = f"{self.left_out} lines were left out here: the coordinator did not take them"
        if self._shipper.put(self._line(self._offset - 1, "system", "warning", message), must=must):
            self.left_out = 0

    def _put(self, stream: str, level: str, message: str) -> None:
        if not self._shipper.put(self._line(self._offset, stream, level, message), may_wait=not self.left_out):
            self.left_out += 1
        self._offset += 1

    def _line(self, offset: int, stream: str, level: str, message: str) -> _Line:
        return _Line(self, offset, stream, level, message, time.monotonic())


class LogShipper:
    """One thread that sends the lines of all attempts; `on_stale` hears of attempts that are no longer ours."""

    def __init__(self, link: Link, *, max_bytes: int, patience_seconds: float, on_stale: Callable[[str], None]) -> None:
        self._link = link
        self._max_bytes = max_bytes
        self._patience = patience_seconds
        self._on_stale = on_stale
        self._waiting: deque[_Line] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._closing = False
        self._give_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-lines", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def open(self, attempt: Attempt) -> AttemptLog:
        return AttemptLog(self, attempt)

    @property
    def has_room(self) -> bool:
        return self._bytes < self._max_bytes

    def put(self, line: _Line, *, may_wait: bool = True, must: bool = False) -> bool:
        """Queue a line; False when there was no room for it, not even after some patience."""
        with self._changed:
            if not self.has_room and not must:
                if not may_wait or not self._changed.wait_for(lambda: self.has_room or self._closing, self._patience):
                    return False
                if self._closing:
                    return False
            self._waiting.append(line)
            self._bytes += line.size
            line.log.unsent += 1
            self._changed.notify_all()
            return True

    def wait_for(self, attempt_log: AttemptLog, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not attempt_log.unsent or self._closing, timeout)

    def close(self, timeout: float) -> None:
        """Send what waits for up to `timeout`, then end."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        self._give_up.set()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            self._send(batch)
            with self._changed:
                for line in batch:
                    line.log.unsent -= 1
                    self._bytes -= line.size
                self._changed.notify_all()

    def _next_batch(self) -> list[_Line]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            batch: list[_Line] = []
            size = 0
            while self._waiting and len(batch) < BATCH_LINES and (not batch or size < BATCH_BYTES):
                line = self._waiting.popleft()
                size += line.size
                batch.append(line)
            return batch

    def _send(self, batch: Sequence[_Line]) -> None:
        try:
            stale = persist(lambda: self._ask(batch), stop=self._give_up, backoff=Backoff())
        except Interrupted:
            log.warning("log_lines_not_sent", lines=len(batch))
        except LongshoreError as error:
            log.error("log_lines_refused", lines=len(batch), code=error.code, error=error.message)
        else:
            for attempt_id in stale:
                self._on_stale(attempt_id)

    def _ask(self, batch: Sequence[_Line]) -> list[str]:
        try:
            return self._link.send_lines(_told(batch))
        except (ValueError, TypeError, AttributeError) as error:
            # Something in between answers in the coordinator's place.
            raise Unreachable(f"the coordinator's answer makes no sense: {error}") from error


def _told(batch: Sequence[_Line]) -> list[dict[str, Any]]:
    now = time.monotonic()
    return [
        {
            "attempt_id": line.log.attempt.id,
            "token": line.log.attempt.token,
            "offset": line.offset,
            "stream": line.stream,
            "level": line.level,
            "message": line.message,
            "age_ms": int((now - line.seen_at) * 1000),
        }
        for line in batch
    ]

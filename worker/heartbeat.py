"""The heartbeat: one loop, its own thread, its own connection. It tells how we are and learns what is wanted."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Protocol

import structlog

from shared.client.backoff import Backoff
from shared.client.errors import Unreachable
from shared.contracts.node import Heartbeat, HeartbeatReply
from shared.errors import Forbidden, LongshoreError, Unauthenticated

BEFORE_FIRST_REPLY = 10.0
JITTER = 0.1
TIMEOUT = 5.0

log = structlog.get_logger(__name__)


class Link(Protocol):
    """What the heartbeat needs of the node's HTTP client."""

    def heartbeat(self, told: Heartbeat, *, timeout: float) -> HeartbeatReply: ...


class Pulse:
    """Beats every so often, and at once on `now`. `on_reply` gets each answer with the time when it was asked for."""

    def __init__(
        self,
        link: Link,
        *,
        tell: Callable[[], Heartbeat],
        on_reply: Callable[[HeartbeatReply, float], None],
        on_void: Callable[[], None],
        on_cut_off: Callable[[], None],
    ) -> None:
        self._link = link
        self._tell = tell
        self._on_cut_off = on_cut_off
        self._on_reply = on_reply
        self._on_void = on_void
        self._every = BEFORE_FIRST_REPLY
        self._backoff = Backoff(base=0.2, cap=BEFORE_FIRST_REPLY)
        self._changed = threading.Condition()
        self._asked = 0
        self._answered = 0
        self._closing = False
        self._is_heard = False
        self._last_success: float | None = None
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_heard(self) -> bool:
        """Whether the last beat was answered."""
        return self._is_heard

    def now(self) -> None:
        """Beat at once: something has changed, here or there."""
        with self._changed:
            self._asked += 1
            self._changed.notify_all()

    def beat_and_wait(self, timeout: float) -> bool:
        """Beat at once; whether it was answered within `timeout`."""
        with self._changed:
            self._asked += 1
            wanted = self._asked
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._answered >= wanted or self._closing, timeout)

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(TIMEOUT)

    def _run(self) -> None:
        while not self._closing:
            with self._changed:
                asked = self._asked
            pause = self._beat(asked)
            with self._changed:
                self._changed.wait_for(lambda seen=asked: self._asked > seen or self._closing, pause)  # type: ignore[misc]

    def _beat(self, asked: int) -> float:
        """One beat; how long to wait until the next."""
        sent_at = time.monotonic()
        try:
            reply = self._ask(self._tell())
        except Unauthenticated as error:
            log.error("credential_refused", error=error.message)
            self._on_void()
            return BEFORE_FIRST_REPLY
        except Forbidden as error:
            self._say_missed(error)
            self._on_cut_off()
            return self._every
        except LongshoreError as error:
            self._say_missed(error)
            return min(self._backoff.next_seconds(error), self._every)
        self._backoff.reset()
        self._is_heard = True
        self._last_success = sent_at
        self._every = reply.heartbeat_seconds
        self._on_reply(reply, sent_at)
        with self._changed:
            self._answered = max(self._answered, asked)
            self._changed.notify_all()
        return self._every * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - jitter, not a secret

    def _ask(self, told: Heartbeat) -> HeartbeatReply:
        try:
            return self._link.heartbeat(told, timeout=TIMEOUT)
        except (ValueError, TypeError, AttributeError) as error:
            # Something in between answers in the coordinator's place.
            raise Unreachable(f"the coordinator's answer makes no sense: {error}") from error

    def _say_missed(self, error: LongshoreError) -> None:
        self._is_heard = False
        silent = None if self._last_success is None else round(time.monotonic() - self._last_success, 1)
        log.warning("heartbeat_missed", error=error.message, last_answer_seconds_ago=silent)

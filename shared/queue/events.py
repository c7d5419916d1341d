"""Task events for Flower, sent by hand: many events in one message instead of three messages a ticket.

Celery's own task events cost more than the ticket itself. What is sent here is what Celery's `-E` would send, in the
list form that every receiver of events reads.
"""

from __future__ import annotations

import base64
import os
import threading
import time
from collections import deque
from itertools import count
from typing import Any

import orjson
import structlog
from redis import Redis, RedisError

from shared.ids import new_id
from shared.queue.names import RUN

EXCHANGE = "celeryev"
ROUTING_KEY = "task.multi"

_FLUSH_SECONDS = 0.1
_BATCH = 200
_BUFFER = 10_000

log = structlog.get_logger(__name__)


def hours_west() -> float:
    """How receivers want to be told of a sender's time zone; Celery's own answer costs an import of half of Celery."""
    return -time.localtime().tm_gmtoff / 3600


class TaskEvents:
    """Collects events from many threads; one thread of its own sends them, at most every tenth of a second.

    Events are for onlookers. When the broker does not take them the oldest are dropped, and the log says how many.
    """

    def __init__(self, client: Redis, *, hostname: str, database: int) -> None:
        self._client = client
        self._channel = f"/{database}.{EXCHANGE}/{ROUTING_KEY}"
        # Receivers order events by a logical clock, not by the clocks of nodes.
        self._clock = count(1)
        self._base = {"hostname": hostname, "pid": os.getpid(), "utcoffset": hours_west()}
        self._waiting: deque[dict[str, Any]] = deque()
        self._dropped = 0
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="task-events", daemon=True)
        self._thread.start()

    def started(self, attempt: str, *, args: str, received_at: float) -> None:
        """The claim of the ticket that came at `received_at` was granted; `args` is what people read."""
        named = {"name": RUN, "args": args, "kwargs": "", "root_id": attempt, "retries": 0}
        self._add("task-received", attempt, timestamp=received_at, **named)
        self._add("task-started", attempt)

    def succeeded(self, attempt: str, *, runtime: float) -> None:
        self._add("task-succeeded", attempt, runtime=runtime, result="'succeeded'")

    def failed(self, attempt: str, *, exception: str, runtime: float) -> None:
        self._add("task-failed", attempt, exception=exception, traceback="", runtime=runtime)

    def rejected(self, attempt: str, *, args: str) -> None:
        """The claim was refused: the ticket was a duplicate, or out of date.

        It stands alone: a receiver that has heard of the receipt takes a rejection for the older news.
        """
        self._add("task-rejected", attempt, name=RUN, args=args, kwargs="", root_id=attempt, requeue=False)

    def revoked(self, attempt: str) -> None:
        """The attempt was cancelled."""
        self._add("task-revoked", attempt, terminated=True, signum=15, expired=False)

    def close(self, timeout: float = 3.0) -> None:
        """Send what waits, then end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)

    def _add(self, kind: str, attempt: str, **fields: Any) -> None:
        moment = {"timestamp": time.time(), "clock": next(self._clock)}
        event = {"type": kind, "uuid": attempt, **moment, **self._base, **fields}
        with self._changed:
            self._waiting.append(event)
            if len(self._waiting) > _BUFFER:
                self._waiting.popleft()
                self._dropped += 1
            if len(self._waiting) in (1, _BATCH):
                self._changed.notify()

    def _run(self) -> None:
        while batch := self._next_batch():
            self._send(batch)

    def _next_batch(self) -> list[dict[str, Any]]:
        """Some events, once there are any; none when it is time to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if not self._closing:
                self._changed.wait_for(lambda: len(self._waiting) >= _BATCH or self._closing, _FLUSH_SECONDS)
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH))]

    def _send(self, batch: list[dict[str, Any]]) -> None:
        try:
            self._client.publish(self._channel, _message(batch, str(self._base["hostname"])))
        except RedisError as error:
            self._dropped += len(batch)
            log.warning("events_not_sent", dropped=self._dropped, error=str(error))


def _message(batch: list[dict[str, Any]], hostname: str) -> bytes:
    return orjson.dumps(
        {
            "body": base64.b64encode(orjson.dumps(batch)).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"hostname": hostname},
            "properties": {
                "delivery_mode": 1,
                "delivery_info": {"exchange": EXCHANGE, "routing_key": ROUTING_KEY},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": new_id(),
            },
        }
    )

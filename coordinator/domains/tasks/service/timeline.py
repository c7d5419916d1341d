"""What happened to a task or an execution, in order, read now or waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from coordinator.domains.queue import service as queue
from coordinator.domains.queue.service import ENDED, JobEvent
from coordinator.resources import Resources
from coordinator.store.database import Transaction
from shared.errors import NotFound

LOOK_AGAIN_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Timeline:
    """A stretch of events. `done`: the work has ended and these are its last events."""

    events: Sequence[JobEvent]
    next_after: int
    done: bool


class Waiter(Protocol):
    """Waits until there may be news of a job, or until the time is up; holds no database connection meanwhile."""

    def __call__(self, resources: Resources, job_id: str, after: int, seconds: float, /) -> float:
        """Wait for news behind sequence number `after`; answers the seconds that were waited."""


def read(tx: Transaction, space: str, kind: str, job_id: str, *, after: int, limit: int) -> Timeline:
    """The events behind sequence number `after`, at most `limit`."""
    # The state is read before the events: an end that comes between the two reads is told the next time.
    job = queue.standing(tx, job_id)
    if job is None or job.space != space or job.kind != kind:
        raise NotFound(f"there is no such {kind}", id=job_id)
    events = queue.events_after(tx, job_id, after, limit)
    return Timeline(events, events[-1].id if events else after, job.state in ENDED and len(events) < limit)


def follow(look: Callable[[], Timeline], wait: Callable[[float], float], seconds: float) -> Timeline:
    """Look at once, and again whenever waiting was worth it, until there is news, an end, or no time left."""
    found = look()
    left = seconds
    while not found.events and not found.done and left > 0:
        left -= max(wait(left), 0.001)
        found = look()
    return found


def _look_again_soon(_resources: Resources, _job_id: str, _after: int, seconds: float) -> float:
    """The waiter without a live stream: a short pause, whatever happens."""
    pause = min(seconds, LOOK_AGAIN_SECONDS)
    threading.Event().wait(pause)
    return pause


_waiter: Waiter = _look_again_soon


def plug_waiter(waiter: Waiter) -> None:
    """From now on wait with `waiter`, which hears of news; the process's start-up calls this."""
    global _waiter
    _waiter = waiter


def wait_for_news(resources: Resources, job_id: str, after: int, seconds: float) -> float:
    """Wait as the plugged waiter does."""
    return _waiter(resources, job_id, after, seconds)

"""Waiting for news of a job in a request, without a database connection and without asking over and over."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from coordinator.domains.live.follower import follower_of
from coordinator.domains.queue import service as queue
from coordinator.domains.queue.service import ENDED, JobEvent
from coordinator.resources import Resources
from shared.errors import Unavailable

__all__ = ["release_all", "wait_for_events", "wait_for_news"]

_lock = threading.Lock()
_waiting: set[threading.Event] = set()
_released = False


def wait_for_events(resources: Resources, job_id: str, after: int, limit: int, seconds: float) -> list[JobEvent]:
    """The timeline behind `after`, waited for when there is nothing yet; empty when time is up or the job has ended."""
    found, over = _read(resources, job_id, after, limit)
    if not found and not over and seconds > 0:
        wait_for_news(resources, job_id, after, seconds)
        found, _ = _read(resources, job_id, after, limit)
    return found


def wait_for_news(resources: Resources, job_id: str, after: int, seconds: float) -> float:
    """Wait until the job's timeline goes on behind `after`, or for so many seconds; answers how many it were.

    When the process is stopping the answer is all of them, whatever the clock says: nobody is to wait again.
    """
    began = time.monotonic()
    with _place(resources) as news:

        def told(lines: Sequence[JobEvent]) -> None:
            if lines[-1].id > after:
                news.set()

        leave = follower_of(resources).watch_job(job_id, after, told)
        try:
            news.wait(seconds)
        finally:
            leave()
    return seconds if _released else time.monotonic() - began


def release_all() -> None:
    """Let everybody who waits go on, now and from now on: the process is about to stop."""
    global _released
    with _lock:
        _released = True
        for news in _waiting:
            news.set()


@contextmanager
def _place(resources: Resources) -> Iterator[threading.Event]:
    """One of the few places for waiting: each holds a thread of the web server, and plain requests need some too."""
    settings = resources.settings
    news = threading.Event()
    with _lock:
        if len(_waiting) >= max(1, settings.web_threads - settings.live_reserved_threads):
            raise Unavailable("too many requests wait for news; ask again", retry_after_seconds=1)
        if _released:
            news.set()
        _waiting.add(news)
    try:
        yield news
    finally:
        with _lock:
            _waiting.discard(news)


def _read(resources: Resources, job_id: str, after: int, limit: int) -> tuple[list[JobEvent], bool]:
    with resources.database.read() as tx:
        job = queue.standing(tx, job_id)
        return queue.events_after(tx, job_id, after, limit), job is None or job.state in ENDED

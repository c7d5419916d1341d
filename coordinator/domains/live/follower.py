"""One reader a process: follows the events and the timelines that somebody watches, for all who watch them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import redis
import structlog

from coordinator.domains.live.tail import Tail
from coordinator.domains.live.words import Told, told
from coordinator.domains.queue import service as queue
from coordinator.domains.queue.service import Event, JobEvent
from coordinator.resources import Bell, Resources
from coordinator.store.database import Database, Transaction
from shared.errors import LongshoreError, Unavailable
from shared.queue.names import LIVE_CHANNEL

PAGE = 500
LOOK_BACK = 200
"""Ids looked at when following begins, to find those still missing among them."""
POLL_SECONDS = 1.0
POLL_WITHOUT_REDIS_SECONDS = 0.25
QUICK_POLL_SECONDS = 0.05
UNRUNG_SECONDS = Bell.PAUSE_SECONDS + 0.2
"""For so long after somebody began to listen, writers may believe that nobody does."""
BREATH_SECONDS = 0.01
"""Pause after a look: what is written meanwhile shares the next one."""
LINGER_SECONDS = 5.0
"""How long the ear stays open when nobody watches any more, since often somebody soon does."""
START_SECONDS = 5.0

log = structlog.get_logger(__name__)

TellEvents = Callable[[Sequence[Told]], None]
TellLines = Callable[[Sequence[JobEvent]], None]
Leave = Callable[[], None]


@dataclass(slots=True, eq=False)
class _Watcher:
    """Somebody who watches a job and was told its timeline up to `place`."""

    place: int
    tell: TellLines


class Follower:
    """Looks when it is rung for, now and then by itself, and not at all while nobody watches.

    What is handed to `watch_…` is called on the follower's own thread and must not block.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._lock = threading.Lock()
        self._jobs: dict[str, list[_Watcher]] = {}
        self._events: list[TellEvents] = []
        self._tail: Tail | None = None
        self._tail_is_set = threading.Event()
        self._wake = threading.Event()
        self._wanted = threading.Event()
        self._stopped = threading.Event()
        self._idle_since = 0.0
        self._hears = False
        self._unrung_until = 0.0
        self._threads: list[threading.Thread] = []

    def watch_events(self, tell: TellEvents) -> Leave:
        """Tell every event that commits from now on. Returns when "now" is settled; Unavailable when it cannot be."""
        with self._lock:
            self._events.append(tell)
            self._want()
        if not self._tail_is_set.wait(START_SECONDS):
            self._forget_events(tell)
            raise Unavailable("the events cannot be read now")
        return partial(self._forget_events, tell)

    def watch_job(self, job_id: str, after: int, tell: TellLines) -> Leave:
        """Tell the rows of a job's timeline behind `after`, those that are there already included.

        A row may be told twice, and rows from before `after` may be told, but none is left out.
        """
        watcher = _Watcher(after, tell)
        with self._lock:
            self._jobs.setdefault(job_id, []).append(watcher)
            self._want()
        return partial(self._forget_job, job_id, watcher)

    def stop(self) -> None:
        """End both threads; returns when they have ended. Nobody is told anything any more."""
        self._stopped.set()
        self._wanted.set()
        self._wake.set()
        for thread in self._threads:
            thread.join()

    def _want(self) -> None:
        if not self._threads:
            self._threads = [
                threading.Thread(target=self._follow, name="follower", daemon=True),
                threading.Thread(target=self._listen, name="follower's ear", daemon=True),
            ]
            for thread in self._threads:
                thread.start()
        self._wanted.set()
        self._wake.set()

    def _forget_events(self, tell: TellEvents) -> None:
        with self._lock:
            self._events.remove(tell)
            if not self._events:
                self._tail = None
                self._tail_is_set.clear()
            self._rest()

    def _forget_job(self, job_id: str, watcher: _Watcher) -> None:
        with self._lock:
            self._jobs[job_id].remove(watcher)
            if not self._jobs[job_id]:
                del self._jobs[job_id]
            self._rest()

    def _rest(self) -> None:
        if not self._events and not self._jobs and not self._stopped.is_set():
            self._wanted.clear()
            self._idle_since = time.monotonic()

    # ---- looking

    def _follow(self) -> None:
        while not self._stopped.is_set():
            self._wanted.wait()
            self._wake.wait(self._patience())
            self._wake.clear()
            self._stopped.wait(BREATH_SECONDS if self._looked() else POLL_SECONDS)

    def _looked(self) -> bool:
        """Read and tell everything there is; whether that went well. Without its reader every socket falls silent."""
        try:
            while not self._stopped.is_set() and self._look():
                pass
        except LongshoreError as error:
            log.warning("follower.look_failed", error=error.message, **error.details)
        except Exception as error:
            log.error("follower.look_failed", exc_info=error)
        else:
            return True
        self._wake.set()
        return False

    def _patience(self) -> float:
        if not self._hears:
            return POLL_WITHOUT_REDIS_SECONDS
        return QUICK_POLL_SECONDS if time.monotonic() < self._unrung_until else POLL_SECONDS

    def _look(self) -> bool:
        """Read and tell what is new; whether there may be more at once."""
        with self._lock:
            places = {job_id: min(one.place for one in watchers) for job_id, watchers in self._jobs.items()}
            follows_events, tail = bool(self._events), self._tail
        if not places and not follows_events:
            return False
        events: list[Event] = []
        lines: list[JobEvent] = []
        with self._resources.database.read() as tx:
            if follows_events and tail is None:
                self._begin(tx)
            elif follows_events and tail is not None:
                events = _news(tx, tail)
            if places:
                lines = queue.timelines_beyond(tx, places, PAGE)
        self._tell_events(events)
        self._tell_lines(lines, places)
        return len(events) >= PAGE or len(lines) >= PAGE

    def _begin(self, tx: Transaction) -> None:
        tail = Tail(queue.newest_event_ids(tx, LOOK_BACK), time.monotonic())
        with self._lock:
            if self._events:
                self._tail = tail
                self._tail_is_set.set()

    def _tell_events(self, events: Sequence[Event]) -> None:
        if events:
            with self._lock:
                listeners = list(self._events)
            news = [told(event) for event in events]
            for tell in listeners:
                tell(news)

    def _tell_lines(self, lines: Sequence[JobEvent], read_from: dict[str, int]) -> None:
        by_job: dict[str, list[JobEvent]] = {}
        for line in lines:
            by_job.setdefault(line.job_id, []).append(line)
        for job_id, mine in by_job.items():
            with self._lock:
                # Who came meanwhile and wants more of the past than was read hears nothing yet: told these rows now,
                # they would take the ones before them for heard. The next look begins at their place.
                ready = [one for one in self._jobs.get(job_id, ()) if one.place >= read_from[job_id]]
                for one in ready:
                    one.place = max(one.place, mine[-1].id)
            for one in ready:
                one.tell(mine)

    # ---- listening

    def _listen(self) -> None:
        """Turn rings into wake-ups; without Redis the poll is quicker instead."""
        while not self._stopped.is_set():
            self._wanted.wait()
            try:
                self._hear()
            except (redis.RedisError, OSError) as error:
                log.warning("follower.deaf", error=type(error).__name__)
            except Exception as error:
                log.error("follower.deaf", exc_info=error)
            self._hears = False
            self._stopped.wait(POLL_SECONDS)

    def _hear(self) -> None:
        pubsub: Callable[..., Any] = self._resources.redis.pubsub
        with pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe(LIVE_CHANNEL)
            self._unrung_until = time.monotonic() + UNRUNG_SECONDS
            self._hears = True
            self._wake.set()
            while self._is_worth_hearing():
                if channel.get_message(timeout=1.0) is not None:
                    self._wake.set()

    def _is_worth_hearing(self) -> bool:
        if self._stopped.is_set():
            return False
        return self._wanted.is_set() or time.monotonic() - self._idle_since < LINGER_SECONDS


def _news(tx: Transaction, tail: Tail) -> list[Event]:
    late = queue.events_within(tx, tail.gaps)
    fresh = queue.events_beyond(tx, tail.cursor, PAGE)
    tail.fill(event.id for event in late)
    tail.advance((event.id for event in fresh), time.monotonic())
    return [*late, *fresh]


_followers: dict[Database, Follower] = {}
_followers_lock = threading.Lock()


def follower_of(resources: Resources) -> Follower:
    """The process's one follower of this database."""
    with _followers_lock:
        if resources.database not in _followers:
            _followers[resources.database] = Follower(resources)
        return _followers[resources.database]

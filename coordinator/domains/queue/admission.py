"""How much may wait: work beyond it is refused before any of it is accepted.

A limit is held against a count of the index's entries, kept for a while by each process, with what the process has
accepted since added. Up to 20,000 waiting jobs it is counted whenever a request could come near the limit, so that only
requests running at the same time can go over it together. Of more, a process reads at most 200,000 entries a second:
what others accept in the meantime (five seconds at a million) may come on top, and room that has become free is seen as
much later.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from sqlalchemy import ColumnElement, Select, and_, func, literal_column, select

from coordinator.config import Settings
from coordinator.domains.queue.models import demands, jobs
from coordinator.resources import Resources
from coordinator.store.database import Database, Transaction
from shared.errors import LimitReached

KINDS = ("task", "execution")
"""All kinds of jobs. The index that counts a space's jobs has the kind before the state."""
EXACT_BELOW = 20_000
ENTRIES_PER_SECOND = 200_000
STALE_SECONDS = 5.0
RETRY_AFTER_SECONDS = 5.0


class Asked(Protocol):
    """The part of new work that limits look at."""

    @property
    def space(self) -> str: ...

    @property
    def agent_id(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `most` jobs may wait: in the whole queue, of one space or of one agent."""

    which: str
    subject: str
    most: int

    @property
    def in_words(self) -> str:
        return f"{self.which} {self.subject}" if self.subject else f"the {self.which}"


@dataclass(frozen=True, slots=True)
class Count:
    """How many were waiting at a moment, and how many this process has accepted since."""

    waiting: int
    at: datetime
    accepted: int = 0

    @property
    def total(self) -> int:
        return self.waiting + self.accepted

    def is_due(self, now: datetime, *, asked: int, most: int) -> bool:
        """Whether it has to be counted anew before `asked` more can be judged."""
        age = (now - self.at).total_seconds()
        rest = 0.0 if self.waiting <= EXACT_BELOW else self.waiting / ENTRIES_PER_SECOND
        is_near = self.accepted + asked > (most - self.waiting) / 4
        return age > STALE_SECONDS + 10 * rest or (is_near and age >= rest)


class _Counts:
    """What a process remembers of one database."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], Count] = {}

    def known(self, limit: Limit) -> Count | None:
        with self._lock:
            return self._known.get((limit.which, limit.subject))

    def counted(self, limit: Limit, waiting: int, now: datetime) -> Count:
        fresh = Count(waiting, now)
        with self._lock:
            self._known[limit.which, limit.subject] = fresh
        return fresh

    def accepted(self, limit: Limit, count: int) -> None:
        key = (limit.which, limit.subject)
        with self._lock:
            if (known := self._known.get(key)) is not None:
                self._known[key] = replace(known, accepted=known.accepted + count)


_of_databases: WeakKeyDictionary[Database, _Counts] = WeakKeyDictionary()


def require_room(tx: Transaction, resources: Resources, new: Sequence[Asked]) -> None:
    """LimitReached when the queue, a space or an agent would have more work waiting than it may, with all of `new`."""
    counts = _of_databases.setdefault(resources.database, _Counts())
    asked = list(_asked(resources.settings, new))
    for limit, count in asked:
        known = counts.known(limit)
        if known is None or known.is_due(tx.now, asked=count, most=limit.most):
            known = counts.counted(limit, _count(tx, limit), tx.now)
        if known.total + count > limit.most:
            raise _refusal(limit, known.total, count)

    def remember() -> None:
        for limit, count in asked:
            counts.accepted(limit, count)

    tx.after_commit(remember)


def _asked(settings: Settings, new: Sequence[Asked]) -> Iterator[tuple[Limit, int]]:
    """Each limit that the new work comes under, and how much of it does."""
    yield Limit("queue", "", settings.queue_max_waiting), len(new)
    if settings.space_max_waiting:
        for space, count in sorted(Counter(item.space for item in new).items()):
            yield Limit("space", space, settings.space_max_waiting), count
    if settings.agent_max_waiting:
        agents = Counter(item.agent_id for item in new if item.agent_id is not None)
        for agent_id, count in sorted(agents.items()):
            yield Limit("agent", agent_id, settings.agent_max_waiting), count


def _refusal(limit: Limit, waiting: int, asked: int) -> LimitReached:
    return LimitReached(
        f"{limit.in_words} has {waiting} jobs waiting and may have {limit.most}; nothing of this request was accepted",
        which=limit.which,
        subject=limit.subject or None,
        limit=limit.most,
        waiting=waiting,
        asked=asked,
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )


def _count(tx: Transaction, limit: Limit) -> int:
    """How many wait, counted in an index and no further than the limit needs."""
    return tx.conn.scalar(counting(limit)) or 0


def counting(limit: Limit) -> Select[Any]:
    """The statement that counts what waits under a limit."""
    enough = max(limit.most + 1, EXACT_BELOW)
    found: Select[Any] = select(literal_column("1")).select_from(jobs).where(_waits(limit)).limit(enough)
    return select(func.count()).select_from(found.subquery())


def _waits(limit: Limit) -> ColumnElement[bool]:
    # The state stands in the text, because a partial index serves only a condition that the planner can see.
    queued = jobs.c.state == literal_column("'queued'")
    if limit.which == "space":
        return and_(jobs.c.space == limit.subject, jobs.c.kind.in_(KINDS), queued)
    if limit.which == "agent":
        return and_(queued, jobs.c.demand_id.in_(select(demands.c.id).where(demands.c.agent_id == limit.subject)))
    return queued

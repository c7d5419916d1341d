"""What followers read: events behind a place in their table, timelines of several jobs at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, or_, select

from coordinator.domains.queue.models import BigId, events, job_events, jobs
from coordinator.domains.queue.states import JobState
from coordinator.domains.queue.store import JobEvent
from coordinator.store.database import Transaction
from coordinator.store.rowset import rowset


@dataclass(frozen=True, slots=True)
class Event:
    """A consequence for others: `task.completed`, `worker.online`, …"""

    id: int
    at: datetime
    space: str
    type: str
    subject_id: str | None
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Standing:
    """Whose a job is and where it stands."""

    space: str
    kind: str
    state: JobState
    agent_id: str | None


def newest_event_ids(tx: Transaction, limit: int) -> list[int]:
    """The greatest ids of events, ascending."""
    found = tx.conn.scalars(select(events.c.id).order_by(events.c.id.desc()).limit(limit))
    return sorted(found)


def events_beyond(tx: Transaction, after: int, limit: int) -> list[Event]:
    """Events with ids greater than `after`, ascending. On PostgreSQL a smaller id may still become visible later."""
    return _events(tx, select(events).where(events.c.id > after).order_by(events.c.id).limit(limit))


def events_within(tx: Transaction, ranges: Sequence[tuple[int, int]]) -> list[Event]:
    """Events whose ids lie in one of the ranges, ends included, ascending."""
    if not ranges:
        return []
    inside = or_(*(events.c.id.between(low, high) for low, high in ranges))
    return _events(tx, select(events).where(inside).order_by(events.c.id))


def timelines_beyond(tx: Transaction, places: Mapping[str, int], limit: int) -> list[JobEvent]:
    """Timeline rows of each of these jobs behind its place, ascending. Of one job no smaller id ever comes later."""
    kinds = {"job_id": jobs.c.id.type, "place": BigId}
    wanted = rowset(tx.conn, "wanted", kinds, ({"job_id": key, "place": value} for key, value in places.items()))
    query = (
        select(job_events)
        .join(wanted, job_events.c.job_id == wanted.c.job_id)
        .where(job_events.c.id > wanted.c.place)
        .order_by(job_events.c.id)
        .limit(limit)
    )
    return [
        JobEvent(r.id, r.job_id, r.attempt_number, r.at, r.type, r.level, r.stream, r.message, r.data)
        for r in tx.conn.execute(query)
    ]


def standing(tx: Transaction, job_id: str) -> Standing | None:
    """Where a job stands, None when there is no such job."""
    row = tx.conn.execute(
        select(jobs.c.space, jobs.c.kind, jobs.c.state, jobs.c.agent_id).where(jobs.c.id == job_id)
    ).one_or_none()
    return None if row is None else Standing(row.space, row.kind, JobState(row.state), row.agent_id)


def _events(tx: Transaction, query: Select[Any]) -> list[Event]:
    return [Event(r.id, r.at, r.space, r.type, r.subject_id, r.data) for r in tx.conn.execute(query)]

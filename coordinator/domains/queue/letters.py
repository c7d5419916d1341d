"""Dead letters as others may see them: what is open, why, for how long. What is done about them is in `redriving`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self

from sqlalchemy import ColumnElement, Row, and_, func, literal_column, select, union_all

from coordinator.domains.queue.models import dead_letters, job_events, jobs
from coordinator.domains.queue.rows import JOB_FIELDS, Job, job_of, select_jobs
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest, fetch_page

LAST_LINES = 40
LONGEST_LAST_WORDS = 8_000


@dataclass(frozen=True, slots=True)
class Letter:
    """A job that died and that no admin has decided about. Known by the id of its job."""

    job_id: str
    reason_code: str
    error: Mapping[str, Any] | None
    note: str | None
    created_by: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which letters are meant; what is None does not matter."""

    reason: str | None = None
    agent_id: str | None = None
    kind: str | None = None
    priority: int | None = None
    before: datetime | None = None
    since: datetime | None = None

    def no_later_than(self, moment: datetime) -> Self:
        """The same, without what is younger than `moment`."""
        return replace(self, before=moment if self.before is None else min(self.before, moment))

    def conditions(self) -> list[ColumnElement[bool]]:
        asked = {"reason_code": self.reason, "agent_id": self.agent_id, "kind": self.kind, "priority": self.priority}
        where: list[ColumnElement[bool]] = [
            dead_letters.c[name] == value for name, value in asked.items() if value is not None
        ]
        if self.before is not None:
            where.append(dead_letters.c.created_at <= self.before)
        if self.since is not None:
            where.append(dead_letters.c.created_at >= self.since)
        return where


@dataclass(frozen=True, slots=True)
class LetterCount:
    """So many open letters share these."""

    priority: int
    reason_code: str
    agent_id: str | None
    count: int
    oldest: datetime


@dataclass(frozen=True, slots=True)
class Candidate:
    """A dead job with an open letter, locked. `letter_id` is its place in line."""

    letter_id: str
    job: Job


# Written out in the text: a partial index serves only a condition that the planner can see.
OPEN: ColumnElement[bool] = literal_column("dead_letters.closed_at IS NULL")
_FIELDS = tuple(Letter.__dataclass_fields__)
_LETTERS = select(*(dead_letters.c[name] for name in _FIELDS)).where(OPEN)


def _letter(row: Row[Any]) -> Letter:
    return Letter(**dict(zip(_FIELDS, row, strict=True)))


def list_letters(tx: Transaction, space: str, wanted: LetterFilter, page: PageRequest) -> Page[Letter]:
    """Open letters of a space, newest first."""
    query = _LETTERS.where(dead_letters.c.space == space, *wanted.conditions()).order_by(dead_letters.c.id.desc())
    found = fetch_page(tx, query, page)
    return Page([_letter(row) for row in found.items], found.total)


def open_letter(tx: Transaction, space: str, job_id: str) -> Letter | None:
    """The open letter of this job, if it has one."""
    query = _LETTERS.where(dead_letters.c.job_id == job_id, dead_letters.c.space == space)
    row = tx.conn.execute(query).first()
    return _letter(row) if row else None


def count_letters(tx: Transaction, space: str) -> list[LetterCount]:
    """How many open letters there are, by priority, reason and agent."""
    by = (dead_letters.c.priority, dead_letters.c.reason_code, dead_letters.c.agent_id)
    query = (
        select(*by, func.count().label("n"), func.min(dead_letters.c.created_at).label("oldest"))
        .where(OPEN, dead_letters.c.space == space)
        .group_by(*by)
    )
    return [LetterCount(*row) for row in tx.conn.execute(query)]


def lock_dead(
    tx: Transaction, where: Sequence[ColumnElement[bool]], *, limit: int, after: str | None = None
) -> list[Candidate]:
    """Dead jobs with their open letters, oldest letter first, locked; those that somebody else holds are left out.

    The letter must be of the job's present generation: a job that was sent round again and died once more while we
    waited for nothing is not the one that was asked for.
    """
    own = and_(dead_letters.c.job_id == jobs.c.id, dead_letters.c.generation == jobs.c.generation)
    query = (
        select_jobs()
        .add_columns(dead_letters.c.id.label("letter_id"))
        .join(dead_letters, own)
        .where(OPEN, jobs.c.state == literal_column("'dead'"), *where)
        .order_by(dead_letters.c.id)
        .limit(limit)
        .with_for_update(of=jobs, skip_locked=True)
    )
    if after is not None:
        query = query.where(dead_letters.c.id > after)
    return [Candidate(row[len(JOB_FIELDS)], job_of(row)) for row in tx.conn.execute(query)]


def last_words(tx: Transaction, job_ids: Collection[str]) -> dict[str, str]:
    """The end of what each of these jobs wrote to stderr in its latest try that wrote at all."""
    if not job_ids:
        return {}
    tails = [
        select(job_events.c.job_id, job_events.c.id, job_events.c.attempt_number, job_events.c.stream)
        .add_columns(job_events.c.message)
        .where(job_events.c.job_id == job_id, job_events.c.type == "log")
        .order_by(job_events.c.id.desc())
        .limit(LAST_LINES)
        .subquery()
        for job_id in job_ids
    ]
    # Each tail as a subquery of its own, because SQLite takes no LIMIT inside a UNION.
    rows = tx.conn.execute(union_all(*(select(tail) for tail in tails))).all()
    said: dict[str, list[Any]] = {}
    for row in rows:
        said.setdefault(row.job_id, []).append(row)
    told = {job_id: _last_words(lines) for job_id, lines in said.items()}
    return {job_id: text for job_id, text in told.items() if text}


def _last_words(lines: Sequence[Any]) -> str:
    latest = max(line.attempt_number or 0 for line in lines)
    errors = [line for line in lines if line.stream == "stderr" and (line.attempt_number or 0) == latest]
    text = "\n".join(line.message for line in sorted(errors, key=lambda line: line.id))
    return text[-LONGEST_LAST_WORDS:]

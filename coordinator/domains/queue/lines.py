"""Log lines of running attempts: stored once, in order, behind the fence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import select, update

from coordinator.domains.queue import moves
from coordinator.domains.queue.models import attempts, jobs
from coordinator.domains.queue.states import AttemptState
from coordinator.domains.queue.tokens import token_hash
from coordinator.store.database import Transaction
from shared.contracts.node import LogLine

MAX_AGE_MS = 3_600_000


def store_lines(tx: Transaction, *, node_id: str, lines: Sequence[Mapping[str, Any]]) -> tuple[int, list[str]]:
    """Append a batch to the timelines; answers how many were new, and the attempts that may no longer speak.

    A batch may come twice (its answer was lost): `offset` tells which lines are already there.
    """
    by_attempt: dict[str, list[LogLine]] = {}
    for item in lines:
        line = LogLine.from_json(item)
        by_attempt.setdefault(line.attempt_id, []).append(line)
    known = _lock(tx, node_id, by_attempt)
    fresh: list[dict[str, Any]] = []
    for attempt_id, row in known.items():
        mine = [line for line in by_attempt[attempt_id] if line.offset >= row.lines_stored]
        if mine:
            mine.sort(key=lambda line: line.offset)
            fresh += [_row(tx, row, line) for line in mine]
            stored = update(attempts).where(attempts.c.id == attempt_id).values(lines_stored=mine[-1].offset + 1)
            tx.conn.execute(stored)
    if fresh:
        moves.tell(tx, fresh)
    return len(fresh), sorted(set(by_attempt) - set(known))


def _lock(tx: Transaction, node_id: str, by_attempt: Mapping[str, Sequence[LogLine]]) -> dict[str, Any]:
    """The attempts that this node may speak for, their jobs locked so that the timeline has one writer at a time.

    The attempts are locked too: PostgreSQL reads anew only what it locks when it had to wait, and a batch that came
    again while the first was being stored would be stored twice by the old count.
    """
    query = (
        select(
            attempts.c.id, attempts.c.number, attempts.c.token_hash, attempts.c.lines_stored, jobs.c.id.label("job_id")
        )
        .select_from(attempts.join(jobs, jobs.c.current_attempt_id == attempts.c.id))
        .where(attempts.c.id.in_(list(by_attempt)), attempts.c.node_id == node_id)
        .where(attempts.c.state == str(AttemptState.running))
        .order_by(jobs.c.id)
        .with_for_update(of=[jobs, attempts])
    )
    return {row.id: row for row in tx.conn.execute(query) if row.token_hash == token_hash(by_attempt[row.id][0].token)}


def _row(tx: Transaction, attempt: Any, line: LogLine) -> dict[str, Any]:
    age = timedelta(milliseconds=max(0, min(line.age_ms, MAX_AGE_MS)))
    return {
        "job_id": attempt.job_id,
        "attempt_number": attempt.number,
        "at": tx.now - age,
        "type": "log",
        "level": line.level,
        "stream": line.stream,
        "message": line.message,
        "data": None,
    }

"""What admins do about dead jobs: send them round again, put one there by hand, let a letter go.

Whoever changes the fate of a dead job locks the job first and closes its letter in the same transaction, so that a
letter is answered once however many admins press the button.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, func, insert, literal_column, select, update

from coordinator.domains.identity import audit
from coordinator.domains.queue import decisions, moves, store
from coordinator.domains.queue.letters import OPEN, Candidate, LetterFilter, lock_dead
from coordinator.domains.queue.models import dead_letters, job_results, jobs
from coordinator.domains.queue.rows import Job
from coordinator.domains.queue.signals import call_node, nudge
from coordinator.domains.queue.states import JobState
from coordinator.resources import Resources
from coordinator.store.database import Transaction
from shared.errors import NotFound, StateConflict

PRUNE_BATCH = 500
_RELEASES = 0x4C65_7474_6572
"""PostgreSQL's advisory lock: releases at a limited rate are planned one after the other."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who decides: the id for the record, the name for people."""

    id: str
    name: str


def redrive(
    tx: Transaction, resources: Resources, dead: Sequence[Job], *, by: Principal, is_paced: bool = False
) -> int:
    """Send locked dead jobs round again; answers how many. Paced, they are released a few each second."""
    if not dead:
        return 0
    ids = [job.id for job in dead]
    tx.conn.execute(delete(job_results).where(job_results.c.job_id.in_(ids)))
    # A deadline in the past would end the job again before it could run.
    overdue = (jobs.c.id.in_(ids), jobs.c.deadline_at <= tx.now)
    tx.conn.execute(update(jobs).where(*overdue).values(deadline_at=None))
    moments = _moments(tx, resources, len(dead)) if is_paced else [None] * len(dead)
    made = [decisions.redrive(job, by=by.name, not_before=moment) for job, moment in zip(dead, moments, strict=True)]
    moves.apply(tx, made)
    _close(tx, ids, how="redriven", by=by.id)
    nudge(tx, resources, "redriven")
    return len(made)


def lock_to_redrive(
    tx: Transaction, space: str, wanted: LetterFilter, *, limit: int, after: str | None
) -> list[Candidate]:
    """The next dead jobs of a space behind the letter `after`, oldest first, in a transaction that will pace them."""
    if tx.conn.dialect.name == "postgresql":
        tx.conn.execute(select(func.pg_advisory_xact_lock(_RELEASES)))
    return lock_dead(tx, [dead_letters.c.space == space, *wanted.conditions()], limit=limit, after=after)


def lock_one(tx: Transaction, space: str, job_id: str) -> Job:
    """A dead job with an open letter, locked. NotFound when there is no such job, StateConflict when it has none."""
    job = _locked(tx, space, job_id)
    if job.state is not JobState.dead or not _has_open_letter(tx, job):
        raise StateConflict("it is not in the dead letter queue", state=str(job.state))
    return job


def put_by_hand(
    tx: Transaction, resources: Resources, space: str, job_id: str, *, reason: str, by: Principal
) -> JobState:
    """Put a job into the dead letter queue; answers the state it is in now. One that runs is stopped first."""
    job = _locked(tx, space, job_id)
    if job.state is JobState.dead:
        if not _has_open_letter(tx, job):
            _reopen(tx, job, note=reason, by=by.id)
            _tell(tx, [job], "letter.opened", f"put back into the dead letter queue by {by.name}: {reason}")
        return JobState.dead
    attempt = store.current_attempt(tx, job)
    move = decisions.bury(job, attempt, reason=reason, by=by.id, now=tx.now)
    if move is None:
        return job.state
    moves.apply(tx, [move])
    nudge(tx, resources, "buried")
    if attempt is not None:
        call_node(tx, resources, attempt.node_id)
    return move.after.state


def dismiss(tx: Transaction, space: str, job_id: str, *, by: Principal) -> None:
    """Let a letter go: its job stays dead and is no longer offered. NotFound when it has no open letter."""
    job = _locked(tx, space, job_id)
    if not _close(tx, [job_id], how="dismissed", by=by.id):
        raise NotFound("it is not in the dead letter queue", id=job_id)
    _tell(tx, [job], "letter.dismissed", f"taken out of the dead letter queue by {by.name}")


def prune(tx: Transaction, *, days: float) -> int:
    """Close letters that nobody decided about for so many days (0: never); answers how many."""
    if not days:
        return 0
    # Found by age first: asked for both at once, SQLite would walk through all jobs to have them in order.
    old = select(dead_letters.c.job_id).where(OPEN, dead_letters.c.created_at < tx.now - timedelta(days=days))
    ids = tx.conn.scalars(old.limit(PRUNE_BATCH)).all()
    found = [candidate.job for candidate in lock_dead(tx, [jobs.c.id.in_(ids)], limit=PRUNE_BATCH)] if ids else []
    if found:
        _close(tx, [job.id for job in found], how="pruned", by=None)
        _tell(tx, found, "letter.pruned", f"nobody decided about it for {days:g} days: no longer offered")
        audit.record(tx, audit.SYSTEM, "dead_letter.pruned", after={"count": len(found), "days": days})
    return len(found)


def _moments(tx: Transaction, resources: Resources, count: int) -> list[datetime | None]:
    """When each of them may run: behind what was released before, a second's worth at a time."""
    fresh = (jobs.c.generation > 1, jobs.c.fail_count == 0, jobs.c.infra_count == 0, jobs.c.started_at.is_(None))
    waiting = (jobs.c.state == literal_column("'queued'"), jobs.c.not_before >= tx.now)
    last = tx.conn.scalar(select(func.max(jobs.c.not_before)).where(*waiting, *fresh))
    start = tx.now if last is None else last + timedelta(seconds=1)
    rate = resources.settings.redrive_per_second
    return [start + timedelta(seconds=int(index / rate)) for index in range(count)]


def _locked(tx: Transaction, space: str, job_id: str) -> Job:
    job = store.lock_job(tx, job_id)
    if job is None or job.space != space:
        raise NotFound("there is no such task or execution", id=job_id)
    return job


def _has_open_letter(tx: Transaction, job: Job) -> bool:
    return tx.conn.execute(select(dead_letters.c.id).where(OPEN, _of(job))).first() is not None


def _of(job: Job) -> ColumnElement[bool]:
    return (dead_letters.c.job_id == job.id) & (dead_letters.c.generation == job.generation)


def _reopen(tx: Transaction, job: Job, *, note: str, by: str) -> None:
    """The letter of this death, open again and as young as a new one."""
    anew = {"note": note, "created_by": by, "created_at": tx.now}
    closing = {"closed_how": None, "closed_by": None, "closed_at": None}
    if not tx.conn.execute(update(dead_letters).where(_of(job)).values(anew | closing)).rowcount:
        tx.conn.execute(insert(dead_letters).values(moves.letter(job, tx.now) | anew))


def _close(tx: Transaction, job_ids: Collection[str], *, how: str, by: str | None) -> int:
    theirs = (OPEN, dead_letters.c.job_id.in_(job_ids))
    values = {"closed_how": how, "closed_by": by, "closed_at": tx.now}
    return tx.conn.execute(update(dead_letters).where(*theirs).values(values)).rowcount


def _tell(tx: Transaction, dead: Sequence[Job], event_type: str, message: str) -> None:
    """A line in each job's timeline, and an event for others: nothing about the job's state has changed."""
    moves.tell(
        tx, [{"job_id": job.id, "at": tx.now, "type": event_type, "level": "info", "message": message} for job in dead]
    )
    word = event_type.partition(".")[2]
    moves.announce(tx, [_event(tx, job, word) for job in dead])


def _event(tx: Transaction, job: Job, word: str) -> dict[str, object]:
    data = {
        "id": job.id,
        "state": str(job.state),
        "agent_id": job.agent_id,
        "reason_code": job.reason_code,
        "letter": word,
    }
    return {"at": tx.now, "space": job.space, "type": f"{job.kind}.updated", "subject_id": job.id, "data": data}

"""The one place where jobs and attempts change state.

Decisions produce moves; `apply` writes many of them at once: rows by compare-and-set on the version, the history line
of each, and the event that tells others. The caller holds the jobs' row locks, so a missed guard is a bug, not a race.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from coordinator.domains.queue.models import (
    agent_stats,
    attempts,
    dead_letters,
    events,
    job_events,
    job_results,
    jobs,
)
from coordinator.domains.queue.rows import Attempt, Job
from coordinator.domains.queue.states import ATTEMPT, ENDED, JOB, AttemptState, JobState
from coordinator.store.database import Transaction
from coordinator.store.rowset import Batch, insert_many, write_all
from shared.errors import StateConflict
from shared.ids import is_id, new_id

log = structlog.get_logger(__name__)

JOB_WRITES = (
    "state",
    "hold_reason",
    "generation",
    "attempts_made",
    "current_attempt_id",
    "waits_for_attempt_id",
    "fail_count",
    "infra_count",
    "not_before",
    "cancel_requested_at",
    "reason_code",
    "error",
    "started_at",
    "finished_at",
)
ATTEMPT_WRITES = (
    "state",
    "node_epoch",
    "token_hash",
    "claimed_at",
    "lease_until",
    "ended_at",
    "exit_code",
    "reason_code",
    "error",
    "usage",
    "computer",
    "result_digest",
)
ATTEMPT_INSERTS = (
    "id",
    "job_id",
    "number",
    "generation",
    "node_id",
    "node_name",
    "takes_slot",
    "state",
    "dispatched_at",
    "publish_count",
)
JOB_EVENT_COLUMNS = ("job_id", "attempt_number", "at", "type", "level", "stream", "message", "data")
RESULT_COLUMNS = ("job_id", "attempt_id", "result")
STATS_COLUMNS = ("agent_id", "succeeded", "failed", "run_ms")
LETTER_COLUMNS = (
    "id",
    "job_id",
    "generation",
    "space",
    "kind",
    "agent_id",
    "priority",
    "reason_code",
    "error",
    "created_by",
    "created_at",
)
EVENT_COLUMNS = ("at", "space", "type", "subject_id", "data")


@dataclass(frozen=True, slots=True)
class Move:
    """One job from `before` to `after`, with the attempt that goes along, if one does.

    `attempt_before` None with an `attempt_after` means that the attempt is new.
    """

    before: Job
    after: Job
    message: str
    attempt_before: Attempt | None = None
    attempt_after: Attempt | None = None
    level: str = "info"
    data: dict[str, Any] | None = None


def apply(tx: Transaction, moves: Sequence[Move], *, results: Sequence[dict[str, Any]] = ()) -> None:
    """Write the moves, and the results that were accepted with them.

    Raises StateConflict when a lifecycle forbids one of them or a row is not as it was read.
    """
    if not moves:
        return
    for move in moves:
        _require_allowed(move)
    changed = [m for m in moves if m.attempt_before is not None and m.attempt_after is not None]
    fresh = [m.attempt_after for m in moves if m.attempt_before is None and m.attempt_after is not None]
    written = write_all(
        tx.conn,
        [
            Batch(attempts, ATTEMPT_WRITES, [_attempt_row(move) for move in changed], guard="state"),
            Batch(jobs, JOB_WRITES, [_job_row(m) for m in moves], guard="version", touch=(("updated_at", tx.now),)),
            Batch(attempts, ATTEMPT_INSERTS, [_fields(attempt, ATTEMPT_INSERTS) for attempt in fresh]),
            Batch(job_events, JOB_EVENT_COLUMNS, [_history(move, tx.now) for move in moves]),
            Batch(events, EVENT_COLUMNS, [event for move in moves for event in _consequences(move, tx.now)]),
            Batch(job_results, RESULT_COLUMNS, results),
            Batch(dead_letters, LETTER_COLUMNS, [letter(m.after, tx.now) for m in moves if _dies(m)]),
            Batch(agent_stats, STATS_COLUMNS, _totals(moves), adding=STATS_COLUMNS[1:]),
        ],
    )
    if written[:2] != [len(changed), len(moves)]:
        raise StateConflict("a job or an attempt was not as it was read", expected=len(moves), written=written[1])
    tx.ring()
    tx.after_commit(lambda: _log_unusual(moves))


def _log_unusual(moves: Sequence[Move]) -> None:
    """What an operator may have to look into; the smooth course of things is in the timelines."""
    for move in moves:
        if move.level != "info":
            attempt = move.attempt_after or move.attempt_before
            log.warning(
                "job.moved",
                state=str(move.after.state),
                job_id=move.after.id,
                attempt_id=attempt.id if attempt else None,
                node_id=attempt.node_id if attempt else None,
                reason=attempt.reason_code if attempt else move.after.reason_code,
                message=move.message,
            )


def tell(tx: Transaction, lines: Iterable[dict[str, Any]]) -> None:
    """Append to the timelines of jobs. The caller holds the row locks of those jobs."""
    insert_many(tx.conn, job_events, JOB_EVENT_COLUMNS, lines)
    tx.ring()


def announce(tx: Transaction, rows: Sequence[dict[str, Any]]) -> None:
    """Append events for others to follow."""
    if rows:
        insert_many(tx.conn, events, EVENT_COLUMNS, rows)
        tx.ring()


def _require_allowed(move: Move) -> None:
    if move.before.state != move.after.state:
        JOB.require(move.before.state, move.after.state)
    old, new = move.attempt_before, move.attempt_after
    if old is not None and new is not None and old.state != new.state:
        ATTEMPT.require(old.state, new.state)


def _job_row(move: Move) -> dict[str, Any]:
    return {"id": move.before.id, "seen": move.before.version, **_fields(move.after, JOB_WRITES)}


def _attempt_row(move: Move) -> dict[str, Any]:
    assert move.attempt_before is not None
    assert move.attempt_after is not None
    before, after = move.attempt_before, move.attempt_after
    return {"id": before.id, "seen": str(before.state), **_fields(after, ATTEMPT_WRITES)}


def _fields(value: Job | Attempt, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}


def _history(move: Move, now: datetime) -> dict[str, Any]:
    attempt = move.attempt_after or move.attempt_before
    return {
        "job_id": move.after.id,
        "attempt_number": attempt.number if attempt else None,
        "at": now,
        "type": f"job.{move.after.state}",
        "level": move.level,
        "message": move.message,
        "data": _facts(move, attempt),
    }


def _facts(move: Move, attempt: Attempt | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"from": str(move.before.state), "to": str(move.after.state), **(move.data or {})}
    if move.after.reason_code and move.after.reason_code != move.before.reason_code:
        facts["reason_code"] = move.after.reason_code
    if attempt is not None:
        facts |= {"attempt": str(attempt.state), "node_id": attempt.node_id}
        if attempt.reason_code:
            facts["reason_code"] = attempt.reason_code
    return facts


_ENDS = {JobState.succeeded: "completed", JobState.dead: "failed", JobState.cancelled: "cancelled"}


def _consequences(move: Move, now: datetime) -> Iterable[dict[str, Any]]:
    """What the world hears: `task.completed`, `execution.failed`, … and `task.updated` for every other visible step."""
    if move.before.state == move.after.state:
        return
    word = _ENDS.get(move.after.state, "updated")
    if move.after.state is JobState.dispatched:
        return  # Being on its way to a node is told to those who follow the job itself; others hear when it runs.
    yield {
        "at": now,
        "space": move.after.space,
        "type": f"{move.after.kind}.{word}",
        "subject_id": move.after.id,
        "data": {
            "id": move.after.id,
            "state": str(move.after.state),
            "agent_id": move.after.agent_id,
            "reason_code": move.after.reason_code,
        },
    }


def _dies(move: Move) -> bool:
    return move.after.state is JobState.dead and move.before.state is not JobState.dead


def letter(job: Job, now: datetime) -> dict[str, Any]:
    """The row that offers a dead job to the admins."""
    by = (job.error or {}).get("by")
    return {
        "id": new_id(),
        "job_id": job.id,
        "generation": job.generation,
        "space": job.space,
        "kind": job.kind,
        "agent_id": job.agent_id,
        "priority": job.priority,
        "reason_code": job.reason_code or "failed",
        "error": job.error,
        # Errors come from nodes too, with whatever they like to say.
        "created_by": by if isinstance(by, str) and is_id(by) else None,
        "created_at": now,
    }


def _totals(moves: Sequence[Move]) -> list[dict[str, Any]]:
    """What the ended jobs add to their agents' totals: a row per agent, in id order so that writers never deadlock."""
    totals: dict[str, list[int]] = {}
    for move in moves:
        if move.after.state not in ENDED or move.before.state in ENDED or move.after.agent_id is None:
            continue
        total = totals.setdefault(move.after.agent_id, [0, 0, 0])
        total[0] += move.after.state is JobState.succeeded
        total[1] += move.after.state is JobState.dead
        total[2] += _run_ms(move)
    return [dict(zip(STATS_COLUMNS, (agent_id, *total), strict=True)) for agent_id, total in sorted(totals.items())]


def _run_ms(move: Move) -> int:
    attempt = move.attempt_after
    if attempt is None or attempt.state is not AttemptState.succeeded or not attempt.usage:
        return 0
    return int(attempt.usage.get("wall_ms") or 0)

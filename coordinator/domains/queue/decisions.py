"""What becomes of a job: pure functions from what is known to a move. No database, no clock, no dice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from coordinator.domains.queue.limits import Limits
from coordinator.domains.queue.moves import Move
from coordinator.domains.queue.rows import Attempt, Job
from coordinator.domains.queue.states import AttemptState, JobState
from shared.contracts.node import Outcome
from shared.errors import StateConflict
from shared.policy.placement import NodeFacts
from shared.policy.retry import TryAgain, after_failure, after_loss


@dataclass(frozen=True, slots=True)
class Claimant:
    """The node that asks, with the token its claim would get."""

    node_id: str
    epoch: str
    token_hash: str


@dataclass(frozen=True, slots=True)
class Granted:
    """The attempt may run. `move` is None when it was granted before and only the reply was lost."""

    move: Move | None


@dataclass(frozen=True, slots=True)
class Refused:
    """The attempt may not run; the node drops the ticket."""

    code: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """The report counts. `move` is None when the very same report was accepted before."""

    move: Move | None


@dataclass(frozen=True, slots=True)
class Stale:
    """The report is of an attempt that no longer speaks for its job."""


def place(job: Job, node: NodeFacts, *, attempt_id: str, takes_slot: bool, now: datetime) -> Move:
    """Send the job on its way to `node`."""
    number = job.attempts_made + 1
    attempt = Attempt(
        id=attempt_id,
        job_id=job.id,
        number=number,
        generation=job.generation,
        node_id=node.id,
        node_name=node.name,
        node_epoch=None,
        takes_slot=takes_slot,
        state=AttemptState.dispatched,
        token_hash=None,
        dispatched_at=now,
        published_at=None,
        publish_count=0,
        claimed_at=None,
        lease_until=None,
        ended_at=None,
        exit_code=None,
        reason_code=None,
        error=None,
        usage=None,
        computer=None,
        result_digest=None,
    )
    after = job.with_(
        state=JobState.dispatched,
        attempts_made=number,
        current_attempt_id=attempt_id,
        not_before=None,
        hold_reason=None,
    )
    return Move(job, after, f"try {number} goes to node {node.name}", attempt_after=attempt)


def claim(attempt: Attempt, job: Job, by: Claimant, *, now: datetime, lease_seconds: float) -> Granted | Refused:
    """May this node start this attempt? Exactly one claim of an attempt is ever granted."""
    if attempt.node_id != by.node_id:
        return Refused("not_yours")
    if attempt.state is AttemptState.running and attempt.token_hash == by.token_hash:
        return Granted(None)
    if attempt.state is not AttemptState.dispatched or job.current_attempt_id != attempt.id:
        return Refused("stale_attempt")
    if job.state is not JobState.dispatched:
        return Refused(f"job_{job.state}")
    started = attempt.with_(
        state=AttemptState.running,
        node_epoch=by.epoch,
        token_hash=by.token_hash,
        claimed_at=now,
        lease_until=now + timedelta(seconds=lease_seconds),
    )
    after = job.with_(state=JobState.running, started_at=job.started_at or now, reason_code=None, error=None)
    return Granted(Move(job, after, f"try {attempt.number} started", attempt, started))


@dataclass(frozen=True, slots=True)
class Told:
    """A report as the coordinator understood it."""

    outcome: Outcome
    token_hash: str
    exit_code: int | None
    reason_code: str | None
    error: Mapping[str, Any] | None
    usage: Mapping[str, Any] | None
    computer: Mapping[str, Any] | None
    digest: str | None


_ENDS = {
    Outcome.succeeded: AttemptState.succeeded,
    Outcome.failed: AttemptState.failed,
    Outcome.lost: AttemptState.lost,
    Outcome.returned: AttemptState.returned,
    Outcome.cancelled: AttemptState.cancelled,
}


def report(
    attempt: Attempt, job: Job, told: Told, *, node_id: str, now: datetime, limits: Limits, draw: float
) -> Accepted | Stale:
    """Does this report count, and what follows from it? A job that is being cancelled can only end cancelled."""
    if attempt.node_id != node_id or attempt.token_hash is None or attempt.token_hash != told.token_hash:
        return Stale()
    if attempt.state is not AttemptState.running:
        repeated = attempt.result_digest is not None and attempt.result_digest == told.digest
        return Accepted(None) if repeated else Stale()
    if job.current_attempt_id != attempt.id or job.state not in (JobState.running, JobState.cancelling):
        return Stale()
    outcome = Outcome.cancelled if job.state is JobState.cancelling else told.outcome
    if outcome is Outcome.cancelled and job.state is not JobState.cancelling:
        # Nobody cancelled the job: the node stopped it for its own reasons, which is not the job's fault.
        outcome = Outcome.lost
    ended = attempt.with_(
        state=_ENDS[outcome],
        ended_at=now,
        lease_until=None,
        exit_code=told.exit_code,
        reason_code=told.reason_code,
        error=told.error,
        usage=told.usage,
        computer=told.computer,
        result_digest=told.digest,
    )
    return Accepted(_after_end(attempt, ended, job, now=now, limits=limits, draw=draw))


def _after_end(attempt: Attempt, ended: Attempt, job: Job, *, now: datetime, limits: Limits, draw: float) -> Move:
    if ended.state is AttemptState.succeeded:
        after = job.with_(state=JobState.succeeded, finished_at=now, reason_code=None, error=None)
        return Move(job, after, f"try {attempt.number} succeeded", attempt, ended)
    if ended.state is AttemptState.cancelled:
        return Move(job, _stopped(job, now), "stopped; the computer is gone", attempt, ended)
    if ended.state is AttemptState.returned:
        return Move(job, _queued(job), f"try {attempt.number} was handed back by its node", attempt, ended)
    if ended.state is AttemptState.failed:
        return failure(attempt, ended, job, now=now, limits=limits, draw=draw)
    return loss(attempt, ended, job, now=now, limits=limits, draw=draw)


def failure(attempt: Attempt, ended: Attempt, job: Job, *, now: datetime, limits: Limits, draw: float) -> Move:
    """The job's own failure: try again by its policy or bury it."""
    error = dict(ended.error or {"code": "FAILED", "message": "the job failed"})
    policy = limits.retry.merged(job.retry)
    verdict = after_failure(
        policy,
        failures=job.fail_count + 1,
        retryable=bool(error.get("retryable", True)),
        draw=draw,
        retry_after_seconds=error.get("retry_after_seconds"),
    )
    failed = job.with_(fail_count=job.fail_count + 1, error=error, reason_code=ended.reason_code)
    if isinstance(verdict, TryAgain):
        text = f"try {attempt.number} failed; next try in {verdict.after_seconds:.1f} s"
        after = _queued(failed, not_before=now + timedelta(seconds=verdict.after_seconds))
        return Move(job, after, text, attempt, ended, level="warning")
    after = failed.with_(state=JobState.dead, finished_at=now)
    text = f"try {attempt.number} failed; no further try ({verdict.reason_code})"
    return Move(job, after, text, attempt, ended, level="error", data={"verdict": verdict.reason_code})


def loss(attempt: Attempt, ended: Attempt, job: Job, *, now: datetime, limits: Limits, draw: float) -> Move:
    """The ground broke under the job: run it elsewhere, without charging its own retries."""
    policy = limits.retry.merged(job.retry)
    losses = job.infra_count + 1
    verdict = after_loss(policy, losses=losses, max_losses=limits.infra_max_attempts, draw=draw)
    error = dict(ended.error or {"code": "ATTEMPT_LOST", "message": "the node or the computer was lost"})
    lost = job.with_(infra_count=losses, error=error, reason_code=ended.reason_code)
    if isinstance(verdict, TryAgain):
        after = _queued(
            lost, not_before=now + timedelta(seconds=verdict.after_seconds) if verdict.after_seconds else None
        )
        return Move(job, after, f"try {attempt.number} was lost; it runs again", attempt, ended, level="warning")
    after = lost.with_(state=JobState.dead, finished_at=now)
    text = f"try {attempt.number} was lost; no further try ({verdict.reason_code})"
    return Move(job, after, text, attempt, ended, level="error", data={"verdict": verdict.reason_code})


def lost_lease(
    attempt: Attempt, job: Job, *, reason_code: str, message: str, now: datetime, limits: Limits, draw: float
) -> Move:
    """A running attempt is given up; a job that was being stopped ends without its node saying that nothing is left."""
    error = {"code": "ATTEMPT_LOST", "message": message, "retryable": True}
    ended = attempt.with_(state=AttemptState.lost, ended_at=now, lease_until=None, reason_code=reason_code, error=error)
    if job.state is JobState.cancelling:
        after = _stopped(job, now)
        if after.state is JobState.cancelled:
            after = after.with_(reason_code="cancelled_unconfirmed")
        text = "stopped without a word from its node: nobody saw the computer go"
        return Move(job, after, text, attempt, ended, level="warning")
    return loss(attempt, ended, job, now=now, limits=limits, draw=draw)


def expire(attempt: Attempt, job: Job, *, now: datetime) -> Move:
    """A dispatched attempt that nobody claimed goes back; it counts against nothing."""
    ended = attempt.with_(state=AttemptState.expired, ended_at=now, reason_code="unclaimed")
    return Move(
        job,
        _queued(job),
        f"try {attempt.number} was never picked up; it is placed anew",
        attempt,
        ended,
        level="warning",
    )


def cancel(job: Job, attempt: Attempt | None, *, reason: str, now: datetime) -> Move | None:
    """Cancel, wherever the job stands. None when it is cancelled or being cancelled already; 409 when it is over."""
    if job.state in (JobState.cancelled, JobState.cancelling):
        return None
    if job.state in (JobState.succeeded, JobState.dead):
        raise StateConflict(
            f"it is over already ({job.state}); only unfinished work can be cancelled", state=str(job.state)
        )
    asked = job.with_(cancel_requested_at=now, reason_code="cancelled")
    if job.state is JobState.running:
        return Move(job, asked.with_(state=JobState.cancelling), f"{reason}; stopping the computer", attempt, attempt)
    ended = attempt.with_(state=AttemptState.cancelled, ended_at=now, reason_code="cancelled") if attempt else None
    after = asked.with_(state=JobState.cancelled, finished_at=now, not_before=None, hold_reason=None)
    return Move(job, after, reason, attempt, ended)


def miss_deadline(job: Job, attempt: Attempt | None, *, now: datetime) -> Move:
    """The deadline passed before the job ended. One that runs is stopped like a cancelled one."""
    error = {"code": "DEADLINE_EXCEEDED", "message": "the deadline passed before the work was done", "retryable": False}
    if job.state is JobState.running:
        after = job.with_(
            state=JobState.cancelling, cancel_requested_at=now, reason_code="deadline_exceeded", error=error
        )
        return Move(job, after, "the deadline passed; stopping the computer", attempt, attempt, level="error")
    ended = (
        attempt.with_(state=AttemptState.expired, ended_at=now, reason_code="deadline_exceeded") if attempt else None
    )
    after = job.with_(
        state=JobState.dead, finished_at=now, reason_code="deadline_exceeded", error=error, not_before=None
    )
    return Move(job, after, "the deadline passed before it could run", attempt, ended, level="error")


def resolve(job: Job, *, succeeded: bool, error: Mapping[str, Any] | None, by: str, now: datetime) -> Move:
    """A person says how a waiting job ended."""
    if job.state is not JobState.queued:
        raise StateConflict(f"only waiting work can be closed by hand; this is {job.state}", state=str(job.state))
    state = JobState.succeeded if succeeded else JobState.dead
    after = job.with_(state=state, finished_at=now, reason_code="resolved_by_hand", error=error, hold_reason=None)
    return Move(job, after, f"closed by {by}")


def _queued(job: Job, *, not_before: datetime | None = None) -> Job:
    return job.with_(state=JobState.queued, current_attempt_id=None, not_before=not_before)


def _stopped(job: Job, now: datetime) -> Job:
    """How a job that was being stopped ends: cancelled, or dead when it was the deadline that stopped it."""
    state = JobState.dead if job.reason_code == "deadline_exceeded" else JobState.cancelled
    return job.with_(state=state, finished_at=now, reason_code=job.reason_code or "cancelled")

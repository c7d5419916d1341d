"""What becomes of a job: pure functions from what is known to a move. No database, no clock, no dice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from coordinator.domains.queue.limits import Limits
from coordinator.domains.queue.moves import Move
from coordinator.domains.queue.rows import Attempt, Job
from coordinator.domains.queue.states import ENDED, AttemptState, JobState
from shared.contracts.node import Outcome
from shared.errors import StateConflict
from shared.policy.placement import NodeFacts
from shared.policy.retry import Failure, GiveUp, Loss, TryAgain, after_failure, after_loss

BURIED = "dead_lettered_by_hand"
OVERDUE = "deadline_exceeded"
_STOPPED_TO_DIE = frozenset({BURIED, OVERDUE})
"""Why a running job is stopped and then is dead; stopped for anything else it is cancelled."""
_NODES_FAULT = frozenset({"node_out_of_memory"})
"""Failures that a node tells as the job's own, and that are not."""


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
    if job.deadline_at is not None and job.deadline_at <= now:
        return Refused(OVERDUE)
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


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a decision about an end depends on beside job and attempt. `draw` is uniform in [0, 1)."""

    now: datetime
    limits: Limits
    draw: float
    losses: Sequence[Loss] = ()
    """Where this job was lost before; known only once there were enough losses for the rule about poison."""


_ENDS = {
    Outcome.succeeded: AttemptState.succeeded,
    Outcome.failed: AttemptState.failed,
    Outcome.lost: AttemptState.lost,
    Outcome.returned: AttemptState.returned,
    Outcome.cancelled: AttemptState.cancelled,
}


def report(attempt: Attempt, job: Job, told: Told, *, node_id: str, given: Circumstances) -> Accepted | Stale:
    """Does this report count, and what follows from it? A job that is being cancelled can only end cancelled."""
    if attempt.node_id != node_id or attempt.token_hash is None or attempt.token_hash != told.token_hash:
        return Stale()
    if attempt.state is not AttemptState.running:
        repeated = attempt.result_digest is not None and attempt.result_digest == told.digest
        return Accepted(None) if repeated else Stale()
    if job.current_attempt_id != attempt.id or job.state not in (JobState.running, JobState.cancelling):
        return Stale()
    ended = attempt.with_(
        state=_ENDS[_outcome(told, job)],
        ended_at=given.now,
        lease_until=None,
        exit_code=told.exit_code,
        reason_code=told.reason_code,
        error=told.error,
        usage=told.usage,
        computer=told.computer,
        result_digest=told.digest,
    )
    return Accepted(_after_end(attempt, ended, job, given))


def may_be_lost(told: Told) -> bool:
    """Whether a report may turn out to be of a loss."""
    return told.outcome in (Outcome.lost, Outcome.cancelled) or told.reason_code in _NODES_FAULT


def _outcome(told: Told, job: Job) -> Outcome:
    if job.state is JobState.cancelling:
        return Outcome.cancelled
    if told.outcome is Outcome.cancelled:
        # Nobody cancelled the job: the node stopped it for its own reasons, which is not the job's fault.
        return Outcome.lost
    if told.outcome is Outcome.failed and told.reason_code in _NODES_FAULT:
        return Outcome.lost
    return told.outcome


def _after_end(attempt: Attempt, ended: Attempt, job: Job, given: Circumstances) -> Move:
    if ended.state is AttemptState.succeeded:
        after = job.with_(state=JobState.succeeded, finished_at=given.now, reason_code=None, error=None)
        return Move(job, after, f"try {attempt.number} succeeded", attempt, ended)
    if ended.state is AttemptState.cancelled:
        return Move(job, _stopped(job, given.now), "stopped; the computer is gone", attempt, ended)
    if ended.state is AttemptState.returned:
        return Move(job, _queued(job), f"try {attempt.number} was handed back by its node", attempt, ended)
    if ended.state is AttemptState.failed:
        return failure(attempt, ended, job, given)
    return loss(attempt, ended, job, given)


def failure(attempt: Attempt, ended: Attempt, job: Job, given: Circumstances) -> Move:
    """The job's own failure: try again by its policy or bury it."""
    error = dict(ended.error or {"code": "FAILED", "message": "the job failed"})
    failed = job.with_(fail_count=job.fail_count + 1, error=error, reason_code=ended.reason_code)
    verdict = after_failure(given.limits.retry.merged(job.retry), _failure(failed, error, given), draw=given.draw)
    if isinstance(verdict, TryAgain):
        text = f"try {attempt.number} failed; next try in {verdict.after_seconds:.1f} s"
        after = _queued(failed, not_before=given.now + timedelta(seconds=verdict.after_seconds))
        return Move(job, after, text, attempt, ended, level="warning")
    text = f"try {attempt.number} failed; no further try ({verdict.reason_code})"
    return _death(failed, attempt, ended, text, before=job, now=given.now, verdict=verdict)


def _failure(failed: Job, error: Mapping[str, Any], given: Circumstances) -> Failure:
    overdue = failed.reason_code == OVERDUE and failed.deadline_at is not None and failed.deadline_at <= given.now
    return Failure(
        number=failed.fail_count,
        reason_code=failed.reason_code,
        retryable=bool(error.get("retryable", True)) and not overdue,
        retry_after_seconds=_asked_pause(error, given.limits.retry_after_cap_seconds),
    )


def _asked_pause(error: Mapping[str, Any], cap: float) -> float:
    """The pause that an error asks for, which comes from outside: what is no number asks for nothing."""
    asked = error.get("retry_after_seconds")
    if isinstance(asked, bool) or not isinstance(asked, int | float) or not math.isfinite(asked):
        return 0.0
    return float(min(max(asked, 0), cap))


def loss(attempt: Attempt, ended: Attempt, job: Job, given: Circumstances, *, seen_gone: bool = True) -> Move:
    """The ground broke under the job: run it elsewhere, without charging its own retries.

    An exclusive job whose old computer nobody saw go waits until somebody does.
    """
    losses = job.infra_count + 1
    error = dict(ended.error or {"code": "ATTEMPT_LOST", "message": "the node or the computer was lost"})
    lost = job.with_(infra_count=losses, error=error, reason_code=ended.reason_code)
    if job.is_exclusive and not seen_gone:
        lost = lost.with_(waits_for_attempt_id=attempt.id, hold_reason=_unseen(attempt))
    if nodes := _poisoned(attempt, ended, given):
        return _poison(attempt, ended, job, lost, nodes, given)
    policy, most = given.limits.retry.merged(job.retry), given.limits.infra_max_attempts
    verdict = after_loss(policy, losses=losses, max_losses=most, draw=given.draw)
    if isinstance(verdict, TryAgain):
        pause = timedelta(seconds=verdict.after_seconds)
        after = _queued(lost, not_before=given.now + pause if pause else None)
        return Move(job, after, f"try {attempt.number} was lost; it runs again", attempt, ended, level="warning")
    text = f"try {attempt.number} was lost; no further try ({verdict.reason_code})"
    return _death(lost, attempt, ended, text, before=job, now=given.now, verdict=verdict)


def _poisoned(attempt: Attempt, ended: Attempt, given: Circumstances) -> tuple[str, ...]:
    this = Loss(attempt.node_id, attempt.node_name, given.now, ended.reason_code)
    return given.limits.poison.suspects([*given.losses, this], now=given.now)


def _poison(attempt: Attempt, ended: Attempt, job: Job, lost: Job, nodes: Sequence[str], given: Circumstances) -> Move:
    named = ", ".join(nodes)
    message = (
        f"lost {lost.infra_count} times, on the nodes {named}: it may be the work itself that breaks them. "
        f"Last: {(lost.error or {}).get('message')}"
    )
    error = {"code": "POISON_SUSPECTED", "message": message, "retryable": False, "nodes": list(nodes)}
    after = lost.with_(error=error, reason_code="poison_suspected")
    text = f"try {attempt.number} was lost like others on {named}; no further try (poison_suspected)"
    return _death(after, attempt, ended, text, before=job, now=given.now, verdict=GiveUp("poison_suspected"))


def _death(
    after: Job, attempt: Attempt, ended: Attempt, text: str, *, before: Job, now: datetime, verdict: GiveUp
) -> Move:
    dead = after.with_(state=JobState.dead, finished_at=now)
    return Move(before, dead, text, attempt, ended, level="error", data={"verdict": verdict.reason_code})


def lost_lease(attempt: Attempt, job: Job, given: Circumstances, *, reason_code: str, message: str) -> Move:
    """A running attempt is given up; a job that was being stopped ends without its node saying that nothing is left."""
    error = {"code": "ATTEMPT_LOST", "message": message, "retryable": True}
    ended = attempt.with_(
        state=AttemptState.lost, ended_at=given.now, lease_until=None, reason_code=reason_code, error=error
    )
    if job.state is JobState.cancelling:
        after = _stopped(job, given.now)
        if after.state is JobState.cancelled:
            after = after.with_(reason_code="cancelled_unconfirmed")
        elif job.is_exclusive:
            after = after.with_(waits_for_attempt_id=attempt.id, hold_reason=_unseen(attempt))
        text = "stopped without a word from its node: nobody saw the computer go"
        return Move(job, after, text, attempt, ended, level="warning")
    return loss(attempt, ended, job, given, seen_gone=False)


def _unseen(attempt: Attempt) -> str:
    return f"exclusive: waits until node {attempt.node_name} confirms that the old computer is gone"


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
    after = asked.with_(
        state=JobState.cancelled, finished_at=now, not_before=None, hold_reason=None, waits_for_attempt_id=None
    )
    return Move(job, after, reason, attempt, ended)


def miss_deadline(job: Job, attempt: Attempt | None, *, now: datetime) -> Move:
    """The deadline passed before the job ended. One that runs is stopped like a cancelled one."""
    error = {"code": "DEADLINE_EXCEEDED", "message": "the deadline passed before the work was done", "retryable": False}
    if job.state is JobState.running:
        return _stop_to_die(job, attempt, error, "the deadline passed; stopping the computer", why=OVERDUE, now=now)
    return _die_waiting(job, attempt, error, "the deadline passed before it could run", why=OVERDUE, now=now)


def bury(job: Job, attempt: Attempt | None, *, reason: str, by: str | None, now: datetime) -> Move | None:
    """An admin takes an unfinished job out; one that runs is stopped first. None when that is under way already."""
    if job.state is JobState.cancelling and job.reason_code in _STOPPED_TO_DIE:
        return None
    if job.state in ENDED or job.state is JobState.cancelling:
        raise StateConflict(
            f"only unfinished or failed work can be put there; this is {job.state}", state=str(job.state)
        )
    error = {"code": BURIED.upper(), "message": reason, "retryable": True, "by": by}
    if job.state is JobState.running:
        text = f"put into the dead letter queue ({reason}); stopping the computer"
        return _stop_to_die(job, attempt, error, text, why=BURIED, now=now)
    return _die_waiting(job, attempt, error, f"put into the dead letter queue: {reason}", why=BURIED, now=now)


def _stop_to_die(
    job: Job, attempt: Attempt | None, error: Mapping[str, Any], text: str, *, why: str, now: datetime
) -> Move:
    after = job.with_(state=JobState.cancelling, cancel_requested_at=now, reason_code=why, error=error)
    return Move(job, after, text, attempt, attempt, level="error")


def _die_waiting(
    job: Job, attempt: Attempt | None, error: Mapping[str, Any], text: str, *, why: str, now: datetime
) -> Move:
    ended = attempt.with_(state=AttemptState.expired, ended_at=now, reason_code=why) if attempt else None
    after = job.with_(state=JobState.dead, finished_at=now, reason_code=why, error=error, not_before=None)
    return Move(job, after, text, attempt, ended, level="error")


def redrive(job: Job, *, by: str, not_before: datetime | None) -> Move:
    """A dead job goes round again as if it had just been accepted; its history stays.

    What it waits for before it may run beside its old computer outlives its death.
    """
    if job.state is not JobState.dead:
        raise StateConflict(f"only dead work can be sent round again; this is {job.state}", state=str(job.state))
    after = job.with_(
        state=JobState.queued,
        generation=job.generation + 1,
        current_attempt_id=None,
        hold_reason=kept_hold(job),
        fail_count=0,
        infra_count=0,
        not_before=not_before,
        cancel_requested_at=None,
        reason_code=None,
        error=None,
        started_at=None,
        finished_at=None,
    )
    return Move(job, after, f"sent round again by {by}", data={"generation": after.generation})


def confirm_gone(job: Job, *, by: str) -> Move:
    """Nothing is left of the computer that an exclusive job waited for."""
    return Move(
        job, job.with_(waits_for_attempt_id=None, hold_reason=None), f"{by} confirms that the old computer is gone"
    )


def resolve(job: Job, *, succeeded: bool, error: Mapping[str, Any] | None, by: str, now: datetime) -> Move:
    """A person says how a waiting job ended."""
    if job.state is not JobState.queued:
        raise StateConflict(f"only waiting work can be closed by hand; this is {job.state}", state=str(job.state))
    state = JobState.succeeded if succeeded else JobState.dead
    after = job.with_(state=state, finished_at=now, reason_code="resolved_by_hand", error=error)
    after = after.with_(
        hold_reason=kept_hold(job), waits_for_attempt_id=None if succeeded else job.waits_for_attempt_id
    )
    return Move(job, after, f"closed by {by}")


def exclusivity(job: Job, spec: Mapping[str, Any] | None) -> dict[str, Any]:
    """What else changes with a waiting job's spec: work that is no longer exclusive waits for no old computer."""
    if spec is None:
        return {}
    is_exclusive = bool(spec.get("is_exclusive"))
    if is_exclusive or job.waits_for_attempt_id is None:
        return {"is_exclusive": is_exclusive}
    return {"is_exclusive": False, "waits_for_attempt_id": None, "hold_reason": None}


def kept_hold(job: Job) -> str | None:
    """What an exclusive job still waits for, whatever else happens to it."""
    return job.hold_reason if job.waits_for_attempt_id is not None else None


def _queued(job: Job, *, not_before: datetime | None = None) -> Job:
    return job.with_(state=JobState.queued, current_attempt_id=None, not_before=not_before)


def _stopped(job: Job, now: datetime) -> Job:
    """How a job that was being stopped ends: cancelled, or dead when it was stopped to die."""
    state = JobState.dead if job.reason_code in _STOPPED_TO_DIE else JobState.cancelled
    return job.with_(state=state, finished_at=now, reason_code=job.reason_code or "cancelled")

"""Jobs and attempts as values: what decisions read and moves write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, select

from coordinator.domains.queue.models import attempts, jobs
from coordinator.domains.queue.states import AttemptState, JobState


@dataclass(frozen=True, slots=True)
class Job:
    """The part of a job that decisions need. Changed only by `replace`, written only by `moves`."""

    id: str
    space: str
    kind: str
    agent_id: str | None
    demand_id: str | None
    priority: int
    is_exclusive: bool
    state: JobState
    retry: Mapping[str, Any]
    hold_reason: str | None
    generation: int
    attempts_made: int
    current_attempt_id: str | None
    waits_for_attempt_id: str | None
    fail_count: int
    infra_count: int
    not_before: datetime | None
    deadline_at: datetime | None
    cancel_requested_at: datetime | None
    reason_code: str | None
    error: Mapping[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    version: int

    def with_(self, **changes: Any) -> Job:
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a job."""

    id: str
    job_id: str
    number: int
    generation: int
    node_id: str
    node_name: str
    node_epoch: str | None
    takes_slot: bool
    state: AttemptState
    token_hash: str | None
    dispatched_at: datetime
    published_at: datetime | None
    publish_count: int
    claimed_at: datetime | None
    lease_until: datetime | None
    ended_at: datetime | None
    exit_code: int | None
    reason_code: str | None
    error: Mapping[str, Any] | None
    usage: Mapping[str, Any] | None
    computer: Mapping[str, Any] | None
    result_digest: str | None

    def with_(self, **changes: Any) -> Attempt:
        return replace(self, **changes)


JOB_FIELDS = tuple(Job.__dataclass_fields__)
ATTEMPT_FIELDS = tuple(Attempt.__dataclass_fields__)
_JOB_COLUMNS = tuple(jobs.c[name].label(f"j_{name}") for name in JOB_FIELDS)
_ATTEMPT_COLUMNS = tuple(attempts.c[name].label(f"a_{name}") for name in ATTEMPT_FIELDS)


def select_jobs() -> Select[Any]:
    return select(*_JOB_COLUMNS).select_from(jobs)


def select_pairs() -> Select[Any]:
    """Attempts with their jobs. Lock with `.with_for_update(of=jobs)`: the job's row guards its attempts too."""
    return select(*_ATTEMPT_COLUMNS, *_JOB_COLUMNS).select_from(attempts.join(jobs, jobs.c.id == attempts.c.job_id))


def job_of(row: Row[Any], start: int = 0) -> Job:
    values = dict(zip(JOB_FIELDS, row[start : start + len(JOB_FIELDS)], strict=True))
    values["state"] = JobState(values["state"])
    return Job(**values)


def pair_of(row: Row[Any]) -> tuple[Attempt, Job]:
    values = dict(zip(ATTEMPT_FIELDS, row[: len(ATTEMPT_FIELDS)], strict=True))
    values["state"] = AttemptState(values["state"])
    return Attempt(**values), job_of(row, len(ATTEMPT_FIELDS))


def is_torn(attempt: Attempt, job: Job) -> bool:
    """Whether they cannot be of one moment: a live attempt is its job's current one and stands where the job stands."""
    if attempt.state is AttemptState.dispatched:
        return job.state is not JobState.dispatched or job.current_attempt_id != attempt.id
    if attempt.state is AttemptState.running:
        return job.state not in (JobState.running, JobState.cancelling) or job.current_attempt_id != attempt.id
    return False

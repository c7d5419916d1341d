"""The queue layer as other domains see it: submit work, ask about it, stop it."""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from coordinator.domains.identity.spaces import register_content
from coordinator.domains.queue import admission, breakers, decisions, moves, store
from coordinator.domains.queue.feed import (
    Event,
    Standing,
    events_beyond,
    events_within,
    newest_event_ids,
    standing,
    timelines_beyond,
)
from coordinator.domains.queue.lines import store_lines
from coordinator.domains.queue.nodes import abandon_node, confirm_gone, heartbeat, work_of
from coordinator.domains.queue.pauses import (
    Author,
    Pause,
    Scope,
    every_pause,
    load_and_pauses,
    pause,
    pauses_of,
    resume,
)
from coordinator.domains.queue.rows import Attempt, Job
from coordinator.domains.queue.signals import call_node, nudge
from coordinator.domains.queue.states import ENDED, JobState
from coordinator.domains.queue.store import AgentStats, JobEvent, JobView
from coordinator.domains.queue.sync import sync
from coordinator.domains.queue.tokens import token_hash
from coordinator.resources import Resources
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest
from shared.errors import NotFound, StaleAttempt, StateConflict
from shared.policy.fairness import rank_of

PRIORITIES = {"low": 0, "medium": 1, "high": 2, "critical": 3}
UNSET: Any = object()

register_content("tasks and executions", store.count_in_space)


@dataclass(frozen=True, slots=True)
class NewJob:
    """Work to accept. `needs` says what kind of node it asks for; without an agent it waits for one."""

    id: str
    space: str
    kind: str
    agent_id: str | None
    priority: int
    spec: Mapping[str, Any]
    retry: Mapping[str, Any]
    needs: Mapping[str, Any]
    takes_slot: bool
    deadline_at: datetime | None
    created_by: str | None
    title: str = ""


def submit(tx: Transaction, resources: Resources, new: Sequence[NewJob]) -> None:
    """Accept jobs: from the commit of this transaction on, each of them will end.

    LimitReached when too much waits already; then none of them is accepted.
    """
    if unknown := {item.kind for item in new} - set(admission.KINDS):
        raise ValueError(f"not kinds of jobs: {sorted(unknown)}")
    admission.require_room(tx, resources, new)
    demands = {item.id: _demand(item) for item in new if item.agent_id is not None}
    store.ensure_demands(tx, list({demand.id: demand for demand in demands.values()}.values()))
    aging = resources.settings.priority_aging_seconds
    rows = [_fresh_row(tx, item, demands.get(item.id), aging_seconds=aging) for item in new]
    store.insert_jobs(tx, rows)
    moves.tell(tx, [_accepted_line(tx, item) for item in new])
    moves.announce(tx, [_created_event(tx, item) for item in new])
    nudge(tx, resources, "submitted" if all(item.agent_id for item in new) else "unassigned")


def assign(
    tx: Transaction,
    resources: Resources,
    job_id: str,
    agent_id: str,
    *,
    spec: Mapping[str, Any],
    retry: Mapping[str, Any],
    needs: Mapping[str, Any],
    takes_slot: bool,
) -> None:
    """Give a waiting job without an agent its agent."""
    job = _locked(tx, job_id)
    if job.state is not JobState.queued or job.agent_id is not None:
        raise StateConflict("only waiting work without an agent can be assigned", state=str(job.state))
    demand = store.Demand.of(agent_id, needs, space=job.space, takes_slot=takes_slot)
    store.ensure_demands(tx, [demand])
    given = {"agent_id": agent_id, "demand_id": demand.id, "spec": spec, "retry": retry}
    store.rewrite(tx, job, **given | {"hold_reason": decisions.kept_hold(job)} | decisions.exclusivity(job, spec))
    moves.tell(tx, [_line(tx, job_id, "job.assigned", "an agent takes it", {"agent_id": agent_id})])
    nudge(tx, resources, "assigned")


def amend(
    tx: Transaction,
    resources: Resources,
    job_id: str,
    *,
    priority: int | None = None,
    deadline_at: Any = UNSET,
    spec: Mapping[str, Any] | None = None,
    retry: Mapping[str, Any] | None = None,
    needs: Mapping[str, Any] | None = None,
    agent_id: Any = UNSET,
    takes_slot: bool | None = None,
) -> JobView:
    """Change what a waiting job asks for; 409 once it is on its way."""
    job = _locked(tx, job_id)
    if job.state is not JobState.queued:
        raise StateConflict(f"only waiting work can be changed; this is {job.state}", state=str(job.state))
    changes: dict[str, Any] = {"priority": priority, "spec": spec, "retry": retry}
    changes = {name: value for name, value in changes.items() if value is not None}
    if priority is not None:
        changes["rank"] = _rank(job.created_at, priority, resources.settings.priority_aging_seconds)
    if deadline_at is not UNSET:
        changes["deadline_at"] = deadline_at
    if needs is not None or agent_id is not UNSET:
        changes |= _new_demand(tx, job, needs=needs, agent_id=agent_id, takes_slot=takes_slot)
    store.rewrite(tx, job, **changes | decisions.exclusivity(job, spec))
    told = {"changed": sorted(changes.keys() - {"rank"})}
    moves.tell(tx, [_line(tx, job_id, "job.amended", "changed while it waited", told)])
    nudge(tx, resources, "amended")
    return get(tx, job_id)


def cancel(tx: Transaction, resources: Resources, job_id: str, *, by: str | None, reason: str = "cancelled") -> JobView:
    """Stop a job wherever it stands. Asked again it answers the same; StateConflict once it has ended otherwise."""
    job = _locked(tx, job_id)
    attempt = store.current_attempt(tx, job)
    move = decisions.cancel(job, attempt, reason=f"{reason} by {by}" if by else reason, now=tx.now)
    if move is not None:
        moves.apply(tx, [move])
        nudge(tx, resources, "cancelled")
        if attempt is not None:
            call_node(tx, resources, attempt.node_id)
    return get(tx, job_id)


def resolve(
    tx: Transaction,
    job_id: str,
    *,
    succeeded: bool,
    by: str,
    result: Any = None,
    error: Mapping[str, Any] | None = None,
) -> JobView:
    """Close a waiting job by hand."""
    job = _locked(tx, job_id)
    moves.apply(tx, [decisions.resolve(job, succeeded=succeeded, error=error, by=by, now=tx.now)])
    if result is not None:
        store.set_result(tx, job_id, attempt_id="", result=result)
    return get(tx, job_id)


def hold(tx: Transaction, job_id: str, reason: str) -> None:
    """Say why a job without an agent waits. Writes only when the reason is a new one."""
    store.hold_unassigned(tx, job_id, reason)


def unassigned(tx: Transaction, limit: int, *, after: JobView | None = None) -> list[JobView]:
    """Waiting jobs that have no agent, most urgent first; with `after` those that come behind that one."""
    return store.unassigned(tx, limit, after=after)


def get(tx: Transaction, job_id: str) -> JobView:
    """Everything about one job; NotFound when there is none."""
    view = views(tx, [job_id]).get(job_id)
    if view is None:
        raise NotFound(f"there is no job {job_id}")
    return view


def views(tx: Transaction, job_ids: Collection[str]) -> dict[str, JobView]:
    """Everything about these jobs, attempts and results included."""
    return store.full_views(tx, job_ids)


def list_jobs(
    tx: Transaction,
    *,
    space: str,
    kind: str,
    page: PageRequest,
    states: Collection[JobState] | None = None,
    has_agent: bool | None = None,
    priority: int | None = None,
    agent_id: str | None = None,
) -> Page[JobView]:
    """A page of jobs, newest first, without results."""
    return store.list_jobs(
        tx,
        space=space,
        kind=kind,
        page=page,
        states=states,
        has_agent=has_agent,
        priority=priority,
        agent_id=agent_id,
    )


def stats(tx: Transaction, *, space: str, kind: str) -> dict[tuple[JobState, bool, int], int]:
    """How many jobs there are by (state, has an agent, priority)."""
    return store.stats(tx, space=space, kind=kind)


def set_lane(
    tx: Transaction,
    resources: Resources,
    agent_id: str,
    *,
    hold_reason: str | None,
    max_active: int | None,
    agent_name: str | None = None,
) -> None:
    """Open or close an agent's lane, and say how much may run in it at a time (None: no limit).

    `agent_name` is what the agent is called from now on; None leaves it as it was.
    """
    if agent_name is not None:
        breakers.follow_name(tx, agent_id, agent_name)
    store.set_lane(tx, agent_id, hold_reason=hold_reason, max_active=max_active, agent_name=agent_name)
    nudge(tx, resources, "lane")


def agent_stats(tx: Transaction, agent_ids: Collection[str]) -> dict[str, AgentStats]:
    """Running, waiting and ended work of these agents."""
    return store.agent_stats(tx, agent_ids)


def events_after(
    tx: Transaction, job_id: str, after: int, limit: int, *, event_type: str | None = None
) -> list[JobEvent]:
    """The timeline of a job behind sequence number `after`, oldest first."""
    return store.events_after(tx, job_id, after, limit, event_type=event_type)


def emit(tx: Transaction, event_type: str, *, space: str, subject_id: str | None, data: Mapping[str, Any]) -> None:
    """Write an event for others to follow, in this transaction."""
    moves.announce(
        tx, [{"at": tx.now, "space": space, "type": event_type, "subject_id": subject_id, "data": dict(data)}]
    )


@dataclass(frozen=True, slots=True)
class AttemptFacts:
    """An attempt that a node proved to be its own, running and current."""

    attempt_id: str
    job_id: str
    space: str
    number: int
    spec: Mapping[str, Any]


def require_attempt(tx: Transaction, *, node_id: str, attempt_id: str, token: str) -> AttemptFacts:
    """The attempt if this node may speak for it now; StaleAttempt otherwise."""
    pair = store.pair(tx, attempt_id)
    if pair is None:
        raise NotFound(f"there is no attempt {attempt_id}")
    attempt, job, spec = pair
    if not _speaks_for(attempt, job, node_id, token):
        raise StaleAttempt("this attempt is not (or no longer) this node's to speak for", attempt_id=attempt_id)
    return AttemptFacts(attempt.id, job.id, job.space, attempt.number, spec)


def _speaks_for(attempt: Attempt, job: Job, node_id: str, token: str) -> bool:
    return (
        attempt.node_id == node_id
        and attempt.state == "running"
        and job.current_attempt_id == attempt.id
        and attempt.token_hash is not None
        and hmac.compare_digest(attempt.token_hash, token_hash(token))
    )


def busy_agents(tx: Transaction) -> frozenset[str]:
    """The agents that have work on a node now."""
    return store.busy_agents(tx)


def live_jobs_using(tx: Transaction, file_id: str) -> int:
    """How many unfinished jobs name this file as an input."""
    return store.live_jobs_using(tx, file_id)


def _locked(tx: Transaction, job_id: str) -> Job:
    job = store.lock_job(tx, job_id)
    if job is None:
        raise NotFound(f"there is no job {job_id}")
    return job


def _demand(item: NewJob) -> store.Demand:
    assert item.agent_id is not None
    return store.Demand.of(item.agent_id, item.needs, space=item.space, takes_slot=item.takes_slot)


def _new_demand(tx: Transaction, job: Job, *, needs: Any, agent_id: Any, takes_slot: bool | None) -> dict[str, Any]:
    owner = job.agent_id if agent_id is UNSET else agent_id
    if owner is None:
        return {"agent_id": None, "demand_id": None}
    current = store.demand(tx, job.demand_id)
    demand = store.Demand.of(
        owner,
        needs if needs is not None else (current.needs if current else {}),
        space=job.space,
        takes_slot=takes_slot if takes_slot is not None else (current.takes_slot if current else True),
    )
    store.ensure_demands(tx, [demand])
    return {"agent_id": owner, "demand_id": demand.id, "hold_reason": decisions.kept_hold(job)}


def _rank(created_at: datetime, priority: int, aging_seconds: float) -> int:
    return rank_of(created_ms=int(created_at.timestamp() * 1000), priority=priority, aging_seconds=aging_seconds)


def _fresh_row(tx: Transaction, item: NewJob, demand: store.Demand | None, *, aging_seconds: float) -> dict[str, Any]:
    return {
        "id": item.id,
        "space": item.space,
        "kind": item.kind,
        "agent_id": item.agent_id,
        "demand_id": demand.id if demand else None,
        "priority": item.priority,
        "rank": _rank(tx.now, item.priority, aging_seconds),
        "is_exclusive": bool(item.spec.get("is_exclusive")),
        "state": str(JobState.queued),
        "spec": dict(item.spec),
        "retry": dict(item.retry),
        "generation": 1,
        "attempts_made": 0,
        "fail_count": 0,
        "infra_count": 0,
        "deadline_at": item.deadline_at,
        "created_by": item.created_by,
        "created_at": tx.now,
        "updated_at": tx.now,
        "version": 1,
    }


def _accepted_line(tx: Transaction, item: NewJob) -> dict[str, Any]:
    return _line(tx, item.id, "job.queued", "accepted", {"to": "queued", "priority": item.priority})


def _line(tx: Transaction, job_id: str, event_type: str, message: str, data: Mapping[str, Any]) -> dict[str, Any]:
    return {"job_id": job_id, "at": tx.now, "type": event_type, "level": "info", "message": message, "data": dict(data)}


def _created_event(tx: Transaction, item: NewJob) -> dict[str, Any]:
    data = {"id": item.id, "state": "queued", "agent_id": item.agent_id, "title": item.title}
    return {"at": tx.now, "space": item.space, "type": f"{item.kind}.created", "subject_id": item.id, "data": data}


__all__ = [
    "ENDED",
    "PRIORITIES",
    "UNSET",
    "AgentStats",
    "AttemptFacts",
    "Author",
    "Event",
    "JobEvent",
    "JobState",
    "JobView",
    "NewJob",
    "Pause",
    "Scope",
    "Standing",
    "abandon_node",
    "agent_stats",
    "amend",
    "assign",
    "busy_agents",
    "call_node",
    "cancel",
    "confirm_gone",
    "emit",
    "events_after",
    "events_beyond",
    "events_within",
    "every_pause",
    "get",
    "heartbeat",
    "hold",
    "list_jobs",
    "live_jobs_using",
    "load_and_pauses",
    "newest_event_ids",
    "nudge",
    "pause",
    "pauses_of",
    "require_attempt",
    "resolve",
    "resume",
    "set_lane",
    "standing",
    "stats",
    "store_lines",
    "submit",
    "sync",
    "timelines_beyond",
    "unassigned",
    "views",
    "work_of",
]

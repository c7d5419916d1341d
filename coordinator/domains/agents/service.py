"""Agents: made, changed, started, stopped, deleted; and what others need to know to give one work."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from coordinator.config import Settings
from coordinator.domains.agents import store
from coordinator.domains.agents.states import (
    NEEDS_COMPUTER,
    RUNNABLE,
    AgentStatus,
    Runtime,
    hold_reason,
    shown_status,
    statuses_meant,
)
from coordinator.domains.agents.store import Agent, Filters
from coordinator.domains.identity.spaces import register_content
from coordinator.domains.queue import service as queue
from coordinator.resources import Resources
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest
from shared.errors import Conflict, Invalid, NotFound, StateConflict
from shared.ids import new_id

__all__ = [
    "COMPUTER_DEFAULTS",
    "NEEDS_COMPUTER",
    "RUNNABLE",
    "Agent",
    "AgentStatus",
    "Runtime",
    "change",
    "create",
    "delete",
    "find_started",
    "find_to_use",
    "get",
    "list_agents",
    "living",
    "merged",
    "merged_placement",
    "pause",
    "resume",
    "set_status",
    "stats_of",
    "whole_computer",
]

COMPUTER_DEFAULTS: Mapping[str, Any] = {
    "driver": None,
    "image": None,
    "min_isolation": "none",
    "cpus": 1.0,
    "memory_mb": 512,
    "pids": 256,
    "disk_mb": 1024,
    "network": "none",
}
FIRST_VERSION = "1.0.0"
MERGED = ("computer", "retry")
"""Objects of which a change says only what is to be different."""
CANCEL_BATCH = 500

register_content("agents", store.count_in_space)


def create(
    tx: Transaction, resources: Resources, body: Mapping[str, Any], *, space: str, by: str, author: str
) -> Agent:
    """A new agent, ready for work at once."""
    agent = _new_agent(tx, body, space=space, by=by, author=author)
    store.put(tx, agent)
    _open_or_close(tx, resources, agent)
    _tell(tx, agent)
    return agent


def get(tx: Transaction, space: str, agent_id: str) -> Agent:
    return _found(store.find(tx, space, agent_id), agent_id)


def get_to_change(tx: Transaction, space: str, agent_id: str) -> Agent:
    """The agent, locked for the rest of the transaction."""
    return _found(store.find_to_change(tx, space, agent_id), agent_id)


def find_to_use(tx: Transaction, space: str, agent_ids: Collection[str]) -> dict[str, Agent]:
    """Those of the agents that live; none of them can be deleted before this transaction ends."""
    return {agent.id: agent for agent in store.find_to_use(tx, space, agent_ids)} if agent_ids else {}


def living(tx: Transaction, space: str, agent_ids: Collection[str]) -> frozenset[str]:
    """Those of the ids whose agents were not deleted."""
    return store.living(tx, space, agent_ids) if agent_ids else frozenset()


def find_started(tx: Transaction) -> list[Agent]:
    """All agents, of all spaces, that take work."""
    return store.find_started(tx)


def list_agents(
    tx: Transaction,
    space: str,
    page: PageRequest,
    *,
    words: Iterable[str] = (),
    role: str | None = None,
    search: str | None = None,
) -> Page[Agent]:
    """Agents, newest first. Each of `words` narrows the list to the statuses it means, in either vocabulary."""
    meant = [statuses_meant(word) for word in words]
    statuses = frozenset.intersection(*meant) if meant else None
    # An idle agent is busy exactly while the queue runs something for it, so telling the two apart takes the queue.
    parted = statuses is not None and (AgentStatus.idle in statuses) != (AgentStatus.busy in statuses)
    busy = queue.busy_agents(tx) if parted else frozenset()
    return store.list_page(tx, space, Filters(statuses, role, search, busy), page)


def stats_of(tx: Transaction, agents: Iterable[Agent]) -> dict[str, queue.AgentStats]:
    """The work of these agents in numbers."""
    ids = [agent.id for agent in agents]
    found = queue.agent_stats(tx, ids)
    return {agent_id: found.get(agent_id) or queue.AgentStats() for agent_id in ids}


def change(tx: Transaction, resources: Resources, agent: Agent, body: Mapping[str, Any]) -> Agent:
    """Apply what a client wants changed. Work that was accepted before keeps what it was accepted with."""
    changes = _changes(agent, body)
    return _write(tx, resources, agent, changes) if changes else agent


def set_status(tx: Transaction, resources: Resources, agent: Agent, status: AgentStatus) -> Agent:
    """Start or stop an agent. Doing it again changes nothing."""
    return agent if agent.status is status else _write(tx, resources, agent, {"status": status})


def pause(tx: Transaction, resources: Resources, agent: Agent) -> Agent:
    """Hold a started agent back. One that does not run anyway is left alone: resuming it would start it."""
    if agent.status not in (AgentStatus.idle, AgentStatus.paused):
        raise StateConflict(f"only a started agent can be paused; {agent.name} is {agent.status}", status=agent.status)
    return set_status(tx, resources, agent, AgentStatus.paused)


def resume(tx: Transaction, resources: Resources, agent: Agent) -> Agent:
    """Let a paused agent work again; any other stays as it is."""
    return set_status(tx, resources, agent, AgentStatus.idle) if agent.status is AgentStatus.paused else agent


def delete(tx: Transaction, resources: Resources, agent: Agent, *, force: bool, by: str) -> None:
    """Delete an agent that has no unfinished work; with `force` that work is cancelled.

    Accepted work always ends. Deleting silently would leave it waiting for an agent that never comes back, so the
    caller decides: finish it, cancel it, or say `force`.
    """
    stats = queue.agent_stats(tx, [agent.id]).get(agent.id) or queue.AgentStats()
    unfinished = stats.active + stats.waiting
    if unfinished and not force:
        raise Conflict(
            f"agent {agent.name} has {unfinished} unfinished jobs; cancel them, or delete with force=true",
            unfinished=unfinished,
        )
    if unfinished:
        _cancel_all(tx, resources, agent, by=by)
    store.change(tx, agent, {"deleted_at": tx.now, "status": AgentStatus.offline})
    queue.set_lane(
        tx, resources, agent.id, hold_reason=f"agent_deleted: agent {agent.name} was deleted", max_active=None
    )
    queue.emit(tx, "agent.deleted", space=agent.space, subject_id=agent.id, data={"id": agent.id, "name": agent.name})


def whole_computer(agent: Agent, settings: Settings) -> dict[str, Any]:
    """The agent's computer with every limit it has, given or not."""
    return {**COMPUTER_DEFAULTS, "timeout_seconds": settings.job_timeout_seconds, **agent.computer}


def merged(current: Mapping[str, Any], partial: Mapping[str, Any] | None) -> dict[str, Any]:
    """`current` with what `partial` says instead; null takes a key away."""
    both = {**current, **(partial or {})}
    return {name: value for name, value in both.items() if value is not None}


def merged_placement(current: Mapping[str, Any], partial: Mapping[str, Any] | None) -> dict[str, Any]:
    """Like `merged`; labels add up."""
    both = merged(current, partial)
    labels = {**(current.get("labels") or {}), **((partial or {}).get("labels") or {})}
    return {**both, "labels": labels} if labels else both


def _new_agent(tx: Transaction, body: Mapping[str, Any], *, space: str, by: str, author: str) -> Agent:
    noted = {"version": FIRST_VERSION, "author": author, **body.get("metadata", {})}
    return Agent(
        id=new_id(),
        space=space,
        name=body["name"],
        description=body.get("description", ""),
        role=body.get("role", "general"),
        runtime=Runtime(body["runtime"]) if "runtime" in body else _implied_runtime(body),
        status=AgentStatus.idle,
        computer=merged({}, body.get("computer")),
        placement=_placement({}, body),
        retry=merged({}, body.get("retry")),
        breakers=_distinct(body.get("breakers") or []),
        is_exclusive=body.get("exclusive", False),
        max_concurrent_tasks=body.get("max_concurrent_tasks"),
        llm_provider=body.get("llm_provider"),
        llm_model=body.get("llm_model"),
        system_prompt=body.get("system_prompt"),
        temperature=body.get("temperature"),
        max_tokens=body.get("max_tokens"),
        enabled_tools=body.get("enabled_tools", {}),
        flow=body.get("flow"),
        tags=_distinct(body.get("tags", noted.pop("tags", []))),
        metadata={name: value for name, value in noted.items() if name != "tags"},
        created_by=by,
        created_at=tx.now,
        updated_at=tx.now,
        version=1,
    )


def _implied_runtime(body: Mapping[str, Any]) -> Runtime:
    """What a client that knows no runtimes means: a flow runs as a flow, a model is asked, else a script is run."""
    if body.get("flow"):
        return Runtime.flow
    if any(body.get(name) for name in ("llm_provider", "llm_model", "system_prompt")):
        return Runtime.llm
    return Runtime.command


def _placement(current: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """The placement asked for; `worker_id` beside it is another spelling of the one inside."""
    asked = dict(body.get("placement") or {})
    if "worker_id" in body:
        if "worker_id" in asked and asked["worker_id"] != body["worker_id"]:
            raise Invalid(
                "worker_id: differs from placement.worker_id",
                field="worker_id",
                reason="differs from placement.worker_id",
            )
        asked["worker_id"] = body["worker_id"]
    return merged(current, asked)


_PLAIN = (
    "name",
    "description",
    "role",
    "max_concurrent_tasks",
    "llm_provider",
    "llm_model",
    "system_prompt",
    "temperature",
    "max_tokens",
    "enabled_tools",
    "flow",
)


def _changes(agent: Agent, body: Mapping[str, Any]) -> dict[str, Any]:
    wanted: dict[str, Any] = {name: body[name] for name in _PLAIN if name in body}
    wanted |= {name: merged(getattr(agent, name), body[name]) for name in MERGED if name in body}
    if "exclusive" in body:
        wanted["is_exclusive"] = body["exclusive"]
    if "breakers" in body:
        wanted["breakers"] = _distinct(body["breakers"] or [])
    if "runtime" in body:
        wanted["runtime"] = Runtime(body["runtime"])
    if "placement" in body or "worker_id" in body:
        wanted["placement"] = _placement(agent.placement, body)
    if "metadata" in body:
        noted = merged(agent.metadata, body["metadata"])
        wanted["tags"] = _distinct(noted.pop("tags", agent.tags))
        wanted["metadata"] = noted
    if "tags" in body:
        wanted["tags"] = _distinct(body["tags"])
    if (status := _wanted_status(agent, body)) is not None:
        wanted["status"] = status
    return {name: value for name, value in wanted.items() if getattr(agent, name) != value}


def _wanted_status(agent: Agent, body: Mapping[str, Any]) -> AgentStatus | None:
    if "status" in body:
        return AgentStatus(body["status"])
    if "is_active" not in body or body["is_active"] == (agent.status is AgentStatus.idle):
        return None
    return AgentStatus.idle if body["is_active"] else AgentStatus.offline


def _write(tx: Transaction, resources: Resources, agent: Agent, changes: Mapping[str, Any]) -> Agent:
    changed = replace(agent, **changes, updated_at=tx.now, version=agent.version + 1)
    store.change(tx, agent, dict(changes))
    if {"name", "status", "max_concurrent_tasks"} & changes.keys():
        _open_or_close(tx, resources, changed)
    if "status" in changes:
        _tell(tx, changed)
    return changed


def _open_or_close(tx: Transaction, resources: Resources, agent: Agent) -> None:
    reason = hold_reason(agent.status, agent.name)
    queue.set_lane(
        tx, resources, agent.id, hold_reason=reason, max_active=agent.max_concurrent_tasks, agent_name=agent.name
    )


def _tell(tx: Transaction, agent: Agent) -> None:
    data = {"id": agent.id, "name": agent.name, "status": str(shown_status(agent.status, 0))}
    queue.emit(tx, "agent.status", space=agent.space, subject_id=agent.id, data=data)


def _cancel_all(tx: Transaction, resources: Resources, agent: Agent, *, by: str) -> None:
    live = set(queue.JobState) - set(queue.ENDED) - {queue.JobState.cancelling}
    for kind in ("task", "execution"):
        while True:
            page = queue.list_jobs(
                tx, space=agent.space, kind=kind, states=live, agent_id=agent.id, page=PageRequest(limit=CANCEL_BATCH)
            )
            for job in page.items:
                queue.cancel(tx, resources, job.id, by=by, reason="cancelled with its agent")
            if len(page.items) < CANCEL_BATCH:
                break


def _distinct(tags: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(tags))


def _found(agent: Agent | None, agent_id: str) -> Agent:
    if agent is None:
        raise NotFound("there is no such agent", id=agent_id)
    return agent

"""Endpoints of agents."""

from __future__ import annotations

from typing import Any

from coordinator.config import Settings
from coordinator.domains.agents import service
from coordinator.domains.agents.schemas import AgentBody, AgentChanges, AgentQuery, AgentView, DeleteAgentQuery
from coordinator.domains.agents.states import STATE_OF, AgentState, AgentStatus, shown_status
from coordinator.domains.agents.store import Agent
from coordinator.domains.queue.service import AgentStats
from coordinator.http.slice import Call, ListOf, Page, Slice
from shared.policy.retry import RetryPolicy

agents = Slice("agents", "Who does the work, and with what")

EXAMPLE = {
    "name": "reporter",
    "runtime": "command",
    "computer": {"cpus": 1, "memory_mb": 512, "timeout_seconds": 600},
    "placement": {"labels": ["gpu"]},
    "retry": {"max_attempts": 3, "base_seconds": 5},
    "tags": ["reports"],
}


@agents.get("/agents", may="agents:read", query=AgentQuery, reply=ListOf("agents", AgentView))
def list_agents(call: Call) -> Page[dict[str, Any]]:
    """List agents.

    `status` and `status_filter` are the same filter and take both vocabularies: idle, busy, offline, paused,
    maintenance, error, and active, inactive. `search` looks into name and description.
    """
    words = [call.query[name] for name in ("status", "status_filter") if name in call.query]
    found = service.list_agents(
        call.tx, call.space, call.page, words=words, role=call.query.get("role"), search=call.query.get("search")
    )
    stats = service.stats_of(call.tx, found.items)
    settings = call.resources.settings
    return Page([_shown(agent, stats[agent.id], settings) for agent in found.items], found.total)


@agents.post("/agents", may="agents:write", body=AgentBody, reply=AgentView, status=201, etag=True, example=EXAMPLE)
def create_agent(call: Call) -> dict[str, Any]:
    """Create an agent.

    Only `name` is needed. Without `runtime` a body with `flow` makes a flow agent, one with `llm_provider`,
    `llm_model` or `system_prompt` an llm agent, any other a command agent.
    """
    actor = call.actor
    agent = service.create(call.tx, call.resources, call.body, space=call.space, by=actor.id, author=actor.name)
    return _shown(agent, AgentStats(), call.resources.settings)


@agents.get("/agents/<id:agent_id>", may="agents:read", reply=AgentView, etag=True)
def get_agent(call: Call, agent_id: str) -> dict[str, Any]:
    """One agent."""
    return _answer(call, service.get(call.tx, call.space, agent_id))


@agents.patch(
    "/agents/<id:agent_id>",
    may="agents:write",
    body=AgentChanges,
    reply=AgentView,
    etag=True,
    example={"tags": ["beta"]},
)
def update_agent(call: Call, agent_id: str) -> dict[str, Any]:
    """Change an agent.

    What is left out stays, null clears. `computer`, `placement`, `retry` and `metadata` are merged key by key.
    Work that was accepted before keeps what it was accepted with.
    """
    agent = _to_change(call, agent_id)
    return _answer(call, service.change(call.tx, call.resources, agent, call.body))


@agents.delete(
    "/agents/<id:agent_id>",
    may="agents:write",
    query=DeleteAgentQuery,
    transaction="write",
    status=204,
    etag=True,
    errors=(409,),
)
def delete_agent(call: Call, agent_id: str) -> None:
    """Delete an agent.

    409 while it has unfinished work, unless `force=true`, which cancels that work. Its history stays readable.
    """
    agent = _to_change(call, agent_id)
    service.delete(call.tx, call.resources, agent, force=call.query["force"], by=call.actor.name)


@agents.post("/agents/<id:agent_id>/start", may="agents:write", reply=AgentView, etag=True)
def start_agent(call: Call, agent_id: str) -> dict[str, Any]:
    """Start an agent: work that waited for it may run."""
    return _answer(call, service.set_status(call.tx, call.resources, _to_change(call, agent_id), AgentStatus.idle))


@agents.post("/agents/<id:agent_id>/stop", may="agents:write", reply=AgentView, etag=True)
def stop_agent(call: Call, agent_id: str) -> dict[str, Any]:
    """Stop an agent: what runs goes on, what waits is held with a reason."""
    return _answer(call, service.set_status(call.tx, call.resources, _to_change(call, agent_id), AgentStatus.offline))


@agents.post(
    "/agents/<id:agent_id>/pause",
    may="agents:write",
    reply=AgentView,
    etag=True,
    errors=(409,),
    audit="agent.paused",
)
def pause_agent(call: Call, agent_id: str) -> dict[str, Any]:
    """Pause an agent: what runs goes on, what waits is held with a reason.

    Again is fine; 409 for an agent that is stopped, in maintenance or in error, as resuming would start it.
    """
    return _answer(call, service.pause(call.tx, call.resources, _to_change(call, agent_id)))


@agents.post("/agents/<id:agent_id>/resume", may="agents:write", reply=AgentView, etag=True, audit="agent.resumed")
def resume_agent(call: Call, agent_id: str) -> dict[str, Any]:
    """Resume a paused agent; one that is not paused stays as it is."""
    return _answer(call, service.resume(call.tx, call.resources, _to_change(call, agent_id)))


def _to_change(call: Call, agent_id: str) -> Agent:
    agent = service.get_to_change(call.tx, call.space, agent_id)
    call.require_version(agent.version)
    return agent


def _answer(call: Call, agent: Agent) -> dict[str, Any]:
    return _shown(agent, service.stats_of(call.tx, [agent])[agent.id], call.resources.settings)


def _shown(agent: Agent, stats: AgentStats, settings: Settings) -> dict[str, Any]:
    status = shown_status(agent.status, stats.active)
    ended = stats.succeeded + stats.failed
    policy = RetryPolicy(settings.retry_max_attempts, settings.retry_base_seconds, settings.retry_cap_seconds)
    return {
        "id": agent.id,
        "space": agent.space,
        "name": agent.name,
        "description": agent.description,
        "role": agent.role,
        "runtime": str(agent.runtime),
        "status": str(status),
        "state": str(STATE_OF[status]),
        "is_active": STATE_OF[status] is AgentState.active,
        "computer": service.whole_computer(agent, settings),
        "placement": {"worker_id": None, "group": None, "labels": {}, **agent.placement},
        "worker_id": agent.placement.get("worker_id"),
        "retry": policy.merged(agent.retry).to_json(),
        "breakers": agent.breakers,
        "exclusive": agent.is_exclusive,
        "max_concurrent_tasks": agent.max_concurrent_tasks,
        "llm_provider": agent.llm_provider,
        "llm_model": agent.llm_model,
        "system_prompt": agent.system_prompt,
        "temperature": agent.temperature,
        "max_tokens": agent.max_tokens,
        "enabled_tools": agent.enabled_tools,
        "flow": agent.flow,
        "tags": agent.tags,
        "author": agent.metadata.get("author"),
        "metadata": {"version": service.FIRST_VERSION, "author": None, **agent.metadata, "tags": agent.tags},
        "execution_count": ended,
        "success_rate": round(stats.succeeded / ended, 4) if ended else None,
        "tasks_active": stats.active,
        "tasks_waiting": stats.waiting,
        "tasks_completed": stats.succeeded,
        "tasks_failed": stats.failed,
        "created_by": agent.created_by,
        "created_at": agent.created_at,
        "updated_at": agent.updated_at,
        "version": agent.version,
    }

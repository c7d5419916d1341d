"""Endpoints of executions."""

from __future__ import annotations

from typing import Any

from coordinator.domains.tasks.api import shown
from coordinator.domains.tasks.api.events import events_of
from coordinator.domains.tasks.schemas import (
    EventsQuery,
    EventsView,
    ExecuteBody,
    ExecutionAccepted,
    ExecutionQuery,
    ExecutionSummary,
    ExecutionView,
)
from coordinator.domains.tasks.service import executions as service
from coordinator.domains.tasks.service.executions import KIND
from coordinator.domains.tasks.states import ExecutionStatus
from coordinator.http.slice import Call, ListOf, Page, Reply, Slice

executions = Slice("executions", "An agent, run once on an input")


@executions.post(
    "/agents/<id:agent_id>/execute",
    may="executions:write",
    body=ExecuteBody,
    reply=ExecutionAccepted,
    status=202,
    errors=(429,),
    example={"input": {"command": "echo hello"}, "options": {"timeout": 30000}},
)
def execute_agent(call: Call, agent_id: str) -> Reply:
    """Run an agent on an input.

    A command agent runs `input.command`, a python agent `input.code`, an echo agent answers the input.
    """
    body = call.body
    if "input" not in body and "input_data" in body:
        body = {**body, "input": body["input_data"]}
    whole = service.create(call.tx, call.resources, agent_id, body, space=call.space, by=call.actor.id)
    job = whole.job
    accepted = {
        "id": job.id,
        "execution_id": job.id,
        "agent_id": job.agent_id,
        "status": str(whole.status),
        "created_at": job.created_at,
    }
    return Reply(accepted, headers={"Location": f"/api/v1/executions/{job.id}"})


@executions.get(
    "/executions", may="executions:read", query=ExecutionQuery, reply=ListOf("executions", ExecutionSummary)
)
def list_executions(call: Call) -> Page[dict[str, Any]]:
    """List executions."""
    word = call.query.get("status")
    found = service.list_executions(
        call.tx,
        call.space,
        call.page,
        status=ExecutionStatus(word) if word else None,
        agent_id=call.query.get("agent_id"),
    )
    return Page([shown.execution_summary(whole) for whole in found.items], found.total)


@executions.get("/executions/<id:execution_id>", may="executions:read", reply=ExecutionView, etag=True)
def get_execution(call: Call, execution_id: str) -> dict[str, Any]:
    """One execution with its result, the first lines of its log, files, attempts and usage."""
    return shown.execution_view(call.tx, service.get(call.tx, call.space, execution_id))


@executions.post(
    "/executions/<id:execution_id>/cancel", may="executions:write", reply=ExecutionView, etag=True, errors=(409,)
)
def cancel_execution(call: Call, execution_id: str) -> dict[str, Any]:
    """Cancel an execution; a running one is running until its computer is gone."""
    whole = service.cancel(call.tx, call.resources, call.space, execution_id, by=call.actor.name)
    return shown.execution_view(call.tx, whole)


@executions.get(
    "/executions/<id:execution_id>/events",
    may="executions:read",
    query=EventsQuery,
    reply=EventsView,
    transaction="none",
)
def list_execution_events(call: Call, execution_id: str) -> dict[str, Any]:
    """What happened to an execution, log lines included; waits for news if asked to."""
    return events_of(call, KIND, execution_id)

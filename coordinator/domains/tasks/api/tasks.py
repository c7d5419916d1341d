"""Endpoints of tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coordinator.domains.tasks.api import shown
from coordinator.domains.tasks.api.events import events_of
from coordinator.domains.tasks.schemas import (
    BulkBody,
    BulkView,
    EventsQuery,
    EventsView,
    TaskBody,
    TaskChanges,
    TaskQuery,
    TaskStatsView,
    TaskSummary,
    TaskView,
)
from coordinator.domains.tasks.service import orders
from coordinator.domains.tasks.service import tasks as service
from coordinator.domains.tasks.service.tasks import KIND, WholeTask
from coordinator.domains.tasks.states import TaskStatus
from coordinator.http.reading import load
from coordinator.http.slice import Call, ListOf, Page, Slice
from shared.errors import Invalid, LongshoreError

tasks = Slice("tasks", "Work that somebody wants done, by a named agent or any that can")

EXAMPLE = {
    "title": "Count the words",
    "instructions": "wc -w /work/input/report.txt",
    "priority": "high",
    "retry": {"max_attempts": 2, "base_seconds": 0.5},
}
_ITEM = TaskBody()


@tasks.get("/tasks", may="tasks:read", query=TaskQuery, reply=ListOf("tasks", TaskSummary))
def list_tasks(call: Call) -> Page[dict[str, Any]]:
    """List tasks.

    `status` and `status_filter` are the same filter.
    """
    words = {call.query[name] for name in ("status", "status_filter") if name in call.query}
    if len(words) > 1:
        return Page([], 0)
    found = service.list_tasks(
        call.tx,
        call.space,
        call.page,
        status=TaskStatus(words.pop()) if words else None,
        priority=call.query.get("priority"),
        agent_id=call.query.get("agent_id"),
    )
    return Page([shown.task_summary(whole) for whole in found.items], found.total)


@tasks.post(
    "/tasks",
    may="tasks:write",
    body=TaskBody,
    reply=TaskView,
    status=201,
    etag=True,
    errors=(429,),
    example=EXAMPLE,
)
def create_task(call: Call) -> dict[str, Any]:
    """Create a task.

    `instructions` are run as a script by command and python agents. Without `agent_id` the task is pending until an
    agent with the required tools, room and a node takes it.
    """
    whole = service.create(call.tx, call.resources, call.body, space=call.space, by=call.actor.id)
    return shown.fresh_task(whole)


@tasks.post(
    "/tasks/bulk",
    may="tasks:create",
    body=BulkBody,
    reply=BulkView,
    errors=(429,),
    example={"tasks": [{"title": "One"}, {"title": "Two", "priority": "low"}]},
)
def create_tasks(call: Call) -> dict[str, Any]:
    """Create up to 1000 tasks in one transaction.

    Each gets its own answer, in the order given: those that are valid are accepted, the others say what is wrong.
    """
    read = [_read(item, call.space) for item in call.body["tasks"]]
    bodies = [item for item in read if not isinstance(item, LongshoreError)]
    made = iter(service.create_many(call.tx, call.resources, bodies, space=call.space, by=call.actor.id))
    results = [
        _result(index, item if isinstance(item, LongshoreError) else next(made)) for index, item in enumerate(read)
    ]
    created = sum(result["status"] == "created" for result in results)
    return {"results": results, "created": created, "failed": len(results) - created}


@tasks.get("/tasks/stats", may="tasks:read", reply=TaskStatsView)
def get_task_stats(call: Call) -> dict[str, Any]:
    """Count the tasks by status and by priority."""
    stats = service.stats(call.tx, call.space)
    return {"total": stats.total, "by_status": dict(stats.by_status), "by_priority": dict(stats.by_priority)}


@tasks.get("/tasks/<id:task_id>", may="tasks:read", reply=TaskView, etag=True)
def get_task(call: Call, task_id: str) -> dict[str, Any]:
    """One task with its result, the first lines of its log, files, attempts and usage."""
    return shown.task_view(call.tx, service.get(call.tx, call.space, task_id))


@tasks.patch(
    "/tasks/<id:task_id>",
    may="tasks:write",
    body=TaskChanges,
    reply=TaskView,
    etag=True,
    errors=(409,),
    example={"priority": "critical"},
)
def update_task(call: Call, task_id: str) -> dict[str, Any]:
    """Change a task.

    `title`, `description`, `progress_percent` and `metadata` change at any time, the rest while it waits. Status
    cancelled stops it; completed (with `result`) and failed (with `error`) close a waiting task by hand.
    """
    whole = service.get_to_change(call.tx, call.space, task_id)
    call.require_version(whole.version)
    changed = service.change(call.tx, call.resources, whole, call.body, by=call.actor.name)
    return shown.task_view(call.tx, changed)


@tasks.post("/tasks/<id:task_id>/cancel", may="tasks:write", reply=TaskView, etag=True, errors=(409,))
def cancel_task(call: Call, task_id: str) -> dict[str, Any]:
    """Cancel a task; a running one is in progress until its computer is gone."""
    whole: WholeTask = service.cancel(call.tx, call.resources, call.space, task_id, by=call.actor.name)
    return shown.task_view(call.tx, whole)


@tasks.get("/tasks/<id:task_id>/events", may="tasks:read", query=EventsQuery, reply=EventsView, transaction="none")
def list_task_events(call: Call, task_id: str) -> dict[str, Any]:
    """What happened to a task, log lines included; waits for news if asked to."""
    return events_of(call, KIND, task_id)


def _read(item: Any, space: str) -> Mapping[str, Any] | LongshoreError:
    if not isinstance(item, dict):
        return Invalid("a task must be a JSON object", reason="must be a JSON object")
    try:
        body = load(_ITEM, item)
    except LongshoreError as refused:
        return refused
    return body if body.get("space", space) == space else orders.fault("space", "must be the space of the request")


def _result(index: int, made: WholeTask | LongshoreError) -> dict[str, Any]:
    if isinstance(made, LongshoreError):
        error = {"code": made.code, "message": made.message, "details": made.details}
        return {"index": index, "status": "error", "error": error}
    return {"index": index, "status": "created", "task": shown.task_summary(made)}

"""What clients are told, in which words: the messages of both kinds of sockets, made from rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from coordinator.domains.queue.service import ENDED, Event, JobEvent, JobState, JobView, Standing
from coordinator.domains.tasks.states import execution_status, task_status
from shared.clock import rfc3339

EVENT_TYPES = (
    "agent.status",
    "task.created",
    "task.updated",
    "task.completed",
    "task.failed",
    "worker.online",
    "worker.offline",
    "message.new",
    "notification",
    "system.alert",
)
"""What a client hears that has not chosen anything."""

FURTHER_TYPES = (
    "agent.deleted",
    "breaker.opened",
    "breaker.half_open",
    "breaker.closed",
    "execution.created",
    "execution.updated",
    "execution.completed",
    "execution.failed",
    "execution.cancelled",
    "worker.paused",
    "worker.resumed",
)
"""What a client hears that asked for it by name, or for everything."""

SHOWN_AS = {"task.cancelled": "task.updated"}
"""Published names for what happens under a name of ours; the data says what it was."""

PERSONAL = {"notification": "user_id", "message.new": "user_id"}
"""Events that concern one person alone, and where their data names that person."""

RIGHTS = {
    "agent": "agents:get",
    "breaker": "circuit_breakers:get",
    "execution": "executions:get",
    "task": "tasks:get",
    "worker": "workers:get",
}
"""The right that events of a kind need; other kinds need none beyond the socket's own."""

OF_THE_FLEET = frozenset({"breaker", "worker"})
"""Kinds of events that are no space's own."""

LONGEST_RESULT = 64 * 1024
"""Larger results are fetched from the execution itself."""

STARTED, COMPLETED, FAILED, CANCELLED, NODE = "started", "completed", "failed", "cancelled", "node_executed"
_ENDS = {"job.succeeded": COMPLETED, "job.dead": FAILED, "job.cancelled": CANCELLED}


@dataclass(frozen=True, slots=True)
class Told:
    """An event with the name that clients know it by, and the text that all of them are sent."""

    event: Event
    type: str
    text: str


def told(event: Event) -> Told:
    """The event as clients of `/ws` get it, made into text once."""
    name = SHOWN_AS.get(event.type, event.type)
    return Told(event, name, text_of({"type": name, "data": _event_data(event), "ts": rfc3339(event.at)}))


def alert(message: str, at: datetime) -> str:
    """A `system.alert` about the socket it is sent on."""
    return text_of({"type": "system.alert", "data": {"severity": "warning", "message": message}, "ts": rfc3339(at)})


def text_of(message: Mapping[str, Any]) -> str:
    """A message as it is sent."""
    return orjson.dumps(message).decode()


def _event_data(event: Event) -> dict[str, Any]:
    data = dict(event.data)
    kind = event.type.partition(".")[0]
    state = data.pop("state", None)
    if state is not None and kind in ("task", "execution"):
        data["status"] = _status(kind, JobState(state), has_agent=data.get("agent_id") is not None)
        data[f"{kind}_id"] = event.subject_id
    return data


def _status(kind: str, state: JobState, *, has_agent: bool) -> str:
    return str(execution_status(state) if kind == "execution" else task_status(state, has_agent=has_agent))


def is_end(line: JobEvent) -> bool:
    """Whether this row is how a job ended (it may have been driven again since)."""
    return line.type in _ENDS


def line_message(line: JobEvent, job: Standing, outcome: JobView | None = None) -> dict[str, Any]:
    """A row of a timeline as clients of a stream get it; `outcome` is how the job ended, for its last row."""
    name, data = _line(line, job)
    if outcome is not None:
        data |= _outcome(outcome, job.kind)
    return {"type": name, "data": data, "seq": line.id, "ts": rfc3339(line.at)}


def _line(line: JobEvent, job: Standing) -> tuple[str, dict[str, Any]]:
    if line.type == "log":
        return "log", {
            "message": line.message,
            "level": line.level,
            "stream": line.stream,
            "attempt": line.attempt_number,
        }
    facts = dict(line.data or {})
    data = {"message": line.message, "level": line.level, "attempt": line.attempt_number}
    if line.type.startswith("node."):
        return NODE, data | facts
    if not line.type.startswith("job."):
        return line.type, data | facts
    return _step(line, job, data, facts)


def _step(line: JobEvent, job: Standing, data: dict[str, Any], facts: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    data |= {f"{job.kind}_id": line.job_id, "event": line.type, "status": _status_at(line, job)}
    data |= {name: facts[name] for name in ("reason_code", "node_id", "changed", "agent_id") if name in facts}
    if line.type in _ENDS:
        return f"{job.kind}_{_ENDS[line.type]}", data
    if line.type == "job.running":
        return f"{job.kind}_{STARTED}", data
    return "status", data


def _status_at(line: JobEvent, job: Standing) -> str:
    word = line.type.partition(".")[2]
    state = JobState(word) if word in JobState.__members__ else JobState.queued
    return _status(job.kind, state, has_agent=job.agent_id is not None)


def _outcome(view: JobView, kind: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "attempts": len(view.attempts),
        "usage": view.usage,
        "error": view.error,
        "duration_ms": _duration_ms(view),
    }
    if len(orjson.dumps(view.result)) <= LONGEST_RESULT:
        told["result"] = view.result
    else:
        told["result_url"] = f"/api/v1/{kind}s/{view.id}"
    return told


def _duration_ms(view: JobView) -> int | None:
    if view.started_at is None or view.finished_at is None:
        return None
    return round((view.finished_at - view.started_at).total_seconds() * 1000)


def ended_as(view: JobView, line: JobEvent) -> bool:
    """Whether the job stands where this row brought it for good."""
    return view.state in ENDED and line.type == f"job.{view.state}"

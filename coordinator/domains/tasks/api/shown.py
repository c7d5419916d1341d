"""Tasks, executions, events and files as they are answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from coordinator.domains.queue import service as queue
from coordinator.domains.queue.service import JobEvent, JobState, JobView
from coordinator.domains.tasks.service.executions import WholeExecution
from coordinator.domains.tasks.service.tasks import WholeTask
from coordinator.domains.tasks.service.timeline import Timeline
from coordinator.domains.tasks.states import PRIORITY_WORDS, execution_status, task_status
from coordinator.domains.tasks.store.files import StoredFile
from coordinator.store.database import Transaction

SHOWN_LOG_LINES = 1000
_USAGE = ("wall_ms", "cpu_ms", "peak_memory_bytes", "bytes_in", "bytes_out", "log_bytes")
_ATTEMPT = (
    "id",
    "number",
    "generation",
    "node_id",
    "node_name",
    "state",
    "reason_code",
    "exit_code",
    "started_at",
    "ended_at",
    "error",
    "computer",
)
_BEFORE_RUNNING = frozenset({"dispatched", "expired"})


def task_summary(whole: WholeTask) -> dict[str, Any]:
    """A task without result and log."""
    task, job = whole.task, whole.job
    return {
        **_work(job, task.requested, whole.outputs, str(whole.status)),
        "title": task.title,
        "description": task.description,
        "instructions": task.instructions,
        "assigned_by": task.assigned_by,
        "workflow_id": task.workflow_id,
        "parent_task_id": task.parent_task_id,
        "deadline": job.deadline_at,
        "required_tools": task.required_tools,
        "progress_percent": 100 if job.state is JobState.succeeded else task.progress_percent,
        "retry_count": _retries(job),
        "max_retries": _max_retries(job),
        "metadata": task.metadata,
        "version": whole.version,
    }


def fresh_task(whole: WholeTask) -> dict[str, Any]:
    """A task that was accepted just now, so that there is nothing to read."""
    return {**task_summary(whole), "result": None, "logs": [], "logs_truncated": False}


def task_view(tx: Transaction, whole: WholeTask) -> dict[str, Any]:
    """A task with everything about it."""
    return {**task_summary(whole), "result": whole.job.result, **_logs(tx, whole.job)}


def execution_summary(whole: WholeExecution) -> dict[str, Any]:
    """An execution without result and log."""
    execution = whole.execution
    return {
        **_work(whole.job, execution.requested, whole.outputs, str(whole.status)),
        "input": execution.input,
        "options": {"timeout": None, "max_tokens": None, **execution.options},
        "version": whole.job.version,
    }


def execution_view(tx: Transaction, whole: WholeExecution) -> dict[str, Any]:
    """An execution with everything about it."""
    return {**execution_summary(whole), "result": _answered(whole.job), **_logs(tx, whole.job)}


def dead_letter(job: JobView) -> dict[str, Any]:
    """A job as the dead letter queue shows it."""
    word = (
        execution_status(job.state) if job.kind == "execution" else task_status(job.state, has_agent=bool(job.agent_id))
    )
    return {
        "id": job.id,
        "kind": job.kind,
        "status": str(word),
        "reason_code": job.reason_code,
        "error": None if job.error is None else str(job.error.get("message") or "it failed and did not say why"),
        "error_details": job.error,
        "retry_count": _retries(job),
        "max_retries": _max_retries(job),
        "agent_id": job.agent_id,
        "priority": PRIORITY_WORDS[job.priority],
        "attempts": _attempts(job),
        "generation": job.generation,
        "created_at": job.created_at,
        "updated_at": job.updated_at,
    }


def file_view(file: StoredFile) -> dict[str, Any]:
    """A file without its content."""
    return {
        "id": file.id,
        "space": file.space,
        "filename": file.filename,
        "content_type": file.content_type,
        "size": file.size,
        "sha256": file.sha256,
        "task_id": file.job_id if file.job_kind == "task" else None,
        "execution_id": file.job_id if file.job_kind == "execution" else None,
        "attempt_id": file.attempt_id,
        "created_by": file.created_by,
        "created_at": file.created_at,
    }


def timeline_view(timeline: Timeline) -> dict[str, Any]:
    """A stretch of events."""
    return {
        "events": [_event(event) for event in timeline.events],
        "next_after": timeline.next_after,
        "done": timeline.done,
    }


def _work(job: JobView, requested: Mapping[str, Any], outputs: Iterable[StoredFile], status: str) -> dict[str, Any]:
    return {
        "id": job.id,
        "space": job.space,
        "status": status,
        "hold_reason": job.hold_reason,
        "reason_code": job.reason_code,
        "priority": PRIORITY_WORDS[job.priority],
        "agent_id": job.agent_id,
        "error": _error(job),
        "input_files": [item["id"] for item in job.spec.get("input_files", ())],
        "output_files": [
            {"id": file.id, "filename": file.filename, "size": file.size, "sha256": file.sha256} for file in outputs
        ],
        "usage": None if job.usage is None else {name: job.usage.get(name) for name in _USAGE},
        "attempts": _attempts(job),
        "retry": {"on": None, **job.retry},
        "next_retry_at": job.not_before if job.state is JobState.queued else None,
        "placement": {"worker_id": None, "group": None, "labels": {}, **_given(requested.get("placement"))},
        "breakers": requested.get("breakers") or [],
        "exclusive": bool(job.spec.get("is_exclusive")),
        "created_by": job.created_by,
        "created_at": job.created_at,
        "updated_at": job.updated_at,
        "started_at": job.started_at,
        "completed_at": job.finished_at,
        "duration_ms": _duration_ms(job),
    }


def _given(partial: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (partial or {}).items() if value is not None}


def _error(job: JobView) -> dict[str, Any] | None:
    if job.error is None:
        return None
    return {
        "code": str(job.error.get("code") or "FAILED"),
        "message": str(job.error.get("message") or "it failed and did not say why"),
        "retryable": bool(job.error.get("retryable", False)),
    }


def _duration_ms(job: JobView) -> int | None:
    if job.started_at is None or job.finished_at is None:
        return None
    return max(0, round((job.finished_at - job.started_at).total_seconds() * 1000))


def _attempts(job: JobView) -> list[dict[str, Any]]:
    return [{name: attempt[name] for name in _ATTEMPT} for attempt in job.attempts]


def _max_retries(job: JobView) -> int:
    return int(job.retry["max_attempts"]) - 1


def _retries(job: JobView) -> int:
    """How often it was tried again since it was accepted or sent round again; tries that never began do not count."""
    begun = sum(
        attempt["state"] not in _BEFORE_RUNNING for attempt in job.attempts if attempt["generation"] == job.generation
    )
    return max(0, begun - 1)


def _answered(job: JobView) -> dict[str, Any] | None:
    if job.state is not JobState.succeeded:
        return None
    # Only models use tokens and cost money; the runtimes of today do neither.
    return {"output": job.result, "tokens_used": 0, "cost": 0.0}


def _logs(tx: Transaction, job: JobView) -> dict[str, Any]:
    lines = queue.events_after(tx, job.id, 0, SHOWN_LOG_LINES + 1, event_type="log")
    nodes = {attempt["number"]: attempt["node_id"] for attempt in job.attempts}
    return {
        "logs": [_log_line(line, nodes) for line in lines[:SHOWN_LOG_LINES]],
        "logs_truncated": len(lines) > SHOWN_LOG_LINES,
    }


def _log_line(event: JobEvent, nodes: Mapping[int, str]) -> dict[str, Any]:
    return {
        "seq": event.id,
        "timestamp": event.at,
        "level": event.level,
        "stream": event.stream,
        "message": event.message,
        "attempt": event.attempt_number,
        "node_id": nodes.get(event.attempt_number) if event.attempt_number is not None else None,
    }


def _event(event: JobEvent) -> dict[str, Any]:
    return {
        "seq": event.id,
        "timestamp": event.at,
        "type": event.type,
        "level": event.level,
        "stream": event.stream,
        "message": event.message,
        "data": event.data,
        "attempt": event.attempt_number,
    }

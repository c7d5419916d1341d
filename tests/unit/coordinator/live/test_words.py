"""The messages of sockets, made from rows."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from coordinator.domains.live import words
from coordinator.domains.queue.service import Event, JobEvent, JobState, JobView, Standing

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EXECUTION = Standing("default", "execution", JobState.running, "an agent")


def event(name: str, **data: Any) -> Event:
    return Event(7, NOW, "default", name, "the-id", data)


def line(name: str, **facts: Any) -> JobEvent:
    given: dict[str, Any] = {"attempt_number": 1, "level": "info", "stream": None, "message": "text", "data": None}
    return JobEvent(id=9, job_id="the-id", at=NOW, type=name, **(given | facts))


VIEW = JobView(
    id="the-id",
    space="default",
    kind="execution",
    agent_id="an agent",
    priority=1,
    state=JobState.succeeded,
    hold_reason=None,
    reason_code=None,
    error=None,
    generation=1,
    spec={},
    retry={},
    deadline_at=None,
    not_before=None,
    created_by=None,
    created_at=NOW,
    updated_at=NOW,
    started_at=NOW,
    finished_at=NOW + timedelta(seconds=2),
    version=1,
    current_attempt_id=None,
    result={"answer": 42},
)


def test_an_event_carries_type_data_and_time() -> None:
    told = words.told(event("worker.online", id="w", status="online"))
    assert json.loads(told.text) == {
        "type": "worker.online",
        "data": {"id": "w", "status": "online"},
        "ts": "2026-01-02T03:04:05.000Z",
    }


@pytest.mark.parametrize(
    ("name", "state", "agent_id", "shown", "status"),
    [
        ("task.created", "queued", None, "task.created", "pending"),
        ("task.created", "queued", "a", "task.created", "assigned"),
        ("task.updated", "running", "a", "task.updated", "in_progress"),
        ("task.failed", "dead", "a", "task.failed", "failed"),
        ("task.cancelled", "cancelled", "a", "task.updated", "cancelled"),
        ("execution.updated", "cancelling", "a", "execution.updated", "running"),
    ],
)
def test_states_of_jobs_become_the_words_of_the_api(
    name: str, state: str, agent_id: str | None, shown: str, status: str
) -> None:
    told = words.told(event(name, id="the-id", state=state, agent_id=agent_id))
    message = json.loads(told.text)
    assert (told.type, message["type"], message["data"]["status"]) == (shown, shown, status)
    assert "state" not in message["data"]


@pytest.mark.parametrize(
    ("name", "shown", "status"),
    [
        ("job.queued", "status", "pending"),
        ("job.assigned", "status", "pending"),
        ("job.dispatched", "status", "pending"),
        ("job.running", "execution_started", "running"),
        ("job.cancelling", "status", "running"),
        ("job.succeeded", "execution_completed", "completed"),
        ("job.dead", "execution_failed", "failed"),
        ("job.cancelled", "execution_cancelled", "cancelled"),
    ],
)
def test_moves_of_a_job_become_the_published_names(name: str, shown: str, status: str) -> None:
    message = words.line_message(line(name), EXECUTION)
    assert (message["type"], message["data"]["status"], message["seq"]) == (shown, status, 9)


def test_a_log_line_keeps_its_level_and_stream() -> None:
    message = words.line_message(line("log", level="error", stream="stderr"), EXECUTION)
    assert message == {
        "type": "log",
        "data": {"message": "text", "level": "error", "stream": "stderr", "attempt": 1},
        "seq": 9,
        "ts": "2026-01-02T03:04:05.000Z",
    }


def test_a_step_of_a_flow_is_a_node_that_was_executed() -> None:
    message = words.line_message(line("node.finished", data={"node_id": "n1"}), EXECUTION)
    assert (message["type"], message["data"]["node_id"]) == ("node_executed", "n1")


def test_the_last_row_brings_the_outcome() -> None:
    data = words.line_message(line("job.succeeded"), EXECUTION, VIEW)["data"]
    assert (data["result"], data["duration_ms"], data["error"]) == ({"answer": 42}, 2000, None)


def test_a_large_result_is_named_and_not_sent() -> None:
    large = replace(VIEW, result="x" * words.LONGEST_RESULT)
    data = words.line_message(line("job.succeeded"), EXECUTION, large)["data"]
    assert "result" not in data
    assert data["result_url"] == "/api/v1/executions/the-id"


@pytest.mark.parametrize(
    ("name", "state", "ended"),
    [
        ("job.dead", JobState.dead, True),
        ("job.dead", JobState.queued, False),
        ("job.dead", JobState.succeeded, False),
    ],
)
def test_a_row_tells_the_outcome_only_when_it_was_the_end(name: str, state: JobState, ended: bool) -> None:
    assert words.ended_as(replace(VIEW, state=state), line(name)) is ended

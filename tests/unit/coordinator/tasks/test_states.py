"""Each job is told by exactly one word, and each word finds exactly the jobs it is told for."""

from __future__ import annotations

import pytest

from coordinator.domains.queue.service import JobState
from coordinator.domains.tasks.states import (
    ExecutionStatus,
    Selection,
    TaskStatus,
    execution_status,
    executions_meant,
    task_status,
    tasks_meant,
)


def selects(selection: Selection, state: JobState, *, has_agent: bool) -> bool:
    return state in selection.states and selection.has_agent in (None, has_agent)


@pytest.mark.parametrize("has_agent", [True, False])
@pytest.mark.parametrize("state", list(JobState))
def test_a_filter_finds_what_it_is_called(state: JobState, has_agent: bool) -> None:
    found = [word for word in TaskStatus if selects(tasks_meant(word), state, has_agent=has_agent)]
    assert found == [task_status(state, has_agent=has_agent)]
    runs = [word for word in ExecutionStatus if selects(executions_meant(word), state, has_agent=has_agent)]
    assert runs == [execution_status(state)]


@pytest.mark.parametrize(
    ("state", "has_agent", "task", "execution"),
    [
        (JobState.queued, False, "pending", "pending"),
        (JobState.queued, True, "assigned", "pending"),
        (JobState.dispatched, True, "queued", "pending"),
        (JobState.running, True, "in_progress", "running"),
        (JobState.cancelling, True, "in_progress", "running"),
        (JobState.succeeded, True, "completed", "completed"),
        (JobState.dead, True, "failed", "failed"),
        (JobState.cancelled, False, "cancelled", "cancelled"),
    ],
)
def test_the_words_are_the_published_ones(state: JobState, has_agent: bool, task: str, execution: str) -> None:
    assert (task_status(state, has_agent=has_agent), execution_status(state)) == (task, execution)


def test_nothing_is_in_review() -> None:
    assert tasks_meant(TaskStatus.review).states == frozenset()

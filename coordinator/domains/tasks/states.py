"""The words people read for where a task or an execution stands. They are told from the job, never stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from coordinator.domains.queue.service import PRIORITIES, JobState

PRIORITY_WORDS: Mapping[int, str] = {number: word for word, number in PRIORITIES.items()}


class TaskStatus(StrEnum):
    """Where a task stands."""

    pending = "pending"
    """Waits for an agent."""
    assigned = "assigned"
    """Has an agent and waits for a node (or for its next try)."""
    queued = "queued"
    """On its way to a node."""
    in_progress = "in_progress"
    review = "review"
    """A word that clients may filter by; nothing brings a task there yet."""
    completed = "completed"
    failed = "failed"
    cancelled = "cancelled"


class ExecutionStatus(StrEnum):
    """Where an execution stands."""

    pending = "pending"
    running = "running"
    completed = "completed"
    failed = "failed"
    cancelled = "cancelled"


@dataclass(frozen=True, slots=True)
class Selection:
    """The jobs that one word means. `has_agent` None: with an agent or without."""

    states: frozenset[JobState]
    has_agent: bool | None = None


_TASK: Mapping[JobState, TaskStatus] = {
    JobState.queued: TaskStatus.assigned,
    JobState.dispatched: TaskStatus.queued,
    JobState.running: TaskStatus.in_progress,
    JobState.cancelling: TaskStatus.in_progress,
    JobState.succeeded: TaskStatus.completed,
    JobState.dead: TaskStatus.failed,
    JobState.cancelled: TaskStatus.cancelled,
}
_EXECUTION: Mapping[JobState, ExecutionStatus] = {
    JobState.queued: ExecutionStatus.pending,
    JobState.dispatched: ExecutionStatus.pending,
    JobState.running: ExecutionStatus.running,
    JobState.cancelling: ExecutionStatus.running,
    JobState.succeeded: ExecutionStatus.completed,
    JobState.dead: ExecutionStatus.failed,
    JobState.cancelled: ExecutionStatus.cancelled,
}


def task_status(state: JobState, *, has_agent: bool) -> TaskStatus:
    """The word for a task whose job is in `state`."""
    if state is JobState.queued and not has_agent:
        return TaskStatus.pending
    return _TASK[state]


def execution_status(state: JobState) -> ExecutionStatus:
    """The word for an execution whose job is in `state`."""
    return _EXECUTION[state]


def tasks_meant(status: TaskStatus) -> Selection:
    """The jobs of the tasks with this status; no state at all for a status that nothing has."""
    if status is TaskStatus.pending:
        return Selection(frozenset({JobState.queued}), has_agent=False)
    states = frozenset(state for state, word in _TASK.items() if word is status)
    return Selection(states, has_agent=True if status is TaskStatus.assigned else None)


def executions_meant(status: ExecutionStatus) -> Selection:
    """The jobs of the executions with this status."""
    return Selection(frozenset(state for state, word in _EXECUTION.items() if word is status))

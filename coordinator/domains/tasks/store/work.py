"""Queries of tasks and executions: what they are. How they fare is asked of the queue."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Table, select, update

from coordinator.domains.tasks.models import executions, tasks
from coordinator.store.database import Transaction
from coordinator.store.rowset import insert_many


@dataclass(frozen=True, slots=True)
class Task:
    """What a task is."""

    id: str
    title: str
    description: str
    instructions: str
    required_tools: list[str]
    requested: dict[str, Any]
    assigned_by: str | None
    workflow_id: str | None
    parent_task_id: str | None
    progress_percent: int
    metadata: dict[str, Any]
    version: int


@dataclass(frozen=True, slots=True)
class Execution:
    """What an execution is."""

    id: str
    input: Any
    options: dict[str, Any]
    requested: dict[str, Any]


_TASK = tuple(Task.__dataclass_fields__)
_EXECUTION = tuple(Execution.__dataclass_fields__)


def _task_of(row: Row[Any]) -> Task:
    return Task(**dict(zip(_TASK, row, strict=True)))


def _execution_of(row: Row[Any]) -> Execution:
    return Execution(**dict(zip(_EXECUTION, row, strict=True)))


def put_tasks(tx: Transaction, new: Sequence[Task]) -> None:
    """Insert them in one statement; their jobs are there already."""
    _put(tx, tasks, _TASK, new)


def put_executions(tx: Transaction, new: Sequence[Execution]) -> None:
    """Insert them in one statement; their jobs are there already."""
    _put(tx, executions, _EXECUTION, new)


def _put(tx: Transaction, table: Table, names: Sequence[str], new: Sequence[Task | Execution]) -> None:
    rows = [{name: getattr(item, name) for name in names} for item in new]
    insert_many(tx.conn, table, tuple(names), rows)


def tasks_by_id(tx: Transaction, ids: Collection[str]) -> dict[str, Task]:
    if not ids:
        return {}
    rows = tx.conn.execute(select(*(tasks.c[name] for name in _TASK)).where(tasks.c.id.in_(ids)))
    return {row.id: _task_of(row) for row in rows}


def lock_task(tx: Transaction, task_id: str) -> Task | None:
    wanted = select(*(tasks.c[name] for name in _TASK)).where(tasks.c.id == task_id).with_for_update()
    row = tx.conn.execute(wanted).one_or_none()
    return None if row is None else _task_of(row)


def change_task(tx: Transaction, task: Task, changes: Mapping[str, Any]) -> None:
    """Write `changes` over a task that the caller has locked."""
    tx.conn.execute(update(tasks).where(tasks.c.id == task.id).values({**changes, "version": task.version + 1}))


def executions_by_id(tx: Transaction, ids: Collection[str]) -> dict[str, Execution]:
    if not ids:
        return {}
    rows = tx.conn.execute(select(*(executions.c[name] for name in _EXECUTION)).where(executions.c.id.in_(ids)))
    return {row.id: _execution_of(row) for row in rows}

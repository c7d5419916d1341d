"""Tasks: accepted one by one or many at once, listed, counted, changed, cancelled, closed by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from coordinator.config import Settings
from coordinator.domains.agents import service as agents
from coordinator.domains.agents.service import Agent
from coordinator.domains.queue import service as queue
from coordinator.domains.queue.service import JobState, JobView, NewJob
from coordinator.domains.tasks.service import inputs, orders
from coordinator.domains.tasks.service.orders import Recipe, TaskFacts
from coordinator.domains.tasks.states import PRIORITY_WORDS, TaskStatus, task_status, tasks_meant
from coordinator.domains.tasks.store import files as file_store
from coordinator.domains.tasks.store import work
from coordinator.domains.tasks.store.files import StoredFile
from coordinator.domains.tasks.store.work import Task
from coordinator.resources import Resources
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest
from shared.errors import LongshoreError, NotFound, StateConflict
from shared.ids import new_ids

KIND = "task"
BY_HAND = {TaskStatus.completed: True, TaskStatus.failed: False}
"""Statuses that a client may set on a waiting task, and whether they mean success."""


@dataclass(frozen=True, slots=True)
class WholeTask:
    """A task, its job, and what it brought out."""

    task: Task
    job: JobView
    outputs: Sequence[StoredFile] = ()

    @property
    def status(self) -> TaskStatus:
        return task_status(self.job.state, has_agent=self.job.agent_id is not None)

    @property
    def version(self) -> int:
        # Both counters only ever rise, so their sum changes with every change of either.
        return self.task.version + self.job.version


@dataclass(frozen=True, slots=True)
class Stats:
    """How many tasks there are, by two measures."""

    total: int
    by_status: Mapping[str, int]
    by_priority: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Known:
    """What the bodies of one request refer to, fetched once for all of them."""

    agents: Mapping[str, Agent]
    files: Mapping[str, StoredFile]
    recipes: dict[str, Recipe] = field(default_factory=dict)

    def recipe(self, agent: Agent, settings: Settings) -> Recipe:
        if agent.id not in self.recipes:
            self.recipes[agent.id] = Recipe(agent, settings)
        return self.recipes[agent.id]


def create(tx: Transaction, resources: Resources, body: Mapping[str, Any], *, space: str, by: str) -> WholeTask:
    """Accept one task."""
    made = create_many(tx, resources, [body], space=space, by=by)[0]
    if isinstance(made, LongshoreError):
        raise made
    return made


def create_many(
    tx: Transaction, resources: Resources, bodies: Sequence[Mapping[str, Any]], *, space: str, by: str
) -> list[WholeTask | LongshoreError]:
    """Accept those of the tasks that can be, in the order given; the error of each that cannot."""
    known = _known(tx, space, bodies)
    made: list[WholeTask | LongshoreError] = []
    new: list[NewJob] = []
    for task_id, body in zip(new_ids(len(bodies)), bodies, strict=True):
        try:
            task, job = _draft(tx, resources.settings, body, known, task_id=task_id, space=space, by=by)
        except LongshoreError as refused:
            made.append(refused)
            continue
        new.append(job)
        made.append(WholeTask(task, orders.fresh_view(job, tx.now)))
    if new:
        queue.submit(tx, resources, new)
        work.put_tasks(tx, [item.task for item in made if isinstance(item, WholeTask)])
    return made


def get(tx: Transaction, space: str, task_id: str) -> WholeTask:
    """A task with everything about it."""
    return _whole(tx, space, task_id, work.tasks_by_id(tx, [task_id]).get(task_id))


def get_to_change(tx: Transaction, space: str, task_id: str) -> WholeTask:
    """A task, locked against other changes by clients for the rest of the transaction."""
    return _whole(tx, space, task_id, work.lock_task(tx, task_id))


def list_tasks(
    tx: Transaction,
    space: str,
    page: PageRequest,
    *,
    status: TaskStatus | None = None,
    priority: str | None = None,
    agent_id: str | None = None,
) -> Page[WholeTask]:
    """Tasks, newest first, without their results."""
    meant = tasks_meant(status) if status is not None else None
    if meant is not None and not meant.states:
        return Page([], 0)
    found = queue.list_jobs(
        tx,
        space=space,
        kind=KIND,
        page=page,
        states=meant.states if meant else None,
        has_agent=meant.has_agent if meant else None,
        priority=queue.PRIORITIES[priority] if priority is not None else None,
        agent_id=agent_id,
    )
    ids = [job.id for job in found.items]
    tasks, outputs = work.tasks_by_id(tx, ids), file_store.artifacts_of(tx, ids)
    whole = [WholeTask(tasks[job.id], job, inputs.brought_out(job, outputs.get(job.id, ()))) for job in found.items]
    return Page(whole, found.total)


def stats(tx: Transaction, space: str) -> Stats:
    """Counts over all tasks of a space; every word is there, with 0 if need be."""
    by_status = dict.fromkeys((str(status) for status in TaskStatus), 0)
    by_priority = dict.fromkeys(reversed(list(queue.PRIORITIES)), 0)
    for (state, has_agent, priority), count in queue.stats(tx, space=space, kind=KIND).items():
        by_status[task_status(state, has_agent=has_agent)] += count
        by_priority[PRIORITY_WORDS[priority]] += count
    return Stats(sum(by_status.values()), by_status, by_priority)


def change(tx: Transaction, resources: Resources, whole: WholeTask, body: Mapping[str, Any], *, by: str) -> WholeTask:
    """Apply what a client wants changed. What a node may have started from changes only while the task waits."""
    task = _rewritten(tx, whole, body)
    _amend(tx, resources, whole, task, body)
    _close(tx, resources, task.id, whole.status, body, by=by)
    return get(tx, whole.job.space, task.id)


def cancel(tx: Transaction, resources: Resources, space: str, task_id: str, *, by: str) -> WholeTask:
    """Stop a task wherever it stands; again is fine, finished is a conflict."""
    get(tx, space, task_id)
    queue.cancel(tx, resources, task_id, by=by)
    return get(tx, space, task_id)


def assign(tx: Transaction, resources: Resources, whole: WholeTask, agent: Agent) -> None:
    """Give a waiting task without an agent its agent."""
    order = _order(whole.task, whole.job, agent, resources.settings)
    queue.assign(
        tx,
        resources,
        whole.task.id,
        agent.id,
        spec=order.spec,
        retry=order.retry,
        needs=order.needs,
        takes_slot=order.takes_slot,
    )


def waiting_without_agent(tx: Transaction, limit: int, *, after: WholeTask | None = None) -> list[WholeTask]:
    """Tasks that wait for an agent, most urgent first, of all spaces; with `after` those that come behind that one."""
    found = queue.unassigned(tx, limit, after=after.job if after else None)
    jobs = [job for job in found if job.kind == KIND]
    tasks = work.tasks_by_id(tx, [job.id for job in jobs])
    return [WholeTask(tasks[job.id], job) for job in jobs]


def _known(tx: Transaction, space: str, bodies: Sequence[Mapping[str, Any]]) -> _Known:
    agent_ids = {body["agent_id"] for body in bodies if body.get("agent_id")}
    file_ids = {file_id for body in bodies for file_id in body.get("input_files", ())}
    return _Known(agents.find_to_use(tx, space, agent_ids), file_store.find_to_use(tx, space, file_ids))


def _draft(
    tx: Transaction,
    settings: Settings,
    body: Mapping[str, Any],
    known: _Known,
    *,
    task_id: str,
    space: str,
    by: str,
) -> tuple[Task, NewJob]:
    agent = _agent(body.get("agent_id"), known.agents)
    deadline = body.get("deadline")
    if deadline is not None and deadline <= tx.now:
        raise orders.fault("deadline", "must be in the future")
    requested = orders.requested_in(body)
    files = inputs.named(body.get("input_files", ()), known.files)
    title, instructions = body["title"], body.get("instructions", "")
    if agent is None:
        order = orders.for_nobody(KIND, requested, files, settings)
    else:
        order = known.recipe(agent, settings).task(TaskFacts(title, instructions, requested), files)
    task = Task(
        id=task_id,
        title=title,
        description=body.get("description", ""),
        instructions=instructions,
        required_tools=list(dict.fromkeys(body.get("required_tools", ()))),
        requested=requested,
        assigned_by=by,
        workflow_id=None,
        parent_task_id=None,
        progress_percent=0,
        metadata=body.get("metadata", {}),
        version=1,
    )
    job = NewJob(
        id=task_id,
        space=space,
        kind=KIND,
        agent_id=agent.id if agent else None,
        priority=queue.PRIORITIES[body.get("priority", "medium")],
        spec=order.spec,
        retry=order.retry,
        needs=order.needs,
        takes_slot=order.takes_slot,
        deadline_at=deadline,
        created_by=by,
        title=title,
    )
    return task, job


def _agent(agent_id: str | None, known: Mapping[str, Agent]) -> Agent | None:
    if agent_id is None:
        return None
    if agent_id not in known:
        raise orders.fault("agent_id", "there is no such agent")
    return known[agent_id]


def _whole(tx: Transaction, space: str, task_id: str, task: Task | None) -> WholeTask:
    job = queue.views(tx, [task_id]).get(task_id) if task is not None else None
    if task is None or job is None or job.space != space:
        raise NotFound("there is no such task", id=task_id)
    outputs = file_store.artifacts_of(tx, [task_id]).get(task_id, ())
    return WholeTask(task, job, inputs.brought_out(job, outputs))


_PLAIN = ("title", "description", "instructions", "required_tools", "progress_percent", "metadata")
_WHILE_WAITING = ("instructions", "required_tools", *orders.REQUESTED)


def _rewritten(tx: Transaction, whole: WholeTask, body: Mapping[str, Any]) -> Task:
    task = whole.task
    changes: dict[str, Any] = {
        name: body[name] for name in _PLAIN if name in body and body[name] != getattr(task, name)
    }
    requested = {name: body[name] for name in orders.REQUESTED if name in body}
    if requested:
        changes["requested"] = orders.requested_in({**task.requested, **requested})
    if not changes:
        return task
    if whole.job.state is not JobState.queued and (late := [name for name in _WHILE_WAITING if name in body]):
        raise StateConflict(f"{late[0]} can only be changed while the task waits", state=str(whole.status))
    work.change_task(tx, task, changes)
    data = {"id": task.id, "changed": sorted(changes)}
    queue.emit(tx, "task.updated", space=whole.job.space, subject_id=task.id, data=data)
    return replace(task, **changes, version=task.version + 1)


def _amend(tx: Transaction, resources: Resources, whole: WholeTask, task: Task, body: Mapping[str, Any]) -> None:
    """Bring the waiting job in line with what was changed about its task."""
    job = whole.job
    asked: dict[str, Any] = {}
    if "priority" in body and queue.PRIORITIES[body["priority"]] != job.priority:
        asked["priority"] = queue.PRIORITIES[body["priority"]]
    if "deadline" in body and body["deadline"] != job.deadline_at:
        if body["deadline"] is not None and body["deadline"] <= tx.now:
            raise orders.fault("deadline", "must be in the future")
        asked["deadline_at"] = body["deadline"]
    if body.get("agent_id", job.agent_id) != job.agent_id:
        order = _reordered(tx, task, job, body["agent_id"], resources.settings)
        asked |= {"agent_id": body["agent_id"], "spec": order.spec, "takes_slot": order.takes_slot}
        asked |= {"retry": order.retry, "needs": order.needs}
    elif job.state is JobState.queued:
        asked |= _respelled(tx, task, job, body, resources.settings)
    if asked:
        queue.amend(tx, resources, task.id, **asked)


def _respelled(
    tx: Transaction, task: Task, job: JobView, body: Mapping[str, Any], settings: Settings
) -> dict[str, Any]:
    """What changes for the same agent; what the task took over from it when it was accepted stays."""
    asked: dict[str, Any] = {}
    if {"title", "instructions"} & body.keys():
        spec = orders.respelled(job.spec, _facts(task))
        asked |= {"spec": spec} if spec != job.spec else {}
    if body.keys() & set(orders.REQUESTED):
        order = _reordered(tx, task, job, job.agent_id, settings)
        asked |= {"retry": order.retry} if "retry" in body else {}
        asked |= {"needs": order.needs} if {"placement", "breakers"} & body.keys() else {}
        if "exclusive" in body:
            asked["spec"] = {**asked.get("spec", job.spec), "is_exclusive": order.spec["is_exclusive"]}
    return asked


def _reordered(tx: Transaction, task: Task, job: JobView, agent_id: str | None, settings: Settings) -> orders.Order:
    agent = _agent(agent_id, agents.find_to_use(tx, job.space, {agent_id} if agent_id else set()))
    return _order(task, job, agent, settings)


def _order(task: Task, job: JobView, agent: Agent | None, settings: Settings) -> orders.Order:
    files = job.spec.get("input_files", ())
    if agent is None:
        return orders.for_nobody(KIND, task.requested, files, settings)
    return Recipe(agent, settings).task(_facts(task), files)


def _facts(task: Task) -> TaskFacts:
    return TaskFacts(task.title, task.instructions, task.requested)


def _close(
    tx: Transaction,
    resources: Resources,
    task_id: str,
    current: TaskStatus,
    body: Mapping[str, Any],
    *,
    by: str,
) -> None:
    wanted = TaskStatus(body["status"]) if "status" in body else None
    if wanted is None or wanted is current:
        if "result" in body or "error" in body:
            raise orders.fault("status", "a result goes with status completed, an error with status failed")
        return
    if wanted is TaskStatus.cancelled:
        queue.cancel(tx, resources, task_id, by=by)
        return
    error = _error_by_hand(body.get("error")) if wanted is TaskStatus.failed else None
    queue.resolve(tx, task_id, succeeded=BY_HAND[wanted], result=body.get("result"), error=error, by=by)


def _error_by_hand(given: Any) -> dict[str, Any]:
    told = given if isinstance(given, dict) else {"message": given}
    return {
        "code": told.get("code") or "FAILED_BY_HAND",
        "message": told.get("message") or "closed as failed by hand",
        "retryable": bool(told.get("retryable", False)),
    }

"""Executions: an agent run once on an input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coordinator.domains.agents import service as agents
from coordinator.domains.queue import service as queue
from coordinator.domains.queue.service import JobView, NewJob
from coordinator.domains.tasks.service import inputs, orders
from coordinator.domains.tasks.service.orders import Recipe
from coordinator.domains.tasks.states import ExecutionStatus, execution_status, executions_meant
from coordinator.domains.tasks.store import files as file_store
from coordinator.domains.tasks.store import work
from coordinator.domains.tasks.store.files import StoredFile
from coordinator.domains.tasks.store.work import Execution
from coordinator.resources import Resources
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest
from shared.errors import NotFound
from shared.ids import new_id

KIND = "execution"


@dataclass(frozen=True, slots=True)
class WholeExecution:
    """An execution, its job, and what it brought out."""

    execution: Execution
    job: JobView
    outputs: Sequence[StoredFile] = ()

    @property
    def status(self) -> ExecutionStatus:
        return execution_status(self.job.state)


def create(
    tx: Transaction, resources: Resources, agent_id: str, body: Mapping[str, Any], *, space: str, by: str
) -> WholeExecution:
    """Accept one run of an agent."""
    agent = agents.find_to_use(tx, space, {agent_id}).get(agent_id)
    if agent is None:
        raise NotFound("there is no such agent", id=agent_id)
    given = body["input"] if body.get("input") is not None else {}
    options = body.get("options") or {}
    requested = orders.requested_in(body)
    file_ids = body.get("input_files", ())
    files = inputs.named(file_ids, file_store.find_to_use(tx, space, set(file_ids)))
    order = Recipe(agent, resources.settings).execution(given, options, requested, files)
    job = NewJob(
        id=new_id(),
        space=space,
        kind=KIND,
        agent_id=agent.id,
        priority=queue.PRIORITIES[body.get("priority", "medium")],
        spec=order.spec,
        retry=order.retry,
        needs=order.needs,
        takes_slot=order.takes_slot,
        deadline_at=None,
        created_by=by,
        title=agent.name,
    )
    execution = Execution(id=job.id, input=given, options=dict(options), requested=requested)
    queue.submit(tx, resources, [job])
    work.put_executions(tx, [execution])
    return WholeExecution(execution, orders.fresh_view(job, tx.now))


def get(tx: Transaction, space: str, execution_id: str) -> WholeExecution:
    """An execution with everything about it."""
    execution = work.executions_by_id(tx, [execution_id]).get(execution_id)
    job = queue.views(tx, [execution_id]).get(execution_id) if execution is not None else None
    if execution is None or job is None or job.space != space:
        raise NotFound("there is no such execution", id=execution_id)
    outputs = file_store.artifacts_of(tx, [execution_id]).get(execution_id, ())
    return WholeExecution(execution, job, inputs.brought_out(job, outputs))


def list_executions(
    tx: Transaction,
    space: str,
    page: PageRequest,
    *,
    status: ExecutionStatus | None = None,
    agent_id: str | None = None,
) -> Page[WholeExecution]:
    """Executions, newest first, without their results."""
    states = executions_meant(status).states if status is not None else None
    found = queue.list_jobs(tx, space=space, kind=KIND, page=page, states=states, agent_id=agent_id)
    ids = [job.id for job in found.items]
    rows, outputs = work.executions_by_id(tx, ids), file_store.artifacts_of(tx, ids)
    whole = [WholeExecution(rows[job.id], job, inputs.brought_out(job, outputs.get(job.id, ()))) for job in found.items]
    return Page(whole, found.total)


def cancel(tx: Transaction, resources: Resources, space: str, execution_id: str, *, by: str) -> WholeExecution:
    """Stop an execution wherever it stands; again is fine, finished is a conflict."""
    get(tx, space, execution_id)
    queue.cancel(tx, resources, execution_id, by=by)
    return get(tx, space, execution_id)

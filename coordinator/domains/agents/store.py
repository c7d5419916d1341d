"""Queries of the agents domain."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, bindparam, false, func, insert, or_, select, update

from coordinator.domains.agents.models import agents
from coordinator.domains.agents.states import AgentStatus, Runtime
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest, fetch_page


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent as it is stored."""

    id: str
    space: str
    name: str
    description: str
    role: str
    runtime: Runtime
    status: AgentStatus
    computer: dict[str, Any]
    placement: dict[str, Any]
    retry: dict[str, Any]
    breakers: list[str]
    is_exclusive: bool
    max_concurrent_tasks: int | None
    llm_provider: str | None
    llm_model: str | None
    system_prompt: str | None
    temperature: float | None
    max_tokens: int | None
    enabled_tools: dict[str, bool]
    flow: dict[str, Any] | None
    tags: list[str]
    metadata: dict[str, Any]
    created_by: str | None
    created_at: datetime
    updated_at: datetime
    version: int

    @property
    def tools(self) -> frozenset[str]:
        """The tools that are switched on."""
        return frozenset(name for name, on in self.enabled_tools.items() if on)


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list is narrowed to. `busy` are the ids of the agents with running work, asked of the queue."""

    statuses: frozenset[AgentStatus] | None = None
    role: str | None = None
    search: str | None = None
    busy: frozenset[str] = frozenset()


FIELDS = tuple(Agent.__dataclass_fields__)
_COLUMNS = tuple(agents.c[name] for name in FIELDS)
_LIVING = agents.c.deleted_at.is_(None)
_ALL = select(*_COLUMNS).where(_LIVING)
# Every task that is accepted asks this: the statement is put together once.
_TO_USE = (
    _ALL.where(agents.c.id.in_(bindparam("ids", expanding=True)), agents.c.space == bindparam("space"))
    .order_by(agents.c.id)
    .with_for_update(read=True, key_share=True)
)


def _agent_of(row: Row[Any]) -> Agent:
    values = dict(zip(FIELDS, row, strict=True))
    values["runtime"] = Runtime(values["runtime"])
    values["status"] = AgentStatus(values["status"])
    values["breakers"] = values["breakers"] or []
    return Agent(**values)


def put(tx: Transaction, agent: Agent) -> None:
    tx.conn.execute(insert(agents).values({name: getattr(agent, name) for name in FIELDS}))


def find(tx: Transaction, space: str, agent_id: str) -> Agent | None:
    return _one(tx, _living(space, agent_id))


def find_to_change(tx: Transaction, space: str, agent_id: str) -> Agent | None:
    """The agent, locked until the transaction ends: nobody else changes it or gives it work meanwhile."""
    return _one(tx, _living(space, agent_id).with_for_update())


def find_to_use(tx: Transaction, space: str, agent_ids: Collection[str]) -> list[Agent]:
    """Those of the agents that live, kept from deletion until the transaction ends; changing them stays possible."""
    return [_agent_of(row) for row in tx.conn.execute(_TO_USE, {"ids": list(agent_ids), "space": space})]


def living(tx: Transaction, space: str, agent_ids: Collection[str]) -> frozenset[str]:
    """Those of the ids whose agents live."""
    wanted = select(agents.c.id).where(_LIVING, agents.c.space == space, agents.c.id.in_(agent_ids))
    return frozenset(tx.conn.scalars(wanted))


def find_started(tx: Transaction) -> list[Agent]:
    """Every agent of every space that takes work."""
    wanted = _ALL.where(agents.c.status == AgentStatus.idle).order_by(agents.c.id)
    return [_agent_of(row) for row in tx.conn.execute(wanted)]


def change(tx: Transaction, agent: Agent, changes: dict[str, Any]) -> None:
    """Write `changes` over an agent that the caller has locked."""
    raised = {**changes, "updated_at": tx.now, "version": agent.version + 1}
    tx.conn.execute(update(agents).where(agents.c.id == agent.id).values(raised))


def list_page(tx: Transaction, space: str, filters: Filters, page: PageRequest) -> Page[Agent]:
    """One page of a space's agents, newest first."""
    wanted = _ALL.where(agents.c.space == space, *_conditions(filters))
    found = fetch_page(tx, wanted.order_by(agents.c.id.desc()), page)
    return Page([_agent_of(row) for row in found.items], found.total)


def count_in_space(tx: Transaction, space: str, most: int) -> int:
    """How many agents live in a space, counted up to `most`."""
    some = select(agents.c.id).where(_LIVING, agents.c.space == space).limit(most)
    return tx.conn.scalar(select(func.count()).select_from(some.subquery())) or 0


def _living(space: str, agent_id: str) -> Select[Any]:
    return _ALL.where(agents.c.id == agent_id, agents.c.space == space)


def _one(tx: Transaction, statement: Select[Any]) -> Agent | None:
    row = tx.conn.execute(statement).one_or_none()
    return None if row is None else _agent_of(row)


def _conditions(filters: Filters) -> Sequence[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if filters.statuses is not None:
        found.append(_has_status(filters.statuses, filters.busy))
    if filters.role is not None:
        found.append(agents.c.role == filters.role)
    if filters.search:
        found.append(
            or_(
                agents.c.name.icontains(filters.search, autoescape=True),
                agents.c.description.icontains(filters.search, autoescape=True),
            )
        )
    return found


def _has_status(statuses: frozenset[AgentStatus], busy: frozenset[str]) -> ColumnElement[bool]:
    plain = agents.c.status.in_(sorted(statuses - {AgentStatus.busy}))
    is_idle = agents.c.status == AgentStatus.idle
    wants_idle, wants_busy = AgentStatus.idle in statuses, AgentStatus.busy in statuses
    if wants_idle and not wants_busy and busy:
        return and_(plain, or_(~is_idle, agents.c.id.not_in(sorted(busy))))
    if wants_busy and not wants_idle:
        is_busy = and_(is_idle, agents.c.id.in_(sorted(busy))) if busy else false()
        return or_(plain, is_busy)
    return plain

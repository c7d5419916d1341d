"""Pauses of the fleet, of groups of nodes and of nodes: what runs goes on, nothing new starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Boolean, delete, func, literal_column, null, select, type_coerce, union_all

from coordinator.domains.queue.models import attempts, pauses
from coordinator.domains.queue.signals import nudge
from coordinator.domains.queue.store import LIVE_ATTEMPT, upsert
from coordinator.resources import Resources
from coordinator.store.database import Transaction
from shared.clock import rfc3339


class Scope(StrEnum):
    """What a pause holds back."""

    fleet = "fleet"
    group = "group"
    node = "node"


@dataclass(frozen=True, slots=True)
class Pause:
    """One pause: of what, by whom, since when and why. `subject` is a group's name, a node's id, or empty."""

    scope: Scope
    subject: str
    reason: str | None
    paused_by: str | None
    paused_by_name: str | None
    paused_at: datetime

    def covers(self, node_id: str, group: str | None) -> bool:
        """Whether this pause holds back that node."""
        return self.scope is Scope.fleet or self.subject == (node_id if self.scope is Scope.node else group)

    def in_words(self, node_name: str) -> str:
        """What is paused, by whom, since when and why, for whoever waits for the node called `node_name`."""
        what = {Scope.fleet: "the fleet", Scope.group: f"group {self.subject}", Scope.node: f"node {node_name}"}
        by = f" by {self.paused_by_name}" if self.paused_by_name else ""
        why = f": {self.reason}" if self.reason else ""
        return f"{what[self.scope]} was paused{by} at {rfc3339(self.paused_at)}{why}"


@dataclass(frozen=True, slots=True)
class Author:
    """Who pauses or resumes."""

    id: str | None
    name: str | None


_FIELDS = tuple(Pause.__dataclass_fields__)
_EVERY = select(*(pauses.c[name] for name in _FIELDS)).order_by(pauses.c.scope, pauses.c.subject)
# The few pauses come along with what nodes hold: both are asked in every round, and a round trip costs more than they.
_LOAD_AND_PAUSES = union_all(
    select(
        *(pauses.c[name] for name in _FIELDS),
        type_coerce(null(), Boolean).label("takes_slot"),
        literal_column("0").label("n"),
    ),
    select(
        null(),
        attempts.c.node_id,
        *(null() for _ in _FIELDS[2:]),
        attempts.c.takes_slot,
        func.count(),
    )
    .where(attempts.c.state.in_(LIVE_ATTEMPT))
    .group_by(attempts.c.node_id, attempts.c.takes_slot),
)


def pause(
    tx: Transaction, resources: Resources, scope: Scope, subject: str, *, by: Author, reason: str | None
) -> Pause:
    """Hold back what is named. Paused already, it stays so since then; a new reason replaces the old one."""
    row = {
        "scope": str(scope),
        "subject": subject,
        "reason": reason,
        "paused_by": by.id,
        "paused_by_name": by.name,
        "paused_at": tx.now,
    }
    fresh = upsert(tx, pauses).values(row)
    kept = {"reason": func.coalesce(fresh.excluded.reason, pauses.c.reason)}
    statement = fresh.on_conflict_do_update(index_elements=["scope", "subject"], set_=kept).returning(*pauses.c)
    made = _pause(tx.conn.execute(statement).one())
    nudge(tx, resources, "fleet")
    return made


def resume(tx: Transaction, resources: Resources, scope: Scope, subject: str) -> bool:
    """Let it take work again; False when it was not paused."""
    here = (pauses.c.scope == str(scope), pauses.c.subject == subject)
    is_gone = tx.conn.execute(delete(pauses).where(*here)).rowcount > 0
    if is_gone:
        nudge(tx, resources, "fleet")
    return is_gone


def every_pause(tx: Transaction) -> list[Pause]:
    """All pauses there are now."""
    return [_pause(row) for row in tx.conn.execute(_EVERY)]


def load_and_pauses(tx: Transaction) -> tuple[dict[tuple[str, bool], int], list[Pause]]:
    """Live attempts by (node id, whether they take a slot), and all pauses, in one round trip."""
    load: dict[tuple[str, bool], int] = {}
    found: list[Pause] = []
    for row in tx.conn.execute(_LOAD_AND_PAUSES):
        if row.scope is None:
            load[row.subject, bool(row.takes_slot)] = row.n
        else:
            found.append(_pause(row))
    return load, found


def pauses_of(node_id: str, group: str | None, found: Sequence[Pause]) -> list[Pause]:
    """Those of the pauses that hold back one node, the widest first."""
    widest = list(Scope)
    return sorted((each for each in found if each.covers(node_id, group)), key=lambda each: widest.index(each.scope))


def _pause(row: Any) -> Pause:
    values = {name: getattr(row, name) for name in _FIELDS}
    return Pause(**values | {"scope": Scope(row.scope)})

"""Statements of the fleet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, bindparam, delete, func, insert, select, update

from coordinator.domains.fleet.models import enrolment_tokens, node_vitals, nodes
from coordinator.domains.fleet.states import NodeStatus
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest, fetch_page

Node = Any
"""A row of `nodes`."""

# Asked all the time, so made once.
_CREDENTIAL = select(
    nodes.c.id, nodes.c.name, nodes.c.status, nodes.c.is_approved, nodes.c.credential_hash, nodes.c.epoch
).where(nodes.c.id == bindparam("id"))
_PRESENT = select(nodes).where(nodes.c.status != str(NodeStatus.removed)).order_by(nodes.c.id)


def add(tx: Transaction, row: Mapping[str, Any]) -> None:
    tx.conn.execute(insert(nodes).values(dict(row)))


def find(tx: Transaction, node_id: str, *, lock: bool = False) -> Node | None:
    query = select(nodes).where(nodes.c.id == node_id)
    return tx.conn.execute(query.with_for_update() if lock else query).first()


def credential(tx: Transaction, node_id: str) -> Node | None:
    """What authentication needs of a node, and nothing more."""
    return tx.conn.execute(_CREDENTIAL, {"id": node_id}).first()


def change(tx: Transaction, node: Node, **values: Any) -> Node:
    """Write `values` into the locked row `node`; answers the row as it is now."""
    values |= {"version": node.version + 1, "updated_at": tx.now}
    statement = update(nodes).where(nodes.c.id == node.id).values(values).returning(*nodes.c)
    return tx.conn.execute(statement).one()


def beat(tx: Transaction, node_id: str, values: Mapping[str, Any]) -> None:
    """A heartbeat's facts. The version stays: a beat is not a change that somebody could overwrite."""
    tx.conn.execute(update(nodes).where(nodes.c.id == node_id).values(dict(values)))


def present(tx: Transaction) -> Sequence[Node]:
    """All nodes that were not removed."""
    return tx.conn.execute(_PRESENT).all()


def page(tx: Transaction, request: PageRequest, *, status: str | None, group: str | None) -> Page[Node]:
    where: list[ColumnElement[bool]] = [nodes.c.status != str(NodeStatus.removed)]
    if status is not None:
        where.append(nodes.c.status == status)
    if group is not None:
        where.append(nodes.c.group_name == group)
    return fetch_page(tx, select(nodes).where(*where).order_by(nodes.c.id.desc()), request)


def silent_since(tx: Transaction, moment: datetime) -> Sequence[Node]:
    """Approved nodes counted as here that were last heard of before `moment`, locked."""
    here = [str(status) for status in (NodeStatus.online, NodeStatus.maintenance, NodeStatus.error)]
    query = select(nodes).where(nodes.c.status.in_(here), nodes.c.last_seen_at < moment).order_by(nodes.c.id)
    return tx.conn.execute(query.with_for_update(skip_locked=True)).all()


def add_vitals(tx: Transaction, row: Mapping[str, Any], *, every_seconds: float) -> None:
    """Keep a point of the history unless the last one is younger than `every_seconds`."""
    latest = tx.conn.scalar(select(func.max(node_vitals.c.at)).where(node_vitals.c.node_id == row["node_id"]))
    if latest is None or tx.now - latest >= timedelta(seconds=every_seconds):
        tx.conn.execute(insert(node_vitals).values(dict(row)))


def vitals_between(tx: Transaction, node_id: str, start: datetime) -> Sequence[Row[Any]]:
    query = select(node_vitals).where(node_vitals.c.node_id == node_id, node_vitals.c.at >= start)
    return tx.conn.execute(query.order_by(node_vitals.c.at)).all()


def prune_vitals(tx: Transaction, before: datetime) -> int:
    return tx.conn.execute(delete(node_vitals).where(node_vitals.c.at < before)).rowcount


def add_token(tx: Transaction, row: Mapping[str, Any]) -> None:
    tx.conn.execute(insert(enrolment_tokens).values(dict(row)))


def token(tx: Transaction, token_hash: str) -> Row[Any] | None:
    usable = and_(
        enrolment_tokens.c.token_hash == token_hash,
        enrolment_tokens.c.used_at.is_(None),
        enrolment_tokens.c.expires_at > tx.now,
    )
    return tx.conn.execute(select(enrolment_tokens).where(usable)).first()


def use_token(tx: Transaction, token_id: str, node_id: str) -> bool:
    """Spend a token; False when somebody was quicker."""
    statement = update(enrolment_tokens).where(enrolment_tokens.c.id == token_id, enrolment_tokens.c.used_at.is_(None))
    return tx.conn.execute(statement.values(used_at=tx.now, used_by=node_id)).rowcount == 1


def token_by_id(tx: Transaction, token_id: str) -> Row[Any] | None:
    return tx.conn.execute(select(enrolment_tokens).where(enrolment_tokens.c.id == token_id)).first()


def tokens(tx: Transaction, request: PageRequest) -> Page[Row[Any]]:
    return fetch_page(tx, select(enrolment_tokens).order_by(enrolment_tokens.c.id.desc()), request)


def revoke_token(tx: Transaction, token_id: str) -> bool:
    return tx.conn.execute(delete(enrolment_tokens).where(enrolment_tokens.c.id == token_id)).rowcount == 1

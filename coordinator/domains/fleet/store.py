"""Statements of the fleet."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
_HERE = [str(status) for status in (NodeStatus.online, NodeStatus.maintenance, NodeStatus.error)]
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


def locked(tx: Transaction, node_ids: Collection[str]) -> Sequence[Node]:
    """These nodes, locked in the order of their ids."""
    query = select(nodes).where(nodes.c.id.in_(node_ids)).order_by(nodes.c.id)
    return tx.conn.execute(query.with_for_update()).all()


def approved(tx: Transaction) -> Sequence[Any]:
    """Approved nodes, with what their logins to the broker follow from."""
    columns = (nodes.c.id, nodes.c.is_approved, nodes.c.approved_at, nodes.c.broker_login)
    return tx.conn.execute(select(*columns).where(nodes.c.is_approved)).all()


def existing(tx: Transaction, node_ids: Collection[str]) -> frozenset[str]:
    """Those of the ids that are nodes, removed ones too."""
    if not node_ids:
        return frozenset()
    return frozenset(tx.conn.scalars(select(nodes.c.id).where(nodes.c.id.in_(node_ids))))


def note_logins(tx: Transaction, made: Mapping[str, str | None]) -> None:
    """Write down what became of the logins of nodes (id → what), where that is news."""
    for value in set(made.values()):
        ids = [node_id for node_id, found in made.items() if found == value]
        statement = update(nodes).where(nodes.c.id.in_(ids), nodes.c.broker_login.is_distinct_from(value))
        tx.conn.execute(statement.values(broker_login=value))


def listening(tx: Transaction) -> Sequence[Any]:
    """Approved nodes that are here: id and canaries that they have not answered."""
    query = select(nodes.c.id, nodes.c.canaries_missed).where(nodes.c.is_approved, nodes.c.status.in_(_HERE))
    return tx.conn.execute(query).all()


def miss_canary(tx: Transaction, node_ids: Collection[str]) -> None:
    """Count a canary for each of them."""
    more = {"canaries_missed": nodes.c.canaries_missed + 1}
    tx.conn.execute(update(nodes).where(nodes.c.id.in_(node_ids)).values(more))


def silent_since(tx: Transaction, moment: datetime) -> Sequence[Node]:
    """Approved nodes counted as here that were last heard of before `moment`, locked."""
    query = select(nodes).where(nodes.c.status.in_(_HERE), nodes.c.last_seen_at < moment).order_by(nodes.c.id)
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

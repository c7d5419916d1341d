"""Queries of the identity domain about the sessions that logins open, as people and admins see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, or_, select, update

from coordinator.domains.identity.models import login_sessions
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest, fetch_page


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One row of `login_sessions`, without what tokens need of it."""

    id: str
    principal_id: str
    kind: str
    address: str | None
    user_agent: str | None
    created_at: datetime
    used_at: datetime
    expires_at: datetime
    ends_at: datetime | None
    revoked_at: datetime | None


_COLUMNS = tuple(login_sessions.c[name] for name in SessionRow.__dataclass_fields__)


def find(tx: Transaction, session_id: str) -> SessionRow | None:
    row = tx.conn.execute(select(*_COLUMNS).where(login_sessions.c.id == session_id)).one_or_none()
    return None if row is None else SessionRow(**row._asdict())


def page_of_open(tx: Transaction, principal_id: str | None, page: PageRequest) -> Page[SessionRow]:
    """Sessions that are not over, newest first; of one principal or of all."""
    wanted = select(*_COLUMNS).where(_open(tx)).order_by(login_sessions.c.id.desc())
    if principal_id is not None:
        wanted = wanted.where(login_sessions.c.principal_id == principal_id)
    found = fetch_page(tx, wanted, page)
    return Page([SessionRow(**row._asdict()) for row in found.items], found.total)


def open_ids(tx: Transaction, principal_id: str) -> Sequence[str]:
    """The ids of a principal's sessions that are not over, oldest first."""
    mine = login_sessions.c.principal_id == principal_id
    return tx.conn.scalars(select(login_sessions.c.id).where(mine, _open(tx)).order_by(login_sessions.c.id)).all()


def revoke(tx: Transaction, session_ids: Sequence[str]) -> list[str]:
    """End sessions; those that had not ended before."""
    ended = (
        update(login_sessions)
        .where(login_sessions.c.id.in_(session_ids), login_sessions.c.revoked_at.is_(None))
        .values(revoked_at=tx.now)
        .returning(login_sessions.c.id)
    )
    return sorted(tx.conn.scalars(ended).all()) if session_ids else []


def _open(tx: Transaction) -> ColumnElement[bool]:
    table = login_sessions
    lasting = or_(table.c.ends_at.is_(None), table.c.ends_at > tx.now)
    return and_(table.c.revoked_at.is_(None), table.c.expires_at > tx.now, lasting)

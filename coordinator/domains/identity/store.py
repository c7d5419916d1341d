"""Queries of the identity domain."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, bindparam, delete, insert, or_, select, update

from coordinator.domains.identity.models import login_sessions, principals
from coordinator.store.database import Transaction


@dataclass(frozen=True, slots=True)
class Principal:
    """One row of `principals`."""

    id: str
    kind: str
    name: str
    email: str | None
    full_name: str | None
    password_hash: str | None
    role: str
    active: bool
    created_at: datetime
    updated_at: datetime
    last_login_at: datetime | None
    version: int


# Built once: every authenticated request runs it. One round trip, two primary keys.
_BY_ID = select(principals).where(principals.c.id == bindparam("id"))
_BY_ID_AND_SESSION = (
    select(principals)
    .join(login_sessions, login_sessions.c.principal_id == principals.c.id)
    .where(
        principals.c.id == bindparam("id"),
        login_sessions.c.id == bindparam("session_id"),
        login_sessions.c.revoked_at.is_(None),
    )
)


def _principal(row: Row[Any] | None) -> Principal | None:
    return None if row is None else Principal(**row._asdict())


def find(tx: Transaction, principal_id: str) -> Principal | None:
    return _principal(tx.conn.execute(_BY_ID, {"id": principal_id}).one_or_none())


def find_with_session(tx: Transaction, principal_id: str, session_id: str) -> Principal | None:
    """The principal, if the session is theirs and was not revoked."""
    return _principal(tx.conn.execute(_BY_ID_AND_SESSION, {"id": principal_id, "session_id": session_id}).one_or_none())


def find_by_login(tx: Transaction, login: str) -> Principal | None:
    """The principal with this name or, when nobody has the name, this e-mail address."""
    rows = tx.conn.execute(
        select(principals).where(or_(principals.c.name == login, principals.c.email == login.lower()))
    ).all()
    by_name = next((row for row in rows if row.name == login), None)
    return _principal(by_name or next(iter(rows), None))


def add(tx: Transaction, principal: Principal) -> None:
    values = {column.name: getattr(principal, column.name) for column in principals.columns}
    tx.conn.execute(insert(principals).values(**values))


def record_login(tx: Transaction, principal_id: str, password_hash: str | None) -> None:
    """Note the time, and the hash when it was made anew with today's cost."""
    changed: dict[str, Any] = {"last_login_at": tx.now}
    if password_hash is not None:
        changed["password_hash"] = password_hash
    tx.conn.execute(update(principals).where(principals.c.id == principal_id).values(**changed))


@dataclass(frozen=True, slots=True)
class LoginSession:
    """One row of `login_sessions`, as far as tokens need it."""

    id: str
    principal_id: str
    refresh_id: str | None


def add_session(tx: Transaction, session: LoginSession, expires_at: datetime) -> None:
    tx.conn.execute(
        insert(login_sessions).values(
            id=session.id,
            principal_id=session.principal_id,
            refresh_id=session.refresh_id,
            created_at=tx.now,
            used_at=tx.now,
            expires_at=expires_at,
        )
    )


def exchange_refresh(tx: Transaction, session: LoginSession, new_refresh_id: str, expires_at: datetime) -> bool:
    """Put another refresh token in the place of the session's current one; False when it is not the current one."""
    done = tx.conn.execute(
        update(login_sessions)
        .where(
            login_sessions.c.id == session.id,
            login_sessions.c.principal_id == session.principal_id,
            login_sessions.c.refresh_id == session.refresh_id,
            login_sessions.c.revoked_at.is_(None),
        )
        .values(refresh_id=new_refresh_id, used_at=tx.now, expires_at=expires_at)
    )
    return done.rowcount == 1


def revoke_session(tx: Transaction, session_id: str) -> bool:
    """End a session; whether it had not ended before."""
    done = tx.conn.execute(
        update(login_sessions)
        .where(login_sessions.c.id == session_id, login_sessions.c.revoked_at.is_(None))
        .values(revoked_at=tx.now)
    )
    return done.rowcount == 1


def delete_expired_sessions(tx: Transaction, limit: int) -> int:
    old = select(login_sessions.c.id).where(login_sessions.c.expires_at <= tx.now).limit(limit)
    return tx.conn.execute(delete(login_sessions).where(login_sessions.c.id.in_(old))).rowcount

"""Queries of the identity domain about principals and their logins."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, bindparam, delete, exists, insert, or_, select, update

from coordinator.domains.identity.grants import Bound, Rule, main_role
from coordinator.domains.identity.models import login_sessions, principals, role_bindings, roles, spaces
from coordinator.domains.identity.rights import BUILT_IN_IDS, Role
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest, fetch_page

REMEMBERED_ROLES = 4096
_rules: dict[str, tuple[Rule, ...]] = {}
"""The rules of roles by id. A role never changes, so what was read once stays true."""


@dataclass(frozen=True, slots=True)
class Principal:
    """One row of `principals`, and the roles that it holds."""

    id: str
    kind: str
    name: str
    email: str | None
    full_name: str | None
    description: str | None
    plan: str
    password_hash: str | None
    active: bool
    created_by: str | None
    created_at: datetime
    updated_at: datetime
    last_login_at: datetime | None
    password_changed_at: datetime | None
    version: int
    bound: tuple[Bound, ...] = ()

    @property
    def role(self) -> str | None:
        """The most powerful built-in role that it holds everywhere."""
        found = main_role(self.bound)
        return None if found is None else found.value


FIELDS = tuple(name for name in Principal.__dataclass_fields__ if name != "bound")
_COLUMNS = tuple(principals.c[name] for name in FIELDS)
_OF_BINDING = (role_bindings.c.role_id, roles.c.name, role_bindings.c.space, roles.c.rules)
HELD = principals.outerjoin(role_bindings, role_bindings.c.principal_id == principals.c.id).outerjoin(
    roles, roles.c.id == role_bindings.c.role_id
)
OWNER_COLUMNS = (*_COLUMNS, *_OF_BINDING)
"""What `assembled` makes a principal of."""
SPACE_EXISTS = exists().where(spaces.c.name == bindparam("space")).label("space_exists")

# Built once: every authenticated request runs it. One round trip, all by primary keys and one index.
_IN_SESSION = (
    select(*_COLUMNS, *_OF_BINDING, SPACE_EXISTS)
    .select_from(HELD.join(login_sessions, login_sessions.c.principal_id == principals.c.id))
    .where(
        principals.c.id == bindparam("id"),
        login_sessions.c.id == bindparam("session_id"),
        login_sessions.c.revoked_at.is_(None),
        or_(login_sessions.c.ends_at.is_(None), login_sessions.c.ends_at > bindparam("now")),
    )
)


@dataclass(frozen=True, slots=True)
class Found:
    """Somebody, and whether the space that they ask for exists."""

    principal: Principal
    space_exists: bool


def find_in_session(tx: Transaction, principal_id: str, session_id: str, space: str) -> Found | None:
    """The principal with its roles, if the session is theirs and was not revoked."""
    asked = {"id": principal_id, "session_id": session_id, "space": space, "now": tx.now}
    rows = tx.conn.execute(_IN_SESSION, asked).all()
    return Found(assembled(rows), bool(rows[0].space_exists)) if rows else None


def find(tx: Transaction, principal_id: str) -> Principal | None:
    return _one(tx, principals.c.id == principal_id)


def find_by_name(tx: Transaction, name: str) -> Principal | None:
    return _one(tx, principals.c.name == name)


def find_by_login(tx: Transaction, login: str) -> Principal | None:
    """The principal with this name or, when nobody has the name, this e-mail address."""
    found = _several(tx, or_(principals.c.name == login, principals.c.email == login.lower()))
    return next((one for one in found if one.name == login), None) or next(iter(found), None)


def lock(tx: Transaction, principal_id: str) -> Principal | None:
    """The principal, and nobody else changes it until the transaction ends."""
    locked = tx.conn.scalar(select(principals.c.id).where(principals.c.id == principal_id).with_for_update())
    return None if locked is None else find(tx, principal_id)


def list_page(tx: Transaction, condition: ColumnElement[bool], page: PageRequest) -> Page[Principal]:
    """One page of the principals that the condition holds for, newest first."""
    wanted = select(principals.c.id).where(condition).order_by(principals.c.id.desc())
    found = fetch_page(tx, wanted, page)
    ids = [row.id for row in found.items]
    by_id = {one.id: one for one in _several(tx, principals.c.id.in_(ids))} if ids else {}
    return Page([by_id[id_] for id_ in ids if id_ in by_id], found.total)


def of_kinds(kinds: Collection[str]) -> ColumnElement[bool]:
    """The condition for principals of these kinds; whoever is admin everywhere shows among all kinds alike."""
    is_admin = exists().where(
        role_bindings.c.principal_id == principals.c.id,
        role_bindings.c.role_id == BUILT_IN_IDS[Role.ADMIN],
        role_bindings.c.space.is_(None),
    )
    return or_(principals.c.kind.in_(sorted(kinds)), is_admin)


def assembled(rows: Sequence[Row[*tuple[Any, ...]]]) -> Principal:
    """One principal from its rows, one for each role; each begins with the columns of FIELDS and of a binding."""
    width = len(FIELDS)
    bound = tuple(_bound(*row[width : width + len(_OF_BINDING)]) for row in rows if row[width] is not None)
    return Principal(**dict(zip(FIELDS, rows[0], strict=False)), bound=bound)


def _bound(role_id: str, role: str, space: str | None, rules: Any) -> Bound:
    if rules is None:
        return Bound(role_id, role, space)
    known = _rules.get(role_id)
    if known is None:
        if len(_rules) >= REMEMBERED_ROLES:
            _rules.clear()
        known = _rules[role_id] = tuple(Rule.of(each) for each in rules)
    return Bound(role_id, role, space, known)


def _one(tx: Transaction, condition: ColumnElement[bool]) -> Principal | None:
    return next(iter(_several(tx, condition)), None)


def _several(tx: Transaction, condition: ColumnElement[bool]) -> list[Principal]:
    rows = tx.conn.execute(select(*_COLUMNS, *_OF_BINDING).select_from(HELD).where(condition)).all()
    by_id: dict[str, list[Row[*tuple[Any, ...]]]] = {}
    for row in rows:
        by_id.setdefault(row[0], []).append(row)
    return [assembled(each) for each in by_id.values()]


def add(tx: Transaction, principal: Principal) -> None:
    tx.conn.execute(insert(principals).values({name: getattr(principal, name) for name in FIELDS}))


def change(tx: Transaction, principal: Principal, changes: dict[str, Any]) -> None:
    """Write `changes` over a principal that the caller has locked."""
    raised = {**changes, "updated_at": tx.now, "version": principal.version + 1}
    tx.conn.execute(update(principals).where(principals.c.id == principal.id).values(raised))


def remove(tx: Transaction, principal_id: str) -> bool:
    """Delete a principal with all that hangs on it; whether there was one."""
    return tx.conn.execute(delete(principals).where(principals.c.id == principal_id)).rowcount == 1


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
    expires_at: datetime | None = None
    """When the longest-lived of its tokens ends, if it was opened or renewed just now."""
    ends_at: datetime | None = None

    def seconds_of(self, wanted: int, now: datetime) -> int:
        """For how long a token of it that should be good for `wanted` seconds may be."""
        ends = [each for each in (self.expires_at, self.ends_at) if each is not None]
        return min([wanted, *(int((end - now).total_seconds()) for end in ends)])


@dataclass(frozen=True, slots=True)
class Opening:
    """How a session begins: what kind of login, from where, until when and, at most, how much longer."""

    expires_at: datetime
    kind: str = "v1"
    address: str | None = None
    user_agent: str | None = None
    ends_at: datetime | None = None


def add_session(tx: Transaction, session: LoginSession, opening: Opening) -> None:
    tx.conn.execute(
        insert(login_sessions).values(
            id=session.id,
            principal_id=session.principal_id,
            refresh_id=session.refresh_id,
            kind=opening.kind,
            address=opening.address,
            user_agent=opening.user_agent,
            created_at=tx.now,
            used_at=tx.now,
            expires_at=opening.expires_at,
            ends_at=opening.ends_at,
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

"""Logging in, and making sure that there is somebody who can."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta

from coordinator.config import Settings
from coordinator.domains.identity import audit, binding_store, store
from coordinator.domains.identity.audit import Who
from coordinator.domains.identity.grants import Bound
from coordinator.domains.identity.passwords import Passwords, passwords
from coordinator.domains.identity.rights import BUILT_IN_IDS, Role
from coordinator.domains.identity.store import Found, LoginSession, Opening, Principal
from coordinator.store.database import Transaction
from shared.errors import Unauthenticated
from shared.ids import new_id

__all__ = [
    "Found",
    "LoginRefused",
    "LoginSession",
    "Opening",
    "Principal",
    "add_principal",
    "ensure_admin",
    "find_active",
    "find_in_session",
    "log_in",
    "open_session",
    "purge_sessions",
    "renew_session",
]

PURGE_BATCH = 1000

Begin = Callable[[], AbstractContextManager[Transaction]]


class LoginRefused(Unauthenticated):
    """The same to every caller; `principal` and `why` are for the audit trail alone."""

    def __init__(self, principal: Principal | None, why: str) -> None:
        super().__init__("name or password is wrong")
        self.principal = principal
        self.why = why


def log_in(login: str, password: str, *, read: Begin, write: Begin, hasher: Passwords) -> Principal:
    """The principal with this name or e-mail address and password.

    Everything that can be wrong gives the same answer after the same work, and no transaction is open
    while the password is being verified.
    """
    with read() as tx:
        found = store.find_by_login(tx, login)
    right = hasher.matches(found.password_hash if found else None, password)
    if found is None or not right or not found.active:
        raise LoginRefused(found, _why_refused(found, right))
    renewed = hasher.hash(password) if hasher.is_outdated(found.password_hash or "") else None
    with write() as tx:
        store.record_login(tx, found.id, renewed)
    return found


def _why_refused(found: Principal | None, right: bool) -> str:
    if found is None:
        return "nobody has this name"
    return "the principal is switched off" if right else "the password is wrong"


def find_active(tx: Transaction, principal_id: str) -> Principal | None:
    """The principal, unless it is gone or switched off."""
    found = store.find(tx, principal_id)
    return found if found is not None and found.active else None


def find_in_session(tx: Transaction, principal_id: str, session_id: str, space: str) -> Found | None:
    """The principal and whether the space exists, unless it is switched off or the session was revoked."""
    found = store.find_in_session(tx, principal_id, session_id, space)
    return found if found is not None and found.principal.active else None


def open_session(
    tx: Transaction,
    principal: Principal,
    *,
    seconds: int,
    refreshable: bool,
    kind: str = "v1",
    address: str | None = None,
    user_agent: str | None = None,
) -> LoginSession:
    """Begin a session; all tokens of this login carry its id."""
    session = LoginSession(new_id(), principal.id, new_id() if refreshable else None)
    opening = Opening(tx.now + timedelta(seconds=seconds), kind=kind, address=address, user_agent=user_agent)
    store.add_session(tx, session, opening)
    return session


def renew_session(tx: Transaction, shown: LoginSession, *, seconds: int, by: Who) -> LoginSession | None:
    """The session with its next refresh token, if `shown` holds the current one.

    An older one means that two parties hold tokens of one login, and one of them stole theirs: the session ends,
    for both. The caller must let this transaction commit.
    """
    renewed = LoginSession(shown.id, shown.principal_id, new_id())
    if store.exchange_refresh(tx, shown, renewed.refresh_id or "", tx.now + timedelta(seconds=seconds)):
        return renewed
    if store.revoke_session(tx, shown.id):
        told = "one of its refresh tokens was shown a second time"
        audit.record(tx, audit.named(tx, by), "session.ended", resource_id=shown.id, message=told)
    return None


def purge_sessions(tx: Transaction) -> int:
    """Forget a batch of sessions whose last token has expired; how many."""
    return store.delete_expired_sessions(tx, PURGE_BATCH)


def add_principal(
    tx: Transaction,
    *,
    kind: str,
    name: str,
    role: Role | None,
    email: str | None = None,
    full_name: str | None = None,
    description: str | None = None,
    password_hash: str | None = None,
    by: str | None = None,
) -> Principal:
    """A new principal who may log in at once, and what the role says; without a role nothing but its own account."""
    made = Principal(
        id=new_id(),
        kind=kind,
        name=name,
        email=email.lower() if email else None,
        full_name=full_name,
        description=description,
        plan="enterprise",
        password_hash=password_hash,
        active=True,
        created_by=by,
        created_at=tx.now,
        updated_at=tx.now,
        last_login_at=None,
        password_changed_at=tx.now if password_hash else None,
        version=1,
        bound=() if role is None else (Bound(BUILT_IN_IDS[role], role.value, None),),
    )
    store.add(tx, made)
    if role is not None:
        binding_store.bind(tx, principal_id=made.id, role_id=BUILT_IN_IDS[role], space=None, by=by)
    return made


def ensure_admin(tx: Transaction, settings: Settings) -> Principal:
    """The admin that the settings name, made if there is none. An existing one keeps its password."""
    found = store.find_by_login(tx, settings.admin_name)
    if found is not None:
        return found
    secret = settings.admin_password.get_secret_value()
    made = add_principal(
        tx,
        kind="user",
        name=settings.admin_name,
        role=Role.ADMIN,
        email=settings.admin_email,
        full_name="Administrator",
        password_hash=passwords(settings.password_cost).hash(secret),
    )
    told = {"name": made.name, "email": made.email, "role": made.role}
    audit.record(tx, audit.SYSTEM, "user.created", resource_id=made.id, after=told)
    return made

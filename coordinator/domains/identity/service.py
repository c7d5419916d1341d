"""Principals, the sessions of their logins, and making sure that there is somebody who can log in."""

from __future__ import annotations

from coordinator.config import Settings
from coordinator.domains.identity import assertion_store, audit, binding_store, lockout, sessions, store
from coordinator.domains.identity.escalation import Holder
from coordinator.domains.identity.grants import Bound
from coordinator.domains.identity.logins import LoginRefused
from coordinator.domains.identity.passwords import passwords
from coordinator.domains.identity.rights import BUILT_IN_IDS, Role
from coordinator.domains.identity.sessions import open_session
from coordinator.domains.identity.store import Found, LoginSession, Opening, Principal
from coordinator.store.database import Transaction
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
    "holder",
    "is_admin",
    "open_session",
    "purge_sessions",
    "roles_of",
]


def find_active(tx: Transaction, principal_id: str) -> Principal | None:
    """The principal, unless it is gone or switched off."""
    found = store.find(tx, principal_id)
    return found if found is not None and found.active else None


def is_admin(principal: Principal) -> bool:
    """Whether they hold the built-in role admin everywhere."""
    return principal.role == Role.ADMIN


def roles_of(tx: Transaction, principal_id: str) -> tuple[Bound, ...]:
    """The roles that somebody holds; none for whoever is no principal (a node)."""
    found = store.find(tx, principal_id)
    return () if found is None else found.bound


def holder(tx: Transaction, principal_id: str, limits: frozenset[str] | None) -> Holder:
    """Somebody who gives or takes roles, and comes with a credential of these limits."""
    return Holder(principal_id, roles_of(tx, principal_id), limits)


def find_in_session(tx: Transaction, principal_id: str, session_id: str, space: str) -> Found | None:
    """The principal and whether the space exists, unless it is switched off or the session was revoked."""
    found = store.find_in_session(tx, principal_id, session_id, space)
    return found if found is not None and found.principal.active else None


def purge_sessions(tx: Transaction) -> int:
    """Forget a batch of sessions whose last token has expired, and of what else logins leave; how many."""
    return sessions.purge(tx) + lockout.purge(tx) + assertion_store.purge(tx)


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

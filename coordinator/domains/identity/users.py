"""People with an account: registering, changing, switching off, and what nobody may do to whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.exc import IntegrityError

from coordinator.config import Settings
from coordinator.domains.identity import (
    binding_store,
    escalation,
    last_admin,
    lockout,
    second_factor,
    service,
    sessions,
    store,
    user_store,
)
from coordinator.domains.identity.grants import Bound
from coordinator.domains.identity.password_policy import Chosen, set_password
from coordinator.domains.identity.rights import BUILT_IN_IDS, Role
from coordinator.domains.identity.store import Principal
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest
from shared.errors import Duplicate, Forbidden, Invalid, NotFound

KINDS = ("user",)
TAKEN = "somebody has this name or e-mail address already"
PLAIN_FIELDS = ("full_name", "email", "is_active", "plan")
_COLUMNS = {"is_active": "active"}


def require_standing(
    tx: Transaction,
    actor_id: str,
    *,
    limits: frozenset[str] | None,
    role: Role | None = None,
    over: Principal | None = None,
) -> None:
    """Raise Forbidden when the actor would give a role, or touch somebody, that may do more than itself.

    `limits` are the scopes of the key that it came with.
    """
    actor = store.find(tx, actor_id)
    own = () if actor is None else actor.bound
    if role is not None and escalation.excess(own, (Bound(BUILT_IN_IDS[role], role.value, None),), limits=limits):
        raise Forbidden("you may not give a role that grants more than you hold yourself", role=role.value)
    if over is not None and escalation.excess(own, over.bound, limits=limits):
        raise Forbidden("you may not change somebody who may do more than you")


def page(tx: Transaction, request: PageRequest) -> Page[Principal]:
    """Users, newest first. Whoever is admin everywhere is among them, of whatever kind they are."""
    return store.list_page(tx, store.of_kinds(KINDS), request)


def get(tx: Transaction, user_id: str) -> Principal:
    found = user_store.find_of_kinds(tx, user_id, KINDS)
    if found is None:
        raise NotFound("there is no such user", id=user_id)
    return found


def locked(tx: Transaction, user_id: str) -> Principal:
    """The user, and nobody else changes them until the transaction ends."""
    get(tx, user_id)
    found = store.lock(tx, user_id)
    if found is None:
        raise NotFound("there is no such user", id=user_id)
    return found


def add(
    tx: Transaction,
    *,
    name: str | None,
    email: str,
    full_name: str | None,
    role: Role | None,
    chosen: Chosen,
    by: str | None = None,
) -> Principal:
    """A new user, whose name is the e-mail address unless it is given."""
    called = name or email.lower()
    if "@" in called and called.lower() != email.lower():
        reason = "must not look like an e-mail address, unless it is one's own"
        raise Invalid(f"name: {reason}", field="name", reason=reason)
    require_free(tx, name=called, email=email)
    try:
        return service.add_principal(
            tx,
            kind="user",
            name=called,
            email=email,
            full_name=full_name,
            role=role,
            password_hash=chosen.digest,
            by=by,
        )
    except IntegrityError as error:
        raise Duplicate(TAKEN) from error


def require_free(tx: Transaction, *, name: str | None = None, email: str | None = None, but: str | None = None) -> None:
    """Raise Duplicate when somebody other than `but` can be called so, by name or by address.

    Both are looked for among both: whoever took somebody's address for a name would stand before them at the door.
    """
    words = {word for each in (name, email) if each is not None for word in (each, each.lower())}
    if words and user_store.is_taken(tx, sorted(words), but=but):
        raise Duplicate(TAKEN)


def change(tx: Transaction, found: Principal, changes: Mapping[str, Any]) -> Principal:
    """Write the plain fields of a principal that the caller has locked; those who are switched off are out at once."""
    values = {_COLUMNS.get(name, name): changes[name] for name in PLAIN_FIELDS if name in changes}
    if (email := values.get("email")) is not None:
        values["email"] = email.lower()
        require_free(tx, email=email, but=found.id)
    if values.get("active") is False and found.active:
        last_admin.keep_one(tx, without=found.id)
        sessions.end_all_but(tx, found.id)
    try:
        store.change(tx, found, values)
    except IntegrityError as error:
        raise Duplicate(TAKEN) from error
    return afresh(tx, found.id)


def give_role(tx: Transaction, found: Principal, role: Role, *, by: str | None) -> Principal:
    """Let somebody hold this built-in role everywhere, and no other one."""
    if role is not Role.ADMIN:
        last_admin.keep_one(tx, without=found.id)
    binding_store.unbind_everywhere(tx, found.id, list(BUILT_IN_IDS.values()))
    binding_store.bind(tx, principal_id=found.id, role_id=BUILT_IN_IDS[role], space=None, by=by)
    return afresh(tx, found.id)


def reset_password(tx: Transaction, found: Principal, chosen: Chosen) -> Principal:
    """Another password, which nobody was asked for; all sessions end."""
    set_password(tx, found, chosen)
    return afresh(tx, found.id)


def reset_second_factor(tx: Transaction, user_id: str) -> bool:
    """Forget the second factor of somebody who lost it; whether there was one."""
    return second_factor.remove(tx, user_id)


def unlock(tx: Transaction, settings: Settings, found: Principal) -> int:
    """Let somebody try again who was locked out; how many places had failures."""
    names = [each for each in (found.name, found.email) if each]
    return lockout.unlock(tx, settings, names=names, principal_id=found.id)


def remove(tx: Transaction, found: Principal) -> None:
    """Delete a user with all that hangs on them; the trail keeps what they did."""
    last_admin.keep_one(tx, without=found.id)
    store.remove(tx, found.id)


def afresh(tx: Transaction, user_id: str) -> Principal:
    """Somebody as they are by now, whether or not they still show among users."""
    found = store.find(tx, user_id)
    if found is None:
        raise NotFound("there is no such user", id=user_id)
    return found

"""Service accounts and operators: one kind of account, kept for machines and seen under two names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.exc import IntegrityError

from coordinator.domains.identity import last_admin, password_policy, service, sessions, store, users
from coordinator.domains.identity.password_policy import Chosen, WeakPassword
from coordinator.domains.identity.passwords import passwords
from coordinator.domains.identity.store import Principal
from coordinator.resources import Resources
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest
from shared.errors import Duplicate, NotFound
from shared.ids import is_id

KINDS = ("operator", "service_account")
SHORTEST_PASSWORD = 8
"""What was published for accounts of this kind; people's passwords obey the policy that admins set."""


def page(tx: Transaction, request: PageRequest) -> Page[Principal]:
    """The accounts, newest first; whoever is admin everywhere is among them."""
    return store.list_page(tx, store.of_kinds(KINDS), request)


def find(tx: Transaction, which: str, *, by_id: bool) -> Principal | None:
    """The account of this name or, with `by_id`, this id."""
    found = store.find(tx, which.lower()) if by_id and is_id(which.lower()) else store.find_by_name(tx, which)
    return found if found is not None and (found.kind in KINDS or service.is_admin(found)) else None


def get(tx: Transaction, which: str, *, by_id: bool) -> Principal:
    found = find(tx, which, by_id=by_id)
    if found is None:
        raise NotFound("there is no such account", id=which)
    return found


def get_to_change(tx: Transaction, which: str, *, by_id: bool) -> Principal:
    """The account, and nobody else changes it until the transaction ends."""
    held = store.lock(tx, get(tx, which, by_id=by_id).id)
    if held is None:
        raise NotFound("there is no such account", id=which)
    return held


def add(tx: Transaction, *, kind: str, name: str, description: str | None, chosen: Chosen, by: str) -> Principal:
    """A new account, which may log in and nothing else until somebody gives it a role."""
    users.require_free(tx, name=name)
    try:
        return service.add_principal(
            tx, kind=kind, name=name, role=None, description=description, password_hash=chosen.digest, by=by
        )
    except IntegrityError as error:
        raise Duplicate(users.TAKEN) from error


def change(tx: Transaction, found: Principal, body: Mapping[str, Any]) -> Principal:
    """Apply what is to be different to an account that the caller has locked; switched off, it is out at once."""
    wanted = {name: body[name] for name in ("description", "active") if name in body}
    changes = {name: value for name, value in wanted.items() if getattr(found, name) != value}
    if changes.get("active") is False:
        last_admin.keep_one(tx, without=found.id)
        sessions.end_all_but(tx, found.id)
    if changes:
        store.change(tx, found, changes)
    return store.find(tx, found.id) or found


def remove(tx: Transaction, found: Principal) -> None:
    """Delete an account with all that hangs on it; the trail keeps what it did."""
    last_admin.keep_one(tx, without=found.id)
    store.remove(tx, found.id)


def choose_password(
    resources: Resources, password: str, *, field: str, name: str, holder: Principal | None = None
) -> Chosen:
    """The password as it will be stored, or WeakPassword. Takes as long as hashing does: hold no transaction open."""
    if holder is not None and holder.kind not in KINDS:
        names = (holder.name, holder.email)
        return password_policy.choose(resources, password, names=names, principal=holder, field=field)
    if len(password) < SHORTEST_PASSWORD:
        raise WeakPassword(field, [f"must have at least {SHORTEST_PASSWORD} characters"])
    if password.casefold() == name.casefold():
        raise WeakPassword(field, ["must not be the name"])
    return Chosen(passwords(resources.settings.password_cost).hash(password), keep=0)

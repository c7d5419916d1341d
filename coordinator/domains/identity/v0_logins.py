"""Tokens that an admin is given to act as somebody else, and who somebody is in the words of v0."""

from __future__ import annotations

from coordinator.domains.identity import bindings, service, sessions, store, users
from coordinator.domains.identity.rights import Role
from coordinator.domains.identity.store import LoginSession, Principal
from coordinator.store.database import Transaction
from shared.errors import Conflict, NotFound

TYPES = ("User", "Operator")


def subject(tx: Transaction, name: str, type_: str, *, actor_id: str, limits: frozenset[str] | None) -> Principal:
    """Whom a token is to be for. A user that nobody has heard of is made, with the built-in role `user`.

    Acting as somebody who may do more than oneself would be a way around all roles: Forbidden.
    """
    found = store.find_by_name(tx, name)
    if found is None:
        if type_ != "User":
            raise NotFound("there is no such operator", principal=name)
        users.require_free(tx, name=name)
        users.require_standing(tx, actor_id, limits=limits, role=Role.USER)
        return service.add_principal(tx, kind="user", name=name, role=Role.USER, by=actor_id)
    if found.kind not in bindings.TYPES[type_] and not service.is_admin(found):
        raise Conflict(f"{name} is a principal of another type", principal=name)
    if not found.active:
        raise Conflict(f"{name} is switched off", principal=name)
    users.require_standing(tx, actor_id, limits=limits, over=found)
    return found


def open_for(
    tx: Transaction, found: Principal, *, seconds: int, address: str | None, user_agent: str | None
) -> LoginSession:
    """A session in which somebody else acts as this principal."""
    return sessions.open_session(
        tx, found, seconds=seconds, refreshable=False, kind="v0", address=address, user_agent=user_agent
    )


def type_of(principal: Principal, account: str) -> str:
    """`account` (ServiceAccount or Operator, as the generation calls it) for accounts and admins, else Subject."""
    return "Subject" if principal.kind == "user" and not service.is_admin(principal) else account

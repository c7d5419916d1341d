"""Roles: named sets of rules, made and deleted and never changed; and the built-in ones in the same words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coordinator.domains.identity import role_store, rule_words
from coordinator.domains.identity.escalation import Holder
from coordinator.domains.identity.grants import Bound, Rule
from coordinator.domains.identity.rights import BUILT_IN_IDS, DESCRIPTIONS, Role
from coordinator.domains.identity.role_store import RoleRow
from coordinator.domains.identity.rule_words import StoredRule
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest
from shared.errors import Conflict, Duplicate, NotFound
from shared.ids import is_id, new_id

__all__ = ["RoleRow", "add", "bound_in", "description_of", "get", "is_built_in", "list_roles", "remove", "rules_of"]

_BUILT_IN: Mapping[str, Role] = {id_: role for role, id_ in BUILT_IN_IDS.items()}


def list_roles(tx: Transaction, page: PageRequest) -> Page[RoleRow]:
    return role_store.list_page(tx, page)


def get(tx: Transaction, which: str) -> RoleRow:
    """The role with this id or name."""
    found = role_store.find(tx, which.lower()) if is_id(which.lower()) else role_store.find_by_name(tx, which)
    if found is None:
        raise NotFound("there is no such role", id=which)
    return found


def add(tx: Transaction, body: Mapping[str, Any], *, by: str) -> RoleRow:
    """A new role. It gives nobody anything until somebody is bound to it."""
    made = RoleRow(
        id=new_id(),
        name=body["name"],
        description=body.get("description"),
        rules=[rule_words.canonical(rule) for rule in body["rules"]],
        created_by=by,
        created_at=tx.now,
    )
    if not role_store.add(tx, made):
        raise Duplicate("there is a role of this name already", name=made.name)
    return made


def remove(tx: Transaction, which: str, taker: Holder) -> tuple[RoleRow, int]:
    """Delete a role and take it from all who hold it; answers what it was, and how many bindings went with it.

    Nobody takes, in the places where it is held, what they could not give there.
    """
    role = get(tx, which)
    if role.id in _BUILT_IN:
        raise Conflict("a built-in role cannot be deleted", name=role.name)
    taker.require([bound_in(role, place) for place in role_store.places_of(tx, role.id)])
    held = role_store.count_holders(tx, role.id)
    if not role_store.remove(tx, role.id):
        raise NotFound("there is no such role", id=which)
    return role, held


def rules_of(role: RoleRow) -> list[StoredRule]:
    """What it grants, in the words of rules."""
    if role.rules is not None:
        return role.rules
    return rule_words.of_built_in(_BUILT_IN[role.id])


def description_of(role: RoleRow) -> str | None:
    built_in = _BUILT_IN.get(role.id)
    return role.description if built_in is None else DESCRIPTIONS[built_in]


def is_built_in(role: RoleRow) -> bool:
    return role.id in _BUILT_IN


def bound_in(role: RoleRow, space: str | None) -> Bound:
    """What it would be to hold this role, everywhere or in a space."""
    rules = None if role.rules is None else tuple(Rule.of(each) for each in role.rules)
    return Bound(role.id, role.name, space, rules)

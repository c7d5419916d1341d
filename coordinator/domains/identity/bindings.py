"""Who holds which role where: given by those who have as much themselves, never taken from the last admin."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy.exc import IntegrityError

from coordinator.domains.identity import binding_store, last_admin, roles, service, spaces, store
from coordinator.domains.identity.binding_store import Binding
from coordinator.domains.identity.escalation import Holder
from coordinator.domains.identity.rights import BUILT_IN_IDS, Role
from coordinator.domains.identity.store import Principal
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest
from shared.errors import Conflict, Duplicate, NotFound
from shared.ids import is_id

__all__ = ["TYPES", "Binding", "Wanted", "add", "get", "list_bindings", "remove", "type_of"]

# Service accounts and operators are one kind of account under the names of two generations.
_ACCOUNTS = frozenset({"service_account", "operator"})
TYPES: Mapping[str, Collection[str]] = {
    "ServiceAccount": _ACCOUNTS,
    "Operator": _ACCOUNTS,
    "User": frozenset({"user"}),
    "Subject": frozenset({"user"}),
}
"""The published types of principals, and the kinds that each of them means."""

_TYPE_OF = {"service_account": "ServiceAccount", "operator": "Operator", "user": "User"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A binding as somebody asks for it. `space` None is everywhere; `type` None is whichever has the name."""

    role: str
    principal: str
    type: str | None
    space: str | None


def type_of(kind: str) -> str:
    """The published type of a principal of this kind."""
    return _TYPE_OF[kind]


def list_bindings(tx: Transaction, page: PageRequest) -> Page[Binding]:
    return binding_store.list_page(tx, page)


def get(tx: Transaction, binding_id: str) -> Binding:
    found = binding_store.find(tx, binding_id)
    if found is None:
        raise NotFound("there is no such role binding", id=binding_id)
    return found


def add(tx: Transaction, wanted: Wanted, giver: Holder) -> Binding:
    """Let somebody hold a role. Nobody gives what they do not have in that place themselves."""
    role = roles.get(tx, wanted.role)
    principal = _principal(tx, wanted)
    if wanted.space is not None:
        spaces.get(tx, wanted.space)
    giver.require([roles.bound_in(role, wanted.space)])
    if binding_store.is_bound(tx, principal_id=principal.id, role_id=role.id, space=wanted.space):
        raise Duplicate(f"{principal.name} holds the role {role.name} there already", role=role.name)
    try:
        made = binding_store.bind(tx, principal_id=principal.id, role_id=role.id, space=wanted.space, by=giver.id)
    except IntegrityError:
        raise Conflict("one of role, principal and space has just changed; ask again") from None
    return get(tx, made)


def remove(tx: Transaction, binding_id: str, taker: Holder) -> Binding:
    """Take a role away. Nobody takes what they could not give; Conflict when it is what makes the last admin."""
    binding = get(tx, binding_id)
    taker.require([roles.bound_in(roles.get(tx, binding.role_id), binding.space)])
    if (binding.role_id, binding.space) == (BUILT_IN_IDS[Role.ADMIN], None):
        last_admin.keep_one(tx, without=binding.principal_id)
    if not binding_store.remove(tx, binding_id):
        raise NotFound("there is no such role binding", id=binding_id)
    return binding


def _principal(tx: Transaction, wanted: Wanted) -> Principal:
    by_id = store.find(tx, wanted.principal.lower()) if is_id(wanted.principal.lower()) else None
    found = by_id or store.find_by_name(tx, wanted.principal)
    if found is None or not _is_of_type(found, wanted.type):
        raise NotFound("there is no such principal", principal=wanted.principal, principal_type=wanted.type)
    return found


def _is_of_type(principal: Principal, type_: str | None) -> bool:
    return type_ is None or principal.kind in TYPES[type_] or service.is_admin(principal)

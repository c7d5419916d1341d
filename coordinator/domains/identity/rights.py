"""The one table from roles to rights.

A right is `noun:verb`. For each noun the table says which role may read it and which may act on it (any other verb).
A noun that is not in the table belongs to the admin alone, so forgetting a line closes a door and never opens one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """The built-in roles, each including the ones after it."""

    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"


@dataclass(frozen=True, slots=True)
class Access:
    """The least role for reading and for acting."""

    read: Role
    act: Role


_OWN = Access(read=Role.VIEWER, act=Role.VIEWER)
_WORK = Access(read=Role.VIEWER, act=Role.OPERATOR)
_WATCHED = Access(read=Role.VIEWER, act=Role.ADMIN)
_CLOSED = Access(read=Role.ADMIN, act=Role.ADMIN)

ACCESS: dict[str, Access] = {
    "account": _OWN,
    "agents": _WORK,
    "executions": _WORK,
    "files": _WORK,
    "jobs": _WORK,
    "tasks": _WORK,
    "workers": _WATCHED,
    "audit": _CLOSED,
    "circuit_breakers": _CLOSED,
    "dead_letters": _CLOSED,
    "enrolment_tokens": _CLOSED,
    "queue": _CLOSED,
    "settings": _CLOSED,
    "users": _CLOSED,
}

_RANK = {Role.VIEWER: 0, Role.OPERATOR: 1, Role.ADMIN: 2}


def _rights(role: Role) -> frozenset[str]:
    if role is Role.ADMIN:
        return frozenset({"*"})
    granted = set()
    for noun, access in ACCESS.items():
        if _RANK[access.act] <= _RANK[role]:
            granted.add(f"{noun}:*")
        elif _RANK[access.read] <= _RANK[role]:
            granted.add(f"{noun}:read")
    return frozenset(granted)


RIGHTS: dict[str, frozenset[str]] = {role.value: _rights(role) for role in Role}


def rights_of(role: str) -> frozenset[str]:
    """The rights of a role; an unknown role has none."""
    return RIGHTS.get(role, frozenset())

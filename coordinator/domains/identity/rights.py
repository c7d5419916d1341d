"""The one table from nouns and built-in roles to rights.

A right is `noun:verb`. Verbs are get, list, create, update and delete, and words of their own for what is more than
those (`approve`, `read-values`). For each noun the table says which built-in roles read it and which change it. What is
not in the table, a word of its own included, belongs to the admin alone: forgetting a line closes a door and never
opens one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

READING = ("get", "list")
CHANGING = ("create", "update", "delete")
EVERYTHING = "*"


class Role(StrEnum):
    """The built-in roles, the most powerful first."""

    ADMIN = "admin"
    OPERATOR = "operator"
    DEVELOPER = "developer"
    VIEWER = "viewer"
    USER = "user"


BUILT_IN_IDS: Mapping[Role, str] = {
    role: f"00000000-0000-7000-8000-00000000000{number}" for number, role in enumerate(Role, 1)
}
"""The ids of the built-in roles, the same in every installation."""

DESCRIPTIONS: Mapping[Role, str] = {
    Role.ADMIN: "May do everything.",
    Role.OPERATOR: "Runs agents and work, and sees the workers.",
    Role.DEVELOPER: "Makes agents and runs work.",
    Role.VIEWER: "Sees agents, work and workers.",
    Role.USER: "Has an account, and sessions of its own.",
}


@dataclass(frozen=True, slots=True)
class Noun:
    """What rights are about."""

    readers: frozenset[Role] = frozenset()
    writers: frozenset[Role] = frozenset()
    words: Mapping[str, frozenset[Role]] = field(default_factory=dict)
    """Verbs of its own, and who has them beside the admin."""
    in_space: bool = False
    """Whether each one belongs to a space; a role that is held in a space says nothing about the others."""
    everywhere: frozenset[str] = frozenset()
    """Verbs that a role held in one space does not give, although the noun belongs to spaces."""
    group: str = "api"
    """The API group that rules know it by."""


_EVERYBODY = frozenset(Role)
_WATCHERS = frozenset({Role.OPERATOR, Role.DEVELOPER, Role.VIEWER})
_WORKERS = frozenset({Role.OPERATOR, Role.DEVELOPER})
_OPERATOR = frozenset({Role.OPERATOR})

_WORK = Noun(readers=_WATCHERS, writers=_WORKERS, in_space=True)
_CLOSED = Noun()
_CLOSED_IN_SPACE = Noun(in_space=True)

NOUNS: dict[str, Noun] = {
    "account": Noun(readers=_EVERYBODY, writers=_EVERYBODY),
    "agents": _WORK,
    "executions": _WORK,
    "files": _WORK,
    "jobs": _WORK,
    "messages": Noun(readers=_EVERYBODY, writers=_WORKERS | {Role.USER}, in_space=True),
    "sessions": Noun(readers=_EVERYBODY, writers=_WORKERS | {Role.USER}, in_space=True),
    "space_builds": _WORK,
    "space_secrets": Noun(readers=_WORKERS, writers=_OPERATOR, words={"read-values": _OPERATOR}, in_space=True),
    "tasks": _WORK,
    "spaces": Noun(readers=_WATCHERS, in_space=True, everywhere=frozenset({"create", "delete"})),
    "workers": Noun(readers=_WATCHERS),
    "dead_letters": _CLOSED_IN_SPACE,
    "audit": _CLOSED,
    "circuit_breakers": _CLOSED,
    "enrolment_tokens": _CLOSED,
    "identity_providers": _CLOSED,
    "operators": _CLOSED,
    "queue": _CLOSED,
    "security": _CLOSED,
    "service_accounts": _CLOSED,
    "settings": _CLOSED,
    "tokens": _CLOSED,
    "users": _CLOSED,
    "roles": Noun(group="rbac"),
    "role_bindings": Noun(group="rbac"),
}

OWN_ACCOUNT = frozenset({"account:*"})
"""What everybody who can log in may do without holding any role."""


def _rights(role: Role) -> frozenset[str]:
    if role is Role.ADMIN:
        return frozenset({EVERYTHING})
    granted = set()
    for name, noun in NOUNS.items():
        verbs = [verb for verb, roles in noun.words.items() if role in roles]
        verbs += READING if role in noun.readers else ()
        verbs += CHANGING if role in noun.writers else ()
        granted |= {f"{name}:{verb}" for verb in verbs}
    return frozenset(granted)


RIGHTS: Mapping[Role, frozenset[str]] = {role: _rights(role) for role in Role}
"""What each built-in role grants when it is held everywhere."""


def within_space(rights: frozenset[str]) -> frozenset[str]:
    """What is left of rights when the role is held in one space alone: the nouns that belong to spaces."""
    kept: set[str] = set()
    for right in rights:
        noun, _, verb = right.partition(":")
        for name in NOUNS if noun == EVERYTHING else (noun,):
            if name in NOUNS and NOUNS[name].in_space:
                kept |= _inside(name, verb or EVERYTHING)
    return frozenset(kept)


def _inside(noun: str, verb: str) -> set[str]:
    known = NOUNS[noun]
    if verb == EVERYTHING and known.everywhere:
        return {f"{noun}:{each}" for each in {*READING, *CHANGING, *known.words} - known.everywhere}
    return set() if verb in known.everywhere else {f"{noun}:{verb}"}


def covers(rights: frozenset[str], right: str) -> bool:
    """Whether rights hold `noun:verb`; `noun:*`, `*:verb` and `*` are wildcards."""
    if right in rights or EVERYTHING in rights:
        return True
    noun, _, verb = right.partition(":")
    return f"{noun}:*" in rights or f"*:{verb}" in rights

"""From bound roles to what somebody may do in one space: pure, and remembered, since roles never change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from coordinator.domains.identity.rights import (
    BUILT_IN_IDS,
    EVERYTHING,
    NOUNS,
    OWN_ACCOUNT,
    RIGHTS,
    Role,
    within_space,
)

_BUILT_IN = {id_: role for role, id_ in BUILT_IN_IDS.items()}
REMEMBERED = 4096
API_GROUPS = frozenset({"", "api", EVERYTHING})

RESOURCES: Mapping[str, str] = {
    "agent": "agents",
    "message": "messages",
    "secrets": "space_secrets",
    "session": "sessions",
    "session_messages": "messages",
    "session_tasks": "tasks",
    "space": "spaces",
    "space.agent": "agents",
    "space.build": "space_builds",
    "space.secret": "space_secrets",
    "task": "tasks",
}
"""Further spellings of nouns in rules; `-` and `_` are the same."""

VERBS: Mapping[str, str] = {"read": "get", "read_values": "read-values"}
"""Further spellings of verbs in rules."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a role: any of these verbs on any of these resources."""

    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    api_groups: tuple[str, ...] = (EVERYTHING,)
    resource_names: tuple[str, ...] = ()
    scope: str | None = None
    """`space`: it counts only where the role is held in a space."""

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Rule:
        return cls(
            resources=tuple(stored["resources"]),
            verbs=tuple(stored["verbs"]),
            api_groups=tuple(stored.get("api_groups") or (EVERYTHING,)),
            resource_names=tuple(stored.get("resource_names") or ()),
            scope=stored.get("scope"),
        )


@dataclass(frozen=True, slots=True)
class Bound:
    """A role that somebody holds, everywhere (`space` is None) or in one space."""

    role_id: str
    role: str
    space: str | None
    rules: tuple[Rule, ...] | None = None
    """None for a built-in role."""

    @property
    def built_in(self) -> Role | None:
        return _BUILT_IN.get(self.role_id)


@dataclass(frozen=True, slots=True)
class Grants:
    """What somebody may do. `named` holds rights that count only for one name."""

    rights: frozenset[str] = frozenset()
    named: Mapping[str, frozenset[str]] = field(default_factory=dict)


def granted(bound: Iterable[Bound], space: str) -> Grants:
    """The sum of all roles that count in this space, and everybody's own account."""
    return _sum(tuple(one for one in bound if one.space in (None, space)))


def reaches(bound: Sequence[Bound], space: str) -> bool:
    """Whether somebody with these roles may know of the space at all."""
    return any(one.space in (None, space) for one in bound)


def main_role(bound: Iterable[Bound]) -> Role | None:
    """The most powerful built-in role that is held everywhere: the one word of profiles and lists."""
    held = {one.built_in for one in bound if one.space is None}
    return next((role for role in Role if role in held), None)


@lru_cache(maxsize=REMEMBERED)
def _sum(bound: tuple[Bound, ...]) -> Grants:
    rights = set(OWN_ACCOUNT)
    named: dict[str, frozenset[str]] = {}
    for one in bound:
        plain, by_name = _of_role(one)
        rights |= plain
        for name, granted_by_name in by_name.items():
            named[name] = named.get(name, frozenset()) | granted_by_name
    return Grants(frozenset(rights), named)


def _of_role(bound: Bound) -> tuple[frozenset[str], dict[str, frozenset[str]]]:
    role = bound.built_in
    if role is not None:
        return (RIGHTS[role] if bound.space is None else within_space(RIGHTS[role])), {}
    plain: set[str] = set()
    named: dict[str, frozenset[str]] = {}
    for rule in bound.rules or ():
        if rule.scope == "space" and bound.space is None:
            continue
        found = _rights_of(rule)
        if bound.space is not None:
            found = within_space(found)
        if not rule.resource_names or EVERYTHING in rule.resource_names:
            plain |= found
        else:
            named |= {name: named.get(name, frozenset()) | found for name in rule.resource_names}
    return frozenset(plain), named


def _rights_of(rule: Rule) -> frozenset[str]:
    nouns = _nouns_of(rule)
    verbs = {VERBS.get(verb, verb) for verb in rule.verbs}
    if EVERYTHING in verbs:
        return frozenset(EVERYTHING if noun == EVERYTHING else f"{noun}:*" for noun in nouns)
    return frozenset(f"{noun}:{verb}" for noun in nouns for verb in verbs)


def _nouns_of(rule: Rule) -> set[str]:
    named = {canonical_resource(each) for each in rule.resources}
    if API_GROUPS & set(rule.api_groups):
        return {EVERYTHING} if EVERYTHING in named else named
    in_groups = {name for name, noun in NOUNS.items() if noun.group in rule.api_groups}
    return in_groups if EVERYTHING in named else named & in_groups


def canonical_resource(word: str) -> str:
    """The noun that a rule's resource means; a word that we do not know stays as it is and matches nothing yet."""
    plain = word.replace("-", "_")
    return RESOURCES.get(plain, plain)

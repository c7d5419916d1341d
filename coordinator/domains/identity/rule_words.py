"""Rules of roles in words: the many spellings that are taken, and the one that is kept and shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from coordinator.domains.identity.grants import VERBS, canonical_resource
from coordinator.domains.identity.rights import CHANGING, EVERYTHING, NOUNS, READING, RIGHTS, Role

ALIASES = {
    "apiGroups": "api_groups",
    "apigroups": "api_groups",
    "resourceNames": "resource_names",
    "resourcenames": "resource_names",
}
_USUAL = (*READING, *CHANGING)

StoredRule = dict[str, Any]


def canonical(rule: Mapping[str, Any]) -> StoredRule:
    """A rule as it is kept: each word in one spelling and once, in the order given."""
    found: StoredRule = {
        "api_groups": _once(rule.get("api_groups") or [EVERYTHING]),
        "resources": _once(shown_resource(canonical_resource(word)) for word in rule["resources"]),
        "verbs": _once(VERBS.get(word, word) for word in rule["verbs"]),
    }
    if rule.get("resource_names"):
        found["resource_names"] = _once(rule["resource_names"])
    if rule.get("scope"):
        found["scope"] = rule["scope"]
    return found


def shown_resource(noun: str) -> str:
    """A noun as rules spell it."""
    return noun.replace("_", "-")


def of_built_in(role: Role) -> list[StoredRule]:
    """What a built-in role grants, in the words of rules: one for each group of nouns that it may do the same to."""
    if role is Role.ADMIN:
        return [{"api_groups": [EVERYTHING], "resources": [EVERYTHING], "verbs": [EVERYTHING]}]
    verbs_of: dict[str, set[str]] = {}
    for right in RIGHTS[role]:
        noun, _, verb = right.partition(":")
        verbs_of.setdefault(noun, set()).add(verb)
    alike: dict[tuple[str, Sequence[str]], list[str]] = {}
    for noun in sorted(verbs_of):
        alike.setdefault((NOUNS[noun].group, _ordered(verbs_of[noun])), []).append(noun)
    return [
        {"api_groups": [group], "resources": [shown_resource(noun) for noun in nouns], "verbs": list(verbs)}
        for (group, verbs), nouns in alike.items()
    ]


def _ordered(verbs: set[str]) -> tuple[str, ...]:
    usual = [verb for verb in _USUAL if verb in verbs]
    return (*usual, *sorted(verbs - set(usual)))


def _once(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))

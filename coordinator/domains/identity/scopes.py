"""What an API key may at most: the words of its scopes, and the rights that they stand for."""

from __future__ import annotations

import re
from collections.abc import Iterable

from coordinator.domains.identity.rights import CHANGING, EVERYTHING, NOUNS, READING

DEFAULT = ("read",)
_EVERY = {
    "read": frozenset(f"{EVERYTHING}:{verb}" for verb in READING),
    "write": frozenset(f"{EVERYTHING}:{verb}" for verb in (*READING, *CHANGING)),
    "admin": frozenset({EVERYTHING}),
}
_WORDS = {"read": READING, "write": CHANGING}
_VERB = re.compile(r"[a-z][a-z_-]*\Z|\*\Z")


def rights_of(scopes: Iterable[str]) -> frozenset[str]:
    """The most that a key with these scopes may, whatever its owner may."""
    return frozenset(right for scope in scopes for right in _rights_of(scope))


def _rights_of(scope: str) -> frozenset[str]:
    if scope in _EVERY:
        return _EVERY[scope]
    noun, _, verb = scope.partition(":")
    return frozenset(f"{noun}:{each}" for each in _WORDS.get(verb, (verb,)))


def spelt_out(scope: str) -> frozenset[str]:
    """The rights of a scope with all verbs of its noun in the place of `noun:*`: who has them all has that."""
    noun, _, verb = scope.partition(":")
    if verb != EVERYTHING or noun not in NOUNS:
        return _rights_of(scope)
    return frozenset(f"{noun}:{each}" for each in (*READING, *CHANGING, *NOUNS[noun].words))


def is_known(scope: str) -> bool:
    """Whether this is a scope: `read`, `write`, `admin`, or `noun:verb` of a noun that there is."""
    noun, colon, verb = scope.partition(":")
    return scope in _EVERY or bool(colon and (noun in NOUNS) and _VERB.match(verb))


def is_general(scope: str) -> bool:
    """Whether it asks for no more than whatever its owner may read or change."""
    return scope in ("read", "write")

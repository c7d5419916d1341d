"""The spellings of "space" that clients of different ages use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SPELLINGS = ("space", "namespace", "workspace", "workspace_id", "workspace_name", "organization")
EVERYWHERE = "*"


class TwoSpaces(ValueError):
    """One thing says two spaces."""


def take_space(given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` with whatever spelling it uses read into `space`; null says nothing. TwoSpaces when it says two."""
    named = {word: given[word] for word in SPELLINGS if given.get(word) is not None}
    if len(set(map(str, named.values()))) > 1:
        raise TwoSpaces(", ".join(named))
    rest = {word: value for word, value in given.items() if word not in SPELLINGS}
    return rest | {"space": next(iter(named.values()))} if named else rest

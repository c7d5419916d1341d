"""Who may call what: every declared endpoint against every built-in role, as the code that decides sees it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from coordinator.app import domain_slices
from coordinator.domains.identity.grants import Bound, granted
from coordinator.domains.identity.rights import BUILT_IN_IDS, DESCRIPTIONS, Role
from coordinator.http.actor import Actor
from coordinator.http.rights import ENROL, NODE, OPEN, describe, require
from coordinator.http.slice import PREFIXES, Endpoint, mounted
from shared.errors import Forbidden

SPACE = "somewhere"
"""A space of an example."""


class Cell(Enum):
    """Where a role has to be held for a call."""

    ANYWHERE = "yes"
    """Everywhere, or in the space that the call is about."""
    EVERYWHERE = "all"
    """Everywhere: the call is about more than one space."""
    NOWHERE = "–"


@dataclass(frozen=True, slots=True)
class Line:
    """One endpoint in one version."""

    endpoint: Endpoint
    version: str

    @property
    def name(self) -> str:
        return f"{self.endpoint.method} {PREFIXES[self.version]}{self.endpoint.path}"

    @property
    def published(self) -> str:
        """The call as people write it."""
        return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", self.name)

    def cell(self, role: Role) -> Cell:
        """Where the role lets its holder in."""
        if self.endpoint.is_open or self._lets_in(role, SPACE):
            return Cell.ANYWHERE
        return Cell.EVERYWHERE if self._lets_in(role, None) else Cell.NOWHERE

    def _lets_in(self, role: Role, held_in: str | None) -> bool:
        bound = Bound(BUILT_IN_IDS[role], role.value, held_in)
        actor = Actor(id="x", kind="user", name="x", rights=granted((bound,), SPACE).rights, space=SPACE)
        try:
            require(self.endpoint.may, actor, {})
        except Forbidden:
            return False
        return True


def lines() -> Iterator[Line]:
    """Every endpoint that is served, by path."""
    found = [Line(endpoint, version) for endpoint, version in mounted(domain_slices())]
    yield from sorted(found, key=lambda line: (PREFIXES[line.version], line.endpoint.path, line.endpoint.method))


def header() -> tuple[str, ...]:
    return ("call", "right", "anybody", *(role.value for role in Role), "node")


def rows(version: str) -> Iterator[tuple[str, ...]]:
    """The lines of one version as texts."""
    for line in lines():
        if line.version == version:
            may = line.endpoint.may
            yield (
                f"`{line.published}`",
                "–" if OPEN in may else f"`{describe(may)}`",
                Cell.ANYWHERE.value if OPEN in may else Cell.NOWHERE.value,
                *(line.cell(role).value for role in Role),
                Cell.ANYWHERE.value if {OPEN, NODE} & set(may) else "token" if ENROL in may else Cell.NOWHERE.value,
            )


def role_rows() -> Iterator[tuple[str, str]]:
    yield from ((f"`{role.value}`", DESCRIPTIONS[role]) for role in Role)

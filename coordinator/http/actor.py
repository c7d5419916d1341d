"""Who is calling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from coordinator.domains.identity.rights import covers

DEFAULT_SPACE = "default"


class ActorKind(StrEnum):
    """What kind of principal acts."""

    USER = "user"
    OPERATOR = "operator"
    SERVICE_ACCOUNT = "service_account"
    NODE = "node"
    API_KEY = "api_key"
    ENROLMENT = "enrolment"
    ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Actor:
    """An authenticated principal with the rights of this request. `credential_id` names what it showed."""

    id: str
    kind: ActorKind | str
    name: str
    email: str | None = None
    roles: tuple[str, ...] = ()
    rights: frozenset[str] = field(default_factory=frozenset)
    """What it may do in `space`."""
    named: Mapping[str, frozenset[str]] = field(default_factory=dict, compare=False)
    """What it may do to single things, by their names."""
    limits: frozenset[str] | None = None
    """What its credential allows at most; None for whatever the principal may."""
    space: str = DEFAULT_SPACE
    knows_space: bool = True
    """Whether the space exists and this actor may know of it."""
    plan: str = "enterprise"
    credential_id: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """What authentication learned on its way and the handler would have to ask for again."""

    def may(self, right: str, name: str | None = None) -> bool:
        """Whether it may do `noun:verb` in its space; `name` is what it would be done to, where that is known."""
        if self.limits is not None and not covers(self.limits, right):
            return False
        if covers(self.rights, right):
            return True
        return name is not None and name in self.named and covers(self.named[name], right)


ANONYMOUS = Actor(id="", kind=ActorKind.ANONYMOUS, name="anonymous")

"""Who is calling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

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
    space: str = DEFAULT_SPACE
    credential_id: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """What authentication learned on its way and the handler would have to ask for again."""

    def may(self, right: str) -> bool:
        """Whether the rights cover `noun:verb`; `noun:*`, `*:verb` and `*` are wildcards."""
        rights = self.rights
        if right in rights or "*" in rights:
            return True
        noun, _, verb = right.partition(":")
        return f"{noun}:*" in rights or f"*:{verb}" in rights


ANONYMOUS = Actor(id="", kind=ActorKind.ANONYMOUS, name="anonymous")

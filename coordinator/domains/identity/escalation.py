"""Nobody gives or takes what they do not have: pure comparisons of what two sets of roles grant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coordinator.domains.identity import grants
from coordinator.domains.identity.grants import Bound, Grants
from coordinator.domains.identity.rights import OWN_ACCOUNT, covers
from shared.errors import Forbidden

NOWHERE = ""
"""A name that no space has: what counts there is exactly what counts everywhere."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who gives or takes: the roles they hold themselves, and what their credential allows at most."""

    id: str
    bound: Sequence[Bound]
    limits: frozenset[str] | None = None

    def require(self, wanted: Sequence[Bound]) -> None:
        """Raise Forbidden when these roles grant more than the holder has."""
        beyond = excess(self.bound, wanted, limits=self.limits)
        if beyond:
            raise Forbidden("you cannot give or take what you may not do yourself", beyond=sorted(beyond))


def excess(own: Sequence[Bound], wanted: Sequence[Bound], *, limits: frozenset[str] | None = None) -> frozenset[str]:
    """The rights that `wanted` grants somewhere and `own` does not grant there; empty when nothing is too much.

    `limits` are the scopes of a key: what it could not do itself it cannot hand on either.
    """
    places = {one.space for one in wanted}
    return frozenset(
        right
        for place in places
        for right in _beyond(
            grants.granted(own, place or NOWHERE),
            grants.granted((one for one in wanted if one.space in (None, place)), place or NOWHERE),
            limits,
        )
    )


def _beyond(own: Grants, wanted: Grants, limits: frozenset[str] | None) -> Iterable[str]:
    for right in wanted.rights - OWN_ACCOUNT:
        if not _has(own, right, None, limits):
            yield right
    for name, rights in wanted.named.items():
        for right in rights:
            if not _has(own, right, name, limits):
                yield f"{right} ({name})"


def _has(own: Grants, right: str, name: str | None, limits: frozenset[str] | None) -> bool:
    if limits is not None and not covers(limits, right):
        return False
    if covers(own.rights, right):
        return True
    return name is not None and covers(own.named.get(name, frozenset()), right)

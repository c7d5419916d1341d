"""From a principal to the Actor of a request."""

from __future__ import annotations

from coordinator.domains.identity import grants
from coordinator.domains.identity.store import Principal
from coordinator.http.actor import DEFAULT_SPACE, Actor, ActorKind


def actor_of(
    principal: Principal,
    credential_id: str,
    space: str = DEFAULT_SPACE,
    *,
    space_exists: bool = True,
    kind: str | None = None,
    limits: frozenset[str] | None = None,
    plan: str | None = None,
) -> Actor:
    """The principal in a space, with what its roles grant there; `limits` are the scopes of a key."""
    granted = grants.granted(principal.bound, space)
    return Actor(
        id=principal.id,
        kind=kind or ActorKind(principal.kind),
        name=principal.name,
        email=principal.email,
        roles=tuple(sorted({one.role for one in principal.bound})),
        rights=granted.rights,
        named=granted.named,
        limits=limits,
        plan=plan or principal.plan,
        space=space,
        knows_space=space == DEFAULT_SPACE or (space_exists and grants.reaches(principal.bound, space)),
        credential_id=credential_id,
    )

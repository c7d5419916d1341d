"""What an identity provider says about somebody, once it was verified; and how a proof is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.errors import Unauthenticated, Unavailable

GREATEST_SUBJECT = 255


class ProofRefused(Unauthenticated):
    """The same to every caller; `why` is for the audit trail alone."""

    def __init__(self, why: str) -> None:
        super().__init__("the proof of identity is not accepted")
        self.why = why


class ProviderUnreachable(Unavailable):
    """The identity provider does not answer, or not what it should; the caller may come again."""

    def __init__(self, why: str, **details: Any) -> None:
        super().__init__(f"the identity provider cannot be asked: {why}", reason="identity_provider", **details)


@dataclass(frozen=True, slots=True)
class Proof:
    """A verified statement of a provider."""

    subject: str
    claims: Mapping[str, Any]
    once: str
    """What makes this proof this one and no other: it is accepted a single time."""
    until: datetime
    """From then on it would be refused anyhow."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What somebody shows who wants to come in."""

    token: str
    nonce: str | None = None


def subject_in(claims: Mapping[str, Any], name: str) -> str:
    """The subject by the claim of that name; ProofRefused when it is none that we can keep."""
    value = claims.get(name)
    if not isinstance(value, str) or not value.strip() or len(value) > GREATEST_SUBJECT or "\0" in value:
        raise ProofRefused(f"the claim {name!r} names nobody")
    return value


def claim(claims: Mapping[str, Any], path: str) -> Any:
    """The claim of this name; else, as `realm_access.roles`, the one that is found by walking down."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for step in path.split("."):
        if not isinstance(found, Mapping) or step not in found:
            return None
        found = found[step]
    return found


def texts(value: Any) -> tuple[str, ...]:
    """A claim as texts: one, several, or none."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list | tuple):
        return tuple(each for each in value if isinstance(each, str))
    return ()


def first_text(value: Any) -> str | None:
    """The first text of a claim that is not blank."""
    return next((each.strip() for each in texts(value) if each.strip()), None)

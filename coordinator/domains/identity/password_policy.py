"""Whether a password may be chosen: by what it is like, and by what it was before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coordinator.domains.identity import history_store, security, sessions, store
from coordinator.domains.identity.passwords import GREATEST_LENGTH, Passwords, passwords
from coordinator.domains.identity.security import PasswordPolicy
from coordinator.domains.identity.store import Principal
from coordinator.resources import Resources
from coordinator.store.database import Transaction
from shared.errors import Invalid


def faults_of(policy: PasswordPolicy, password: str, names: Iterable[str | None] = ()) -> list[str]:
    """What the policy has against a password; `names` are what everybody would try first."""
    rules = (
        (len(password) < policy.min_length, f"must have at least {policy.min_length} characters"),
        (len(password) > GREATEST_LENGTH, f"must have at most {GREATEST_LENGTH} characters"),
        (policy.require_uppercase and not any(map(str.isupper, password)), "must have an upper-case letter"),
        (policy.require_lowercase and not any(map(str.islower, password)), "must have a lower-case letter"),
        (policy.require_digit and not any(map(str.isdigit, password)), "must have a digit"),
        (
            policy.require_special and all(each.isalnum() for each in password),
            "must have a character that is neither letter nor digit",
        ),
        (_is_a_name(password, names), "must not be the name or e-mail address"),
    )
    return [told for broken, told in rules if broken]


def _is_a_name(password: str, names: Iterable[str | None]) -> bool:
    return password.casefold() in {name.casefold() for name in names if name}


class WeakPassword(Invalid):
    """A password that the policy does not let anybody choose."""

    def __init__(self, field: str, reasons: Sequence[str]) -> None:
        errors = [{"field": field, "reason": reason} for reason in reasons]
        super().__init__(f"{field}: {reasons[0]}", field=field, reason=reasons[0], errors=errors)
        self.reasons = tuple(reasons)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A password that may be chosen, as it is stored."""

    digest: str
    keep: int
    """How many of those before are remembered."""


def choose(
    resources: Resources,
    password: str,
    *,
    names: Iterable[str | None] = (),
    principal: Principal | None = None,
    field: str = "password",
) -> Chosen:
    """The password as it will be stored, or WeakPassword. Takes as long as hashing does: hold no transaction open.

    With a principal it must not be one of theirs of late either, the present one included.
    """
    with resources.database.read() as tx:
        policy = security.current(tx).password_policy
        former = _former(tx, principal, policy.history_count)
    reasons = faults_of(policy, password, names)
    if reasons:
        raise WeakPassword(field, reasons)
    hasher = passwords(resources.settings.password_cost)
    if _was_used(hasher, former, password):
        raise WeakPassword(field, [f"must not be one of the last {policy.history_count} passwords"])
    return Chosen(hasher.hash(password), max(policy.history_count - 1, 0))


def _former(tx: Transaction, principal: Principal | None, count: int) -> list[str]:
    if principal is None or not count:
        return []
    present = [principal.password_hash] if principal.password_hash else []
    return (present + history_store.last(tx, principal.id, count))[:count]


def _was_used(hasher: Passwords, former: Iterable[str], password: str) -> bool:
    return any(hasher.matches(digest, password) for digest in former)


def set_password(
    tx: Transaction, principal: Principal, chosen: Chosen, *, keep_session: str | None = None
) -> list[str]:
    """Give a principal that the caller has locked another password; the ids of the sessions that ended by it."""
    if principal.password_hash is not None:
        history_store.add(tx, principal.id, principal.password_hash, keep=chosen.keep)
    store.change(tx, principal, {"password_hash": chosen.digest, "password_changed_at": tx.now})
    return sessions.end_all_but(tx, principal.id, keep_session)

"""What an admin decided about passwords, second factors, sessions, lock-outs and registration, over the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Engine

from coordinator.domains.identity import security_store
from coordinator.domains.identity.rights import Role
from coordinator.store.database import Transaction
from shared.clock import parse_rfc3339, rfc3339

REMEMBERED_FOR = timedelta(seconds=2)
"""Other processes follow a change within this time; the one that made it follows at once."""


@dataclass(frozen=True, slots=True)
class PasswordPolicy:
    """What a password must be like when it is chosen; 0 for `history_count` or `max_age_days` switches that off."""

    min_length: int = 12
    require_uppercase: bool = True
    require_lowercase: bool = True
    require_digit: bool = True
    require_special: bool = True
    history_count: int = 5
    max_age_days: int = 90


@dataclass(frozen=True, slots=True)
class MfaPolicy:
    """Whether a second factor may, or must, be set up."""

    enabled: bool = True
    required: bool = False
    methods: tuple[str, ...] = ("totp",)
    grace_period_hours: int = 24
    required_since: str | None = None
    """When `required` was switched on: nobody's grace begins before."""


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """How long a login lasts; 0 for `max_concurrent_sessions` is as many as one likes."""

    max_duration_hours: int = 720
    idle_timeout_minutes: int = 7 * 24 * 60
    max_concurrent_sessions: int = 0


@dataclass(frozen=True, slots=True)
class LockoutPolicy:
    """After how many failures a name is closed to an address, and to all addresses that it never came from."""

    max_failures: int = 5
    max_failures_elsewhere: int = 20
    lockout_minutes: int = 30


@dataclass(frozen=True, slots=True)
class RegistrationPolicy:
    """Whether people may make accounts for themselves, and what role they get; None leaves it to `opened`."""

    allow_registration: bool | None = None
    default_role: str | None = None

    def opened(self, *, on_loopback: bool) -> bool:
        """Only this machine's own users may, unless an admin said otherwise."""
        return on_loopback if self.allow_registration is None else self.allow_registration

    def role(self, *, on_loopback: bool) -> Role:
        if self.default_role is not None:
            return Role(self.default_role)
        return Role.OPERATOR if on_loopback else Role.VIEWER


@dataclass(frozen=True, slots=True)
class Security:
    """All sections as they are in force."""

    password_policy: PasswordPolicy = PasswordPolicy()
    mfa: MfaPolicy = MfaPolicy()
    session: SessionPolicy = SessionPolicy()
    lockout: LockoutPolicy = LockoutPolicy()
    registration: RegistrationPolicy = RegistrationPolicy()
    others: Mapping[str, Any] = field(default_factory=dict)
    """Stored sections that other modules give their meaning, as they were stored."""


SECTIONS = tuple(each.name for each in fields(Security) if each.name != "others")

Policy = TypeVar("Policy", PasswordPolicy, MfaPolicy, SessionPolicy, LockoutPolicy, RegistrationPolicy)

_remembered: WeakKeyDictionary[Engine, tuple[datetime, Security]] = WeakKeyDictionary()


def current(tx: Transaction) -> Security:
    """What is in force; a query every two seconds at most."""
    known = _remembered.get(tx.conn.engine)
    # A clock that was set back must not keep it for as long as it was set back.
    if known is not None and timedelta() <= tx.now - known[0] < REMEMBERED_FOR:
        return known[1]
    found = stored(tx)
    _remembered[tx.conn.engine] = (tx.now, found)
    return found


def stored(tx: Transaction) -> Security:
    """What is in force by the database itself: for whoever is about to change it."""
    return read_from(security_store.sections(tx))


def read_from(sections: Mapping[str, Any]) -> Security:
    """The stored sections over the defaults. A field that this version does not know is left alone."""
    usual = Security()
    changed: dict[str, Any] = {name: _over(getattr(usual, name), sections.get(name) or {}) for name in SECTIONS}
    return Security(**changed, others={name: value for name, value in sections.items() if name not in SECTIONS})


def _over(usual: Policy, given: Mapping[str, Any]) -> Policy:
    known = {each.name for each in fields(usual)}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    changes: dict[str, Any] = {name: value for name, value in values.items() if name in known}
    return replace(usual, **changes)


def change(tx: Transaction, section: str, changes: Mapping[str, Any], *, by: str | None) -> tuple[Any, Any]:
    """Write `changes` over a section of policies; what it was and what it is now."""
    security_store.lock(tx, section, by=by)
    before = getattr(stored(tx), section)
    after = _over(before, changes)
    if isinstance(before, MfaPolicy) and isinstance(after, MfaPolicy) and after.required != before.required:
        after = replace(after, required_since=rfc3339(tx.now) if after.required else None)
    put(tx, section, asdict(after), by=by)
    return before, after


def put(tx: Transaction, section: str, value: Any, *, by: str | None) -> None:
    """Store a section as a whole."""
    security_store.put(tx, section, value, by=by)
    engine = tx.conn.engine
    tx.after_commit(lambda: _forget(engine))


def _forget(engine: Engine) -> None:
    _remembered.pop(engine, None)


def grace_ends_at(policy: MfaPolicy, made_at: datetime) -> datetime:
    """Until when somebody who was made at that time may do without the second factor that is required."""
    since = parse_rfc3339(policy.required_since) if policy.required_since else made_at
    return max(made_at, since) + timedelta(hours=policy.grace_period_hours)

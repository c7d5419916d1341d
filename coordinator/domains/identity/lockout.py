"""Guessing: counted by submitted name and place, and for each name over all the places that it never came from."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import timedelta

from coordinator.config import Settings
from coordinator.domains.identity import failure_store
from coordinator.domains.identity.failure_store import Counter
from coordinator.domains.identity.security import LockoutPolicy
from coordinator.resources import Resources, derive_key
from coordinator.store.database import Transaction

ELSEWHERE = "*"
"""Stands for all places that the principal never logged in from."""

KNOWN_FOR = timedelta(days=90)
FORGOTTEN_AFTER = timedelta(days=1)
PURGE_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Guess:
    """What is counted: something that is guessed at, and from where."""

    what: str
    place: str


def guess_at_name(resources: Resources, login: str, place: str) -> Guess:
    """A guess at the password of a submitted name. People type passwords into the wrong field: the name is not kept."""
    return Guess(_digest(resources.settings, f"name {login.strip().casefold()}"), place)


def guess_at_code(resources: Resources, principal_id: str, place: str) -> Guess:
    """A guess at the second factor of somebody whose password is known."""
    return Guess(_digest(resources.settings, f"code {principal_id}"), place)


def guess_at_step(resources: Resources, token_id: str) -> Guess:
    """A guess at the code for one begun login, wherever it comes from."""
    return Guess(_digest(resources.settings, f"step {token_id}"), "step")


def is_locked(tx: Transaction, guess: Guess, *, known: bool, hold: bool = False) -> bool:
    """Whether no guess counts now, not even a right one; with `hold` that stays true until the transaction ends."""
    places = (guess.place,) if known else (guess.place, ELSEWHERE)
    found = failure_store.find(tx, guess.what, places, hold=hold)
    return any(_holds(tx, one) for one in found.values())


def _holds(tx: Transaction, counter: Counter) -> bool:
    return counter.locked_until is not None and counter.locked_until > tx.now


def count(tx: Transaction, guess: Guess, policy: LockoutPolicy, *, known: bool) -> bool:
    """One more wrong guess; whether this place is locked out by now."""
    window = timedelta(minutes=policy.lockout_minutes)
    locked = failure_store.count(tx, guess.what, guess.place, greatest=policy.max_failures, window=window)
    if not known and guess.place != "step":
        failure_store.count(tx, guess.what, ELSEWHERE, greatest=policy.max_failures_elsewhere, window=window)
    return locked is not None


def forgive(tx: Transaction, guess: Guess) -> None:
    """The right one came: this place begins anew."""
    failure_store.forget(tx, guess.what, guess.place)


def unlock(tx: Transaction, settings: Settings, *, names: list[str], principal_id: str) -> int:
    """Forget all failures of a principal, from wherever; how many places had any."""
    subjects = {_digest(settings, f"name {name.strip().casefold()}") for name in names}
    subjects.add(_digest(settings, f"code {principal_id}"))
    return sum(failure_store.forget(tx, each) for each in sorted(subjects))


def is_known(tx: Transaction, principal_id: str, place: str) -> bool:
    """Whether the principal logged in from there within the last months."""
    return failure_store.is_known(tx, principal_id, place, since=tx.now - KNOWN_FOR)


def remember(tx: Transaction, principal_id: str, place: str) -> None:
    """The principal has come from there."""
    failure_store.remember(tx, principal_id, place, forget_before=tx.now - KNOWN_FOR)


def purge(tx: Transaction) -> int:
    """Drop a batch of counters that mean nothing any more."""
    return failure_store.delete_older(tx, tx.now - FORGOTTEN_AFTER, PURGE_BATCH)


def _digest(settings: Settings, text: str) -> str:
    key = derive_key(settings.secret_key.get_secret_value(), "login failures")
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()

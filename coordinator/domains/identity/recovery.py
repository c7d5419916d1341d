"""Letting somebody back in who cannot prove any more who they are: for whoever has the coordinator's machine."""

from __future__ import annotations

from coordinator.config import Settings
from coordinator.domains.identity import security, store, users
from coordinator.domains.identity.password_policy import Chosen
from coordinator.domains.identity.store import Principal
from coordinator.store.database import Transaction
from shared.errors import NotFound


def let_back_in(tx: Transaction, settings: Settings, name: str, digest: str, *, keep_mfa: bool) -> Principal:
    """Give somebody the password of this digest, end their sessions and lock-outs, and take the second factor away."""
    named = store.find_by_login(tx, name)
    if named is not None:
        # Counters before principals: in this order a login holds them.
        users.unlock(tx, settings, named)
    found = None if named is None else store.lock(tx, named.id)
    if found is None:
        raise NotFound("there is nobody of this name or e-mail address", name=name)
    history = security.stored(tx).password_policy.history_count
    users.reset_password(tx, found, Chosen(digest, max(history - 1, 0)))
    if not keep_mfa:
        users.reset_second_factor(tx, found.id)
    return found

"""What the system knows about itself: whether its parts answer, and what it answered before."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from coordinator.domains.system import store
from coordinator.domains.system.store import StoredAnswer, StoredKey
from coordinator.store.database import Transaction
from shared.errors import Conflict, Invalid

PURGE_BATCH = 1000
RESERVED_SECONDS = 600
AT_WORK = StoredAnswer(body_hash="", status=0, headers={}, body=b"")
"""Stands for the answer of a request that is being worked on."""

__all__ = [
    "StoredAnswer",
    "StoredKey",
    "purge_answers",
    "recall_answer",
    "release_answer",
    "reserve_answer",
    "store_answer",
]


def recall_answer(tx: Transaction, which: StoredKey, *, body_hash: str, lock: int) -> StoredAnswer | None:
    """The stored answer to this very request, None when it is new.

    Conflict while another request with this key is at work, Invalid when the key was used with another body.
    """
    found = store.find_answer(tx, which) if store.lock_key(tx, lock) else AT_WORK
    if found is not None and found is not AT_WORK and found.body_hash != body_hash:
        reason = "was used before with another body"
        raise Invalid(f"Idempotency-Key: {reason}", field="Idempotency-Key", reason=reason)
    if found is not None and found.status == AT_WORK.status:
        raise Conflict("a request with this Idempotency-Key is still at work", key=which.key)
    return found


def reserve_answer(tx: Transaction, which: StoredKey, *, body_hash: str) -> None:
    """Take the key before work begins that has no one transaction; time frees it when the process dies meanwhile."""
    reserved = replace(AT_WORK, body_hash=body_hash)
    store.put_answer(tx, which, reserved, tx.now + timedelta(seconds=RESERVED_SECONDS))


def release_answer(tx: Transaction, which: StoredKey) -> None:
    """Free a key that was taken, as nothing came of the work."""
    store.delete_answer(tx, which)


def store_answer(tx: Transaction, which: StoredKey, answer: StoredAnswer, *, seconds: int) -> None:
    """Keep an answer for `seconds`, together with the work it is the answer to."""
    store.put_answer(tx, which, answer, tx.now + timedelta(seconds=seconds))


def purge_answers(tx: Transaction) -> int:
    """Forget a batch of answers whose time is over; how many."""
    return store.delete_expired_answers(tx, PURGE_BATCH)

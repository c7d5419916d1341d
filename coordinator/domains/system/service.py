"""What the system knows about itself: whether its parts answer, and what it answered before."""

from __future__ import annotations

from datetime import timedelta

from coordinator.domains.system import store
from coordinator.domains.system.store import StoredAnswer, StoredKey
from coordinator.store.database import Transaction
from shared.errors import Conflict, Invalid

PURGE_BATCH = 1000

__all__ = ["StoredAnswer", "StoredKey", "purge_answers", "recall_answer", "store_answer"]


def recall_answer(tx: Transaction, which: StoredKey, *, body_hash: str, lock: int) -> StoredAnswer | None:
    """The stored answer to this very request, None when it is new.

    Conflict while another request with this key is at work, Invalid when the key was used with another body.
    """
    if not store.lock_key(tx, lock):
        raise Conflict("a request with this Idempotency-Key is still at work", key=which.key)
    found = store.find_answer(tx, which)
    if found is not None and found.body_hash != body_hash:
        reason = "was used before with another body"
        raise Invalid(f"Idempotency-Key: {reason}", field="Idempotency-Key", reason=reason)
    return found


def store_answer(tx: Transaction, which: StoredKey, answer: StoredAnswer, *, seconds: int) -> None:
    """Keep an answer for `seconds`, together with the work it is the answer to."""
    store.put_answer(tx, which, answer, tx.now + timedelta(seconds=seconds))


def purge_answers(tx: Transaction) -> int:
    """Forget a batch of answers whose time is over; how many."""
    return store.delete_expired_answers(tx, PURGE_BATCH)

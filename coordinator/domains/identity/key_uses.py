"""When API keys were used last, written down aside from the requests that use them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from coordinator.domains.identity import key_store
from coordinator.store.database import Transaction

APART = timedelta(minutes=1)
"""It is written down once in such a time for each key, by whichever process comes first."""


def note(tx: Transaction, uses: Sequence[tuple[str, datetime, str | None]]) -> None:
    """Write when keys were used last: id, time and address of each."""
    key_store.note_uses(tx, uses, apart=APART)

"""There is always somebody who may do everything."""

from __future__ import annotations

from coordinator.domains.identity import user_store
from coordinator.store.database import Transaction
from shared.errors import Conflict


def keep_one(tx: Transaction, *, without: str) -> None:
    """Raise Conflict unless an active admin stays when this principal is one no more.

    Call it before taking the role, switching off or deleting. Two that go at once wait for each other here.
    """
    user_store.hold_admins(tx)
    if user_store.is_active_admin(tx, without) and not user_store.count_other_admins(tx, without):
        raise Conflict("this is the last admin: make somebody else one first", reason="last_admin", id=without)

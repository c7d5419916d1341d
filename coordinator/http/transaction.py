"""Where the transaction of a request begins and ends; nothing else in the web tier commits it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from coordinator.http.slice import Access
from coordinator.store.database import Database, Transaction


@contextmanager
def of_request(database: Database, access: Access) -> Iterator[Transaction]:
    """The one transaction that authentication and handler share; any exception rolls it back."""
    with database.write() if access == "write" else database.read() as tx:
        yield tx

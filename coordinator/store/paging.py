"""One page of a long list: what was asked for, what came back, and how many there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Row, Select, func, literal, select

from coordinator.store.database import Transaction

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which part of a list the caller wants; `page` counts from 1 and follows from `offset`."""

    limit: int = 100
    offset: int = 0
    page: int = 1


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items of a list, and the length of the whole list."""

    items: Sequence[T]
    total: int


def fetch_page(tx: Transaction, statement: Select[Any], request: PageRequest) -> Page[Row[Any]]:
    """The rows of `statement` that `request` asks for. The statement brings its filters and a total order."""
    rows = tx.conn.execute(statement.limit(request.limit).offset(request.offset)).all()
    return Page(rows, _total(tx, statement, request, len(rows)))


def _total(tx: Transaction, statement: Select[Any], request: PageRequest, seen: int) -> int:
    # The last page tells the length by itself; only a full page, or one past the end, needs a count.
    if 0 < seen < request.limit or (seen == 0 and request.offset == 0):
        return request.offset + seen
    each = statement.order_by(None).with_only_columns(literal(1), maintain_column_froms=True).subquery()
    return tx.conn.scalar(select(func.count()).select_from(each)) or 0

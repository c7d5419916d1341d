"""One page of a long list: what was asked for, what came back, and how many there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
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


EXACT_UP_TO = 10_000
"""Lists up to this length are counted anew each time, which takes about a millisecond."""

REMEMBERED_FOR = timedelta(seconds=30)
"""For how long the length of a longer list is not counted again."""

_REMEMBERED_LISTS = 512


@dataclass(frozen=True, slots=True)
class _Counted:
    total: int
    at: datetime


_counted: dict[Any, _Counted] = {}


def _total(tx: Transaction, statement: Select[Any], request: PageRequest, seen: int) -> int:
    # The last page tells the length by itself; only a full page, or one past the end, needs a count.
    if 0 < seen < request.limit or (seen == 0 and request.offset == 0):
        return request.offset + seen
    each = statement.order_by(None).with_only_columns(literal(1), maintain_column_froms=True)
    total = _count(tx, each.limit(EXACT_UP_TO + 1))
    if total > EXACT_UP_TO:
        total = _long_total(tx, each)
    return max(total, request.offset + seen) if seen else total


def _long_total(tx: Transaction, each: Select[Any]) -> int:
    """The length of a long list, counted now or a moment ago: a count of millions at every page would be all we do."""
    compiled = each.compile(dialect=tx.conn.dialect)
    key = (str(tx.conn.engine.url), str(compiled), tuple(sorted(map(repr, compiled.params.items()))))
    known = _counted.get(key)
    if known is not None and timedelta() <= tx.now - known.at < REMEMBERED_FOR:
        return known.total
    total = _count(tx, each)
    if len(_counted) >= _REMEMBERED_LISTS:
        _counted.clear()
    _counted[key] = _Counted(total, tx.now)
    return total


def _count(tx: Transaction, each: Select[Any]) -> int:
    return tx.conn.scalar(select(func.count()).select_from(each.subquery())) or 0

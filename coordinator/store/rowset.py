"""Many rows as one parameter: a list of dictionaries that a statement can join with or insert from.

One JSON parameter instead of thousands of bind values keeps the statement text constant (so it is prepared once)
and makes a guarded update of many rows a single round trip on both databases.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import orjson
from sqlalchemy import (
    JSON,
    BindParameter,
    ColumnElement,
    Connection,
    Select,
    Subquery,
    Table,
    Text,
    Update,
    bindparam,
    cast,
    column,
    func,
    insert,
    literal_column,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.dml import Insert
from sqlalchemy.types import TypeEngine


def rowset(
    conn: Connection, name: str, columns: Mapping[str, TypeEngine[Any]], rows: Iterable[Mapping[str, Any]]
) -> Subquery:
    """`rows` as a selectable called `name` with the typed `columns`; a missing key is NULL."""
    dialect = conn.dialect.name
    return _source(
        dialect, name, tuple(columns.items()), bindparam(f"{name}_rows", _pack(dialect, columns, rows), Text)
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows to write to one table in one way; missing keys are NULL.

    With a `guard` it is an update by `id`: each row is written only while its column `guard` still is the row's "seen",
    a column called `version` is raised by one, and `touch` gives columns that all of them get the same value in.
    Without one it is an insert; columns in `adding` are added to what a row with the same primary key has already.
    """

    table: Table
    names: tuple[str, ...]
    rows: Sequence[Mapping[str, Any]]
    guard: str | None = None
    touch: tuple[tuple[str, Any], ...] = ()
    adding: tuple[str, ...] = ()

    @property
    def shape(self) -> _Shape:
        return _Shape(self.table, self.names, self.guard, tuple(name for name, _ in self.touch), self.adding)


def insert_many(conn: Connection, table: Table, names: tuple[str, ...], rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert `rows` into the columns `names` in one statement, whatever their number."""
    write_all(conn, [Batch(table, names, list(rows))])


def write_all(conn: Connection, batches: Sequence[Batch]) -> list[int]:
    """Write the batches; how many rows of each were written.

    PostgreSQL gets all of them as one statement, because there a round trip costs more than the work. No batch sees
    what another one of the same call writes.
    """
    filled = [batch for batch in batches if batch.rows]
    if not filled:
        return [0] * len(batches)
    dialect = conn.dialect.name
    if dialect == "sqlite":
        counts = [_run_one(conn, batch) for batch in filled]
    else:
        values: dict[str, Any] = {}
        for number, batch in enumerate(filled):
            values |= _values(dialect, batch, f"w{number}")
        counts = list(conn.execute(_together(dialect, tuple(batch.shape for batch in filled)), values).one())
    written = iter(counts)
    return [next(written) if batch.rows else 0 for batch in batches]


@dataclass(frozen=True)
class _Shape:
    """What of a batch makes its statement; the rest is parameters."""

    table: Table
    names: tuple[str, ...]
    guard: str | None
    touched: tuple[str, ...]
    adding: tuple[str, ...]

    @property
    def kinds(self) -> dict[str, TypeEngine[Any]]:
        columns = self.table.c
        own = {"id": columns["id"].type, "seen": columns[self.guard].type} if self.guard else {}
        return own | {name: columns[name].type for name in self.names}


def _run_one(conn: Connection, batch: Batch) -> int:
    return conn.execute(_one(conn.dialect.name, batch.shape, "w0"), _values(conn.dialect.name, batch, "w0")).rowcount


def _values(dialect: str, batch: Batch, name: str) -> dict[str, Any]:
    packed = _pack(dialect, batch.shape.kinds, batch.rows)
    return {f"{name}_rows": packed} | {f"{name}_{column}": value for column, value in batch.touch}


# Building a statement costs more Python than running it: each is built once for each database.
@cache
def _together(dialect: str, shapes: tuple[_Shape, ...]) -> Select[Any]:
    parts = [
        _one(dialect, shape, f"w{number}").returning(next(iter(shape.table.primary_key))).cte(f"w{number}_written")
        for number, shape in enumerate(shapes)
    ]
    return select(*(select(func.count()).select_from(part).scalar_subquery() for part in parts))


@cache
def _one(dialect: str, shape: _Shape, name: str) -> Insert | Update:
    parameter = bindparam(f"{name}_rows", type_=Text)
    source = _source(dialect, name, tuple(shape.kinds.items()), parameter)
    return _insert(dialect, shape, source) if shape.guard is None else _update(shape, source, name)


def _insert(dialect: str, shape: _Shape, source: Subquery) -> Insert:
    kind: Any = sqlite if dialect == "sqlite" else postgresql
    picked = select(*(source.c[name] for name in shape.names))
    if not shape.adding:
        return insert(shape.table).from_select(list(shape.names), picked, include_defaults=False)
    # SQLite takes the ON of ON CONFLICT for a join's unless a WHERE stands between them.
    filled: Any = kind.insert(shape.table).from_select(list(shape.names), picked.where(true()), include_defaults=False)
    key = [column.name for column in shape.table.primary_key]
    added = {name: shape.table.c[name] + filled.excluded[name] for name in shape.adding}
    result: Insert = filled.on_conflict_do_update(index_elements=key, set_=added)
    return result


def _update(shape: _Shape, source: Subquery, name: str) -> Update:
    table = shape.table
    values: dict[str, Any] = {column: source.c[column] for column in shape.names}
    values |= {column: bindparam(f"{name}_{column}", type_=table.c[column].type) for column in shape.touched}
    if "version" in table.c:
        values["version"] = table.c["version"] + 1
    guard = table.c[shape.guard or "id"]
    return update(table).values(values).where(table.c["id"] == source.c["id"], guard == source.c["seen"])


def _pack(dialect: str, columns: Mapping[str, TypeEngine[Any]], rows: Iterable[Mapping[str, Any]]) -> str:
    sqlite = dialect == "sqlite"
    names = [(name, isinstance(kind, JSON)) for name, kind in columns.items()]
    return orjson.dumps([[_encode(row.get(name), json, sqlite) for name, json in names] for row in rows]).decode()


def _source(
    dialect: str, name: str, columns: tuple[tuple[str, TypeEngine[Any]], ...], parameter: BindParameter[str]
) -> Subquery:
    return (_from_sqlite if dialect == "sqlite" else _from_postgresql)(name, dict(columns), parameter)


def _encode(value: Any, is_document: bool, sqlite: bool) -> Any:
    if value is None:
        return None
    if is_document:
        # As text: a bare JSON string would lose its quotes on the way out of the array.
        return orjson.dumps(value).decode()
    if isinstance(value, datetime):
        moment = value.astimezone(UTC)
        return moment.strftime("%Y-%m-%d %H:%M:%S.%f") if sqlite else moment.isoformat()
    return value


def _from_sqlite(name: str, columns: Mapping[str, TypeEngine[Any]], parameter: ColumnElement[str]) -> Subquery:
    each = func.json_each(parameter).table_valued("value", name=f"{name}_each")
    picked = [
        func.json_extract(each.c.value, literal_column(f"'$[{index}]'")).label(key) for index, key in enumerate(columns)
    ]
    return select(*picked).subquery(name)


def _from_postgresql(name: str, columns: Mapping[str, TypeEngine[Any]], parameter: ColumnElement[str]) -> Subquery:
    each = func.jsonb_array_elements(cast(parameter, JSONB)).table_valued(column("value", JSONB), name=f"{name}_each")
    picked = [
        cast(func.jsonb_array_element_text(each.c.value, literal_column(str(index))), kind).label(key)
        for index, (key, kind) in enumerate(columns.items())
    ]
    return select(*picked).subquery(name)

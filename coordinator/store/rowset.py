"""Many rows as one parameter: a list of dictionaries that a statement can join with or insert from.

One JSON parameter instead of thousands of bind values keeps the statement text constant (so it is prepared once)
and makes a guarded update of many rows a single round trip on both databases.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

import orjson
from sqlalchemy import (
    JSON,
    BindParameter,
    ColumnElement,
    Connection,
    Insert,
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
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine


def rowset(
    conn: Connection, name: str, columns: Mapping[str, TypeEngine[Any]], rows: Iterable[Mapping[str, Any]]
) -> Subquery:
    """`rows` as a selectable called `name` with the typed `columns`; a missing key is NULL."""
    dialect = conn.dialect.name
    return _source(
        dialect, name, tuple(columns.items()), bindparam(f"{name}_rows", _pack(dialect, columns, rows), Text)
    )


def insert_many(conn: Connection, table: Table, names: tuple[str, ...], rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert `rows` into the columns `names` in one statement, whatever their number; missing keys are NULL."""
    dialect = conn.dialect.name
    packed = _pack(dialect, {name: table.c[name].type for name in names}, rows)
    conn.execute(_insert(dialect, table, names), {"fresh_rows": packed})


def update_many(
    conn: Connection,
    table: Table,
    names: tuple[str, ...],
    rows: Iterable[Mapping[str, Any]],
    *,
    guard: str,
    touch: tuple[tuple[str, Any], ...] = (),
) -> int:
    """Write the columns `names` of many rows by `id`, each only while its column `guard` still is the row's "seen".

    Answers how many were written. `touch` names columns that all of them get the same value in; an integer column
    called `version` is raised by one.
    """
    dialect = conn.dialect.name
    kinds = {"id": table.c["id"].type, "seen": table.c[guard].type} | {name: table.c[name].type for name in names}
    statement = _update(dialect, table, names, guard, tuple(name for name, _ in touch))
    values = {f"touch_{name}": value for name, value in touch}
    return conn.execute(statement, {"moved_rows": _pack(dialect, kinds, rows), **values}).rowcount


# Building a statement costs more Python than running it: each is built once for each database.
@cache
def _insert(dialect: str, table: Table, names: tuple[str, ...]) -> Insert:
    kinds = tuple((name, table.c[name].type) for name in names)
    source = _source(dialect, "fresh", kinds, bindparam("fresh_rows", type_=Text))
    return insert(table).from_select(list(names), select(*(source.c[name] for name in names)), include_defaults=False)


@cache
def _update(dialect: str, table: Table, names: tuple[str, ...], guard: str, touched: tuple[str, ...]) -> Update:
    kinds = {"id": table.c["id"].type, "seen": table.c[guard].type} | {name: table.c[name].type for name in names}
    new = _source(dialect, "moved", tuple(kinds.items()), bindparam("moved_rows", type_=Text))
    values: dict[str, Any] = {name: new.c[name] for name in names}
    values |= {name: bindparam(f"touch_{name}", type_=table.c[name].type) for name in touched}
    if "version" in table.c:
        values["version"] = table.c["version"] + 1
    return update(table).values(values).where(table.c["id"] == new.c["id"], table.c[guard] == new.c["seen"])


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

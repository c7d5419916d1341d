"""Many rows as one parameter: a list of dictionaries that a statement can join with or insert from.

One JSON parameter instead of thousands of bind values keeps the statement text constant (so it is prepared once)
and makes a guarded update of many rows a single round trip on both databases.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    Insert,
    Subquery,
    Table,
    Text,
    bindparam,
    cast,
    column,
    func,
    insert,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine


def rowset(
    conn: Connection, name: str, columns: Mapping[str, TypeEngine[Any]], rows: Iterable[Mapping[str, Any]]
) -> Subquery:
    """`rows` as a selectable called `name` with the typed `columns`; a missing key is NULL."""
    sqlite = conn.dialect.name == "sqlite"
    documents = {key for key, kind in columns.items() if isinstance(kind, JSON)}
    payload = orjson.dumps([[_encode(row.get(key), key in documents, sqlite) for key in columns] for row in rows])
    parameter = bindparam(f"{name}_rows", payload.decode(), type_=Text)
    return (_from_sqlite if sqlite else _from_postgresql)(name, columns, parameter)


def insert_rows(conn: Connection, table: Table, names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Insert:
    """An INSERT of `rows` into the columns `names`, in one statement, whatever their number."""
    source = rowset(conn, "fresh", {name: table.c[name].type for name in names}, rows)
    return insert(table).from_select(list(names), select(*(source.c[name] for name in names)), include_defaults=False)


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

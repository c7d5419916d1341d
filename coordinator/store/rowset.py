"""Many rows as one parameter: a list of dictionaries that a statement can select from or join with.

One JSON parameter instead of thousands of bind values keeps the statement text constant (so it is prepared once)
and makes a guarded update of many rows a single round trip on both databases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, FromClause, Text, bindparam, cast, column, func, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine


def rowset(
    conn: Connection, name: str, columns: Mapping[str, TypeEngine[Any]], rows: Sequence[Mapping[str, Any]]
) -> FromClause:
    """`rows` as a selectable called `name` with typed `columns`. Values must be JSON scalars."""
    payload = orjson.dumps([[row.get(key) for key in columns] for row in rows]).decode()
    parameter = bindparam(f"{name}_rows", payload, type_=Text)
    if conn.dialect.name == "sqlite":
        each = func.json_each(parameter).table_valued("value", name=f"{name}_each")
        picked = [func.json_extract(each.c.value, f"$[{index}]").label(key) for index, key in enumerate(columns)]
    else:
        each = func.jsonb_array_elements(cast(parameter, JSONB)).table_valued(
            column("value", JSONB), name=f"{name}_each"
        )
        picked = [
            cast(func.jsonb_array_element_text(each.c.value, index), kind).label(key)
            for index, (key, kind) in enumerate(columns.items())
        ]
    return select(*picked).subquery(name)

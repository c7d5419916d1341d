"""What a planner cannot know of our data."""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction


class likely(GenericFunction[Any]):  # noqa: N801 - the name of the SQL function
    """A condition that holds for most rows, so that an index on its column finds nothing quickly.

    SQLite takes any such index for a good one unless it is told; PostgreSQL has statistics and sees the condition bare.
    """

    inherit_cache = True


@compiles(likely)
def _bare(element: likely, compiler: Any, **options: Any) -> str:
    return f"({compiler.process(element.clauses, **options)})"


@compiles(likely, "sqlite")
def _told(element: likely, compiler: Any, **options: Any) -> str:
    return f"likely({compiler.process(element.clauses, **options)})"

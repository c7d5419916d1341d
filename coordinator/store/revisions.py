"""Where a database's schema is and where it should be: what every start asks, without the machinery that migrates."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import inspect, text

from coordinator.store.database import Database

MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "schema_version"


def current(database: Database) -> str | None:
    """The revision that the database is at; None when it was never migrated."""
    with database.read() as tx:
        if not inspect(tx.conn).has_table(VERSION_TABLE):
            return None
        found: str | None = tx.conn.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608 - our word
        return found


def newest(migrations: Path = MIGRATIONS) -> str | None:
    """The revision that this version of the program needs; None while it has no migrations at all."""
    written = [dict(_constants(path)) for path in sorted((migrations / "versions").glob("*.py"))]
    older = {facts.get("down_revision") for facts in written}
    heads = [facts["revision"] for facts in written if facts["revision"] not in older]
    if len(heads) > 1:
        raise ValueError(f"more than one migration is the newest: {heads}")
    return heads[0] if heads else None


def _constants(path: Path) -> Iterator[tuple[str, str | None]]:
    """The two that make the chain. Read, not run: running a migration's file imports what it migrates with."""
    for statement in ast.parse(path.read_bytes(), str(path)).body:
        if not isinstance(statement, ast.Assign):
            continue
        for name, value in _pairs(statement.targets[0], statement.value):
            if isinstance(name, ast.Name) and name.id in ("revision", "down_revision"):
                yield name.id, ast.literal_eval(value)


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        yield from zip(target.elts, value.elts, strict=True)
    else:
        yield target, value

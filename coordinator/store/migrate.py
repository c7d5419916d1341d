"""Migrations: bring a database to the newest revision, and hold it against the models."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import pkgutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import JSON, CheckConstraint, Column, Connection, DateTime, Index, Table, inspect, text
from sqlalchemy.schema import CreateIndex, SchemaItem
from sqlalchemy.types import TypeEngine

import coordinator.domains
from coordinator.store import revisions
from coordinator.store.database import Database
from coordinator.store.schema import UTCDateTime, metadata
from shared.errors import LongshoreError

MIGRATIONS = revisions.MIGRATIONS

_LOCK = 0x6C6F6E6773686F72
"""PostgreSQL's advisory lock: of several coordinators that start at once, one migrates and the others wait."""


class MigrationRefused(LongshoreError):
    """This database cannot be brought where it was asked to go; the text says why."""


def upgrade(database: Database, revision: str = "head") -> None:
    """Bring the database to `revision` in one transaction: it arrives whole or stays as it was."""
    _require_known(database)
    with _migrating(database) as conn:
        command.upgrade(make_config(conn), revision)


def downgrade(database: Database, revision: str) -> None:
    """Take the database back to `revision`, `base` for nothing at all. What the newer tables held is lost."""
    _require_known(database)
    with _migrating(database) as conn:
        command.downgrade(make_config(conn), revision)


def newest() -> str | None:
    """The revision that this version of the program needs; None while it has no migrations at all."""
    return revisions.newest(MIGRATIONS)


def check(database: Database) -> list[str]:
    """What stands between this database and the models, in words; nothing when all is well."""
    at, wanted = revisions.current(database), newest()
    if at is None:
        return ["the database was never migrated: run `coordinator db upgrade`"]
    if at not in _known():
        return [_unknown(at)]
    if at != wanted:
        return [f"the database is at revision {at}, this version needs {wanted}: run `coordinator db upgrade`"]
    with database.read() as tx:
        return differences(tx.conn)


def differences(conn: Connection) -> list[str]:
    """How the tables there differ from the models, in words."""
    load_models()
    with without_known_warnings():
        found = [_in_words(difference) for difference in compare_metadata(_context(conn), metadata)]
    return found + [line for table in metadata.sorted_tables for line in _unseen_differences(conn, table)]


def load_models() -> None:
    """Import every domain's models, so that the metadata knows all tables."""
    for found in pkgutil.iter_modules(coordinator.domains.__path__, "coordinator.domains."):
        if importlib.util.find_spec(f"{found.name}.models") is not None:
            importlib.import_module(f"{found.name}.models")


def make_config(conn: Connection | None = None, **options: Any) -> Config:
    """alembic's configuration, without a file. `options` go to its context beside ours."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.attributes["connection"] = conn
    config.attributes["options"] = OPTIONS | options
    return config


def ordered_indexes() -> dict[str, Index]:
    """The indexes with a direction or another expression: alembic cannot compare those, so we do."""
    load_models()
    found = (index for table in metadata.sorted_tables for index in table.indexes)
    return {str(index.name): index for index in found if any(not isinstance(e, Column) for e in index.expressions)}


@contextmanager
def without_known_warnings() -> Iterator[None]:
    """alembic warns on SQLite about each index that it cannot compare: we know, and compare them ourselves."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="autogenerate skipping metadata-specified expression-based index")
        logging.getLogger("alembic.ddl.impl").setLevel(logging.ERROR)
        yield


# ---- the database's side


@contextmanager
def _migrating(database: Database) -> Iterator[Connection]:
    if database.is_sqlite:
        with _migrating_sqlite(database) as conn:
            yield conn
        return
    with database.write() as tx:
        tx.conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        yield tx.conn


@contextmanager
def _migrating_sqlite(database: Database) -> Iterator[Connection]:
    with database.engine.connect() as plain:
        # SQLite changes a table by making it anew, and dropping the old one would cascade to the rows that
        # refer to it. The switch has no effect once a transaction has begun.
        raw = plain.connection.cursor()
        raw.execute("PRAGMA foreign_keys=OFF")
        try:
            conn = plain.execution_options(sqlite_begin="IMMEDIATE")
            with conn.begin():
                yield conn
                _require_whole_references(conn)
        finally:
            raw.execute("PRAGMA foreign_keys=ON")
            raw.close()


def _require_whole_references(conn: Connection) -> None:
    broken = conn.exec_driver_sql("PRAGMA foreign_key_check").all()
    if broken:
        tables = sorted({row[0] for row in broken})
        raise MigrationRefused("rows would refer to rows that are gone; nothing was changed", tables=tables)


def _require_known(database: Database) -> None:
    at = revisions.current(database)
    if at is not None and at not in _known():
        raise MigrationRefused(_unknown(at))


def _known() -> set[str]:
    return {script.revision for script in ScriptDirectory.from_config(make_config()).walk_revisions()}


def _unknown(revision: str) -> str:
    return f"the database is at revision {revision}, which this version does not know: a newer one has been here"


# ---- comparing


def _context(conn: Connection) -> MigrationContext:
    return MigrationContext.configure(conn, opts={"target_metadata": metadata, **OPTIONS})


def _compare_type(
    _context: MigrationContext,
    _inspected_column: Any,
    _metadata_column: Any,
    inspected_type: TypeEngine[Any],
    metadata_type: TypeEngine[Any],
) -> bool | None:
    """Whether two types differ; None leaves it to alembic, which does not know the two that are ours."""
    if isinstance(metadata_type, UTCDateTime):
        return not isinstance(inspected_type, DateTime)
    if isinstance(metadata_type, JSON):
        return not isinstance(inspected_type, JSON)
    return None


def _is_comparable(_item: SchemaItem, name: str | None, kind: str, _reflected: bool, _other: SchemaItem | None) -> bool:
    return not (kind == "index" and name in ordered_indexes())


OPTIONS: dict[str, Any] = {
    "version_table": revisions.VERSION_TABLE,
    "render_as_batch": True,
    "compare_type": _compare_type,
    "compare_server_default": False,
    "include_object": _is_comparable,
}
"""How alembic sees our databases, the same when it migrates, compares and drafts."""


def _unseen_differences(conn: Connection, table: Table) -> Iterator[str]:
    """What alembic does not compare: check constraints, and indexes with a direction."""
    there = inspect(conn)
    if not there.has_table(table.name):
        return
    checks = {str(item.name) for item in table.constraints if isinstance(item, CheckConstraint) and item.name}
    yield from _by_name("check", table, checks, (str(item["name"]) for item in there.get_check_constraints(table.name)))
    definitions = _index_definitions(conn, table)
    ordered = {name: index for name, index in ordered_indexes().items() if index.table is table}
    yield from _by_name("index", table, set(ordered), set(ordered) & set(definitions))
    if conn.dialect.name == "sqlite":
        # SQLite keeps the very text that an index was made with; PostgreSQL rewrites it.
        for name in sorted(set(ordered) & set(definitions)):
            wanted = str(CreateIndex(ordered[name]).compile(conn))
            if wanted.split() != definitions[name].split():
                yield f"change index: {name} of {table.name}"


def _index_definitions(conn: Connection, table: Table) -> dict[str, str]:
    if conn.dialect.name == "sqlite":
        asked = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name = :table"
    else:
        asked = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema() AND tablename = :table"
    return {row[0]: row[1] for row in conn.execute(text(asked), {"table": table.name})}


def _by_name(kind: str, table: Table, wanted: set[str], present: Iterable[str]) -> Iterator[str]:
    there = set(present)
    yield from (f"add {kind}: {name} of {table.name}" for name in sorted(wanted - there))
    yield from (f"remove {kind}: {name} of {table.name}" for name in sorted(there - wanted))


def _in_words(difference: Any) -> str:
    if isinstance(difference, list):
        return "; ".join(_in_words(part) for part in difference)
    kind, *subject = difference
    names = [str(getattr(part, "name", part)) for part in subject if part is not None and not isinstance(part, dict)]
    table = next((part.table.name for part in subject if getattr(part, "table", None) is not None), None)
    where = f" of {table}" if table and table not in names else ""
    return f"{str(kind).replace('_', ' ')}: {', '.join(names)}{where}"

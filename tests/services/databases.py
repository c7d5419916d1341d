"""Migrated databases for the tests, on SQLite and on PostgreSQL, made clean again in milliseconds."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from sqlalchemy import Table, text

from coordinator.store.database import Database
from coordinator.store.migrate import upgrade
from coordinator.store.schema import metadata
from tests.services.postgres import PostgresCluster

_numbers = count(1)


class DatabaseSite(ABC):
    """Where one test process gets its databases of one kind. Migrations run once; everything else is a copy."""

    database: Database
    """The one that tests share, one after the other; `reset` takes it back to how the migrations left it."""

    @abstractmethod
    def reset(self) -> None: ...

    @abstractmethod
    def fresh_url(self) -> str:
        """A migrated database of one's own, for servers that tests start; it goes when the test process goes."""


class SqliteSite(DatabaseSite):
    """Files in one directory; a reset copies the migrated file into place."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._template = directory / "template.db"
        migrate_and_close(_sqlite_url(self._template))
        self._path = directory / "tests.db"
        self.database = Database(_sqlite_url(self._path))

    def reset(self) -> None:
        self.database.dispose()
        for suffix in ("-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        shutil.copyfile(self._template, self._path)

    def fresh_url(self) -> str:
        path = self._directory / f"fresh-{next(_numbers)}.db"
        shutil.copyfile(self._template, path)
        return _sqlite_url(path)


class PostgresSite(DatabaseSite):
    """Databases of one private cluster; a reset empties what has rows and puts the migrations' rows back."""

    TEMPLATE = "longshore_template"
    SEEDS = "as_migrated"

    def __init__(self, cluster: PostgresCluster) -> None:
        self._cluster = cluster
        migrate_and_close(cluster.create_database(self.TEMPLATE))
        self.database = Database(self.fresh_url())
        self._tables = metadata.sorted_tables
        self._seeded = self._tables_with_rows()
        self._keep_seeds()

    def reset(self) -> None:
        used = self._tables_with_rows()
        with self.database.write() as tx:
            # A test that left a transaction open would otherwise hang the next one.
            tx.conn.execute(text("SET LOCAL lock_timeout = '5s'"))
            # Triggers that keep the product from emptying its audit trail: not between tests.
            tx.conn.execute(text("SET LOCAL session_replication_role = 'replica'"))
            if used:
                tx.conn.execute(text(f"TRUNCATE {', '.join(_quoted(t) for t in used)} RESTART IDENTITY CASCADE"))
            for table in self._seeded:
                tx.conn.execute(text(f"INSERT INTO {_quoted(table)} SELECT * FROM {self.SEEDS}.{_quoted(table)}"))  # noqa: S608 - names are ours

    def fresh_url(self) -> str:
        return self._cluster.create_database(template=self.TEMPLATE)

    def _tables_with_rows(self) -> list[Table]:
        if not self._tables:
            return []
        asked = " UNION ALL ".join(
            f"SELECT {number} WHERE EXISTS (SELECT FROM {_quoted(table)})"  # noqa: S608 - names are ours
            for number, table in enumerate(self._tables)
        )
        with self.database.read() as tx:
            found: Sequence[int] = tx.conn.execute(text(asked)).scalars().all()
        return [self._tables[number] for number in sorted(found)]

    def _keep_seeds(self) -> None:
        with self.database.write() as tx:
            tx.conn.execute(text(f"CREATE SCHEMA {self.SEEDS}"))
            for table in self._seeded:
                name = _quoted(table)
                tx.conn.execute(text(f"CREATE TABLE {self.SEEDS}.{name} AS TABLE {name}"))


def migrate_and_close(url: str) -> None:
    """Bring the database at `url` to the newest revision, and leave no connection to it."""
    database = Database(url)
    try:
        upgrade(database)
    finally:
        database.dispose()


def _sqlite_url(path: Path) -> str:
    return f"sqlite:///{path}"


def _quoted(table: Table) -> str:
    return f'"{table.name}"'

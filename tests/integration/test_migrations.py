"""Migrations lead from nothing to the models and back, on SQLite and on PostgreSQL."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Index, MetaData, Table, inspect, text

from coordinator.store import draft, migrate, revisions, schema
from coordinator.store.database import Database
from tests.services.postgres import PostgresCluster


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database in which nothing was ever made."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    cluster: PostgresCluster = request.getfixturevalue("postgres")
    return cluster.create_database()


@pytest.fixture
def empty(empty_url: str) -> Iterator[Database]:
    made = Database(empty_url)
    yield made
    made.dispose()


def _tables(database: Database) -> set[str]:
    with database.read() as tx:
        return set(inspect(tx.conn).get_table_names())


def test_an_empty_database_says_that_it_was_never_migrated(empty: Database) -> None:
    assert migrate.check(empty) == ["the database was never migrated: run `coordinator db upgrade`"]


def test_the_migrations_lead_to_exactly_the_models(empty: Database) -> None:
    migrate.upgrade(empty)

    assert migrate.check(empty) == []
    assert revisions.current(empty) == migrate.newest()


def test_what_a_start_asks_is_what_the_migrations_say(empty: Database) -> None:
    assert revisions.current(empty) is None

    migrate.upgrade(empty, "0001")
    assert revisions.current(empty) == "0001"
    migrate.downgrade(empty, "base")
    assert revisions.current(empty) is None

    assert revisions.newest() == ScriptDirectory.from_config(migrate.make_config()).get_current_head()


def test_up_down_and_up_again_ends_at_the_models(empty: Database) -> None:
    migrate.upgrade(empty)
    migrate.downgrade(empty, "base")
    assert _tables(empty) == {revisions.VERSION_TABLE}

    migrate.upgrade(empty)

    assert migrate.check(empty) == []


def test_upgrading_twice_changes_nothing(empty: Database) -> None:
    migrate.upgrade(empty)
    before = _tables(empty)

    migrate.upgrade(empty)

    assert _tables(empty) == before


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("CREATE TABLE strange (id INTEGER)", "remove table: strange"),
        ("DROP INDEX ix_nodes_name", "add index: ix_nodes_name of nodes"),
        ("DROP INDEX ix_jobs_ready", "add index: ix_jobs_ready of jobs"),
        ("ALTER TABLE nodes ADD COLUMN strange INTEGER", "strange"),
    ],
    ids=["table", "index", "index with a direction", "column"],
)
def test_what_differs_from_the_models_is_told_by_name(empty: Database, damage: str, told: str) -> None:
    migrate.upgrade(empty)
    with empty.write() as tx:
        tx.conn.execute(text(damage))

    assert any(told in problem for problem in migrate.check(empty)), migrate.check(empty)


def test_an_index_with_another_direction_is_told_on_sqlite(tmp_path: Path, with_ordered_index: None) -> None:
    database = Database(f"sqlite:///{tmp_path / 'changed.db'}")
    migrate.upgrade(database)
    with database.write() as tx:
        tx.conn.execute(text("CREATE TABLE added (id VARCHAR(36) NOT NULL PRIMARY KEY, at DATETIME NOT NULL)"))
        tx.conn.execute(text("CREATE INDEX ix_added_at ON added (at)"))

    assert "change index: ix_added_at of added" in migrate.check(database)
    database.dispose()


@pytest.fixture
def with_ordered_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models with one table more, that has an index with a direction."""
    fresh = MetaData(naming_convention=schema.metadata.naming_convention)
    for table in schema.metadata.tables.values():
        table.to_metadata(fresh)
    Table("added", fresh, schema.id_column(), schema.time_column("at"), Index("ix_added_at", text("at DESC")))
    monkeypatch.setattr(migrate, "metadata", fresh)
    monkeypatch.setattr(schema, "metadata", fresh)


def test_a_database_from_a_newer_version_is_left_alone(empty: Database) -> None:
    migrate.upgrade(empty)
    with empty.write() as tx:
        tx.conn.execute(text("UPDATE schema_version SET version_num = '9999'"))

    assert "9999" in migrate.check(empty)[0]
    with pytest.raises(migrate.MigrationRefused, match="9999"):
        migrate.upgrade(empty)


def test_coordinators_that_start_at_once_migrate_once(empty_url: str) -> None:
    # alembic keeps its context in module globals, so those who race are processes.
    racers = [
        subprocess.Popen([sys.executable, "-c", _RACER, empty_url], stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    told = [racer.communicate(timeout=60)[1] for racer in racers]

    assert [racer.returncode for racer in racers] == [0, 0, 0], told


_RACER = """
import sys
from tests.services.databases import migrate_and_close
migrate_and_close(sys.argv[1])
"""


def test_a_migration_that_fails_leaves_nothing_behind(
    empty: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "migrations"
    shutil.copytree(migrate.MIGRATIONS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "versions" / "9999_broken.py").write_text(
        f'import sqlalchemy as sa\nfrom alembic import op\nrevision, down_revision = "9999", "{migrate.newest()}"\n'
        'def upgrade():\n    op.create_table("half", sa.Column("id", sa.Integer()))\n    raise RuntimeError("no")\n'
        "def downgrade():\n    pass\n"
    )
    migrate.upgrade(empty)
    before = migrate.newest()
    monkeypatch.setattr(migrate, "MIGRATIONS", copy)

    with pytest.raises(RuntimeError, match="no"):
        migrate.upgrade(empty)

    assert revisions.current(empty) == before
    assert "half" not in _tables(empty)


def test_rows_that_refer_to_a_remade_table_survive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite makes a table anew to change it; that must not cascade to the rows that belong to it."""
    copy = tmp_path / "migrations"
    shutil.copytree(migrate.MIGRATIONS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "versions" / "9999_remake.py").write_text(
        f'import sqlalchemy as sa\nfrom alembic import op\nrevision, down_revision = "9999", "{migrate.newest()}"\n'
        'def upgrade():\n    with op.batch_alter_table("nodes", recreate="always") as batch:\n'
        '        batch.add_column(sa.Column("extra", sa.Integer()))\n'
        "def downgrade():\n    pass\n"
    )
    database = Database(f"sqlite:///{tmp_path / 'kept.db'}")
    migrate.upgrade(database)
    with database.write() as tx:
        tx.conn.execute(text(_A_NODE))
        tx.conn.execute(text("INSERT INTO node_vitals (node_id, at) VALUES ('n1', '2026-01-01 00:00:00')"))
    monkeypatch.setattr(migrate, "MIGRATIONS", copy)

    migrate.upgrade(database)

    with database.read() as tx:
        assert tx.conn.scalar(text("SELECT count(*) FROM node_vitals")) == 1
        assert tx.conn.scalar(text("PRAGMA foreign_keys")) == 1
    database.dispose()


_A_NODE = """
INSERT INTO nodes (id, name, hostname, ip_address, status, is_approved, is_draining, labels, slots, light_slots,
    max_agents, os_info, software, computers, credential_hash, created_at, updated_at)
VALUES ('n1', 'n', 'h', '10.0.0.1', 'offline', 1, 0, '{}', 1, 1, 1, '{}', '{}', '{}', '',
    '2026-01-01 00:00:00', '2026-01-01 00:00:00')
"""


def test_the_next_revision_is_drafted_from_the_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_ordered_index: None
) -> None:
    copy = tmp_path / "migrations"
    shutil.copytree(migrate.MIGRATIONS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(migrate, "MIGRATIONS", copy)

    made = draft.revision("add a table")

    assert made.name == f"{int(str(migrate.newest())):04d}_add_a_table.py"
    assert 'op.create_table(\n        "added"' in made.read_text()
    assert '[sa.literal_column("at DESC")]' in made.read_text()


def test_an_older_database_keeps_its_jobs_in_line_and_gets_letters_for_its_dead(empty: Database) -> None:
    migrate.upgrade(empty, "0001")
    with empty.write() as tx:
        for name, state, priority, finished in (
            ("a", "queued", 0, None),
            ("b", "queued", 3, None),
            ("c", "dead", 1, _AT),
        ):
            tx.conn.execute(text(_A_JOB), {"id": name, "state": state, "priority": priority, "finished": finished})

    migrate.upgrade(empty)

    with empty.read() as tx:
        ranks = {row.id: row.rank for row in tx.conn.execute(text("SELECT id, rank FROM jobs"))}
        letters = [tuple(row) for row in tx.conn.execute(text("SELECT job_id, reason_code FROM dead_letters"))]
    at_ms = 1_767_225_600_000
    assert abs(ranks["b"] - at_ms) <= 1
    assert abs(ranks["a"] - at_ms - 900_000) <= 1
    assert letters == [("c", "attempts_exhausted")]


_AT = "2026-01-01 00:00:00+00:00"
_A_JOB = f"""
INSERT INTO jobs (id, space, kind, priority, state, spec, retry, generation, attempts_made, fail_count, infra_count,
    reason_code, created_at, updated_at, finished_at, version)
VALUES (:id, 'default', 'task', :priority, :state, '{{}}', '{{}}', 1, 0, 0, 0, 'attempts_exhausted', '{_AT}', '{_AT}',
    :finished, 1)
"""  # noqa: S608 - constants of this file

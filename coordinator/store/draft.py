"""Drafts the next migration from the difference between the migrations and the models; for developers."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import (
    CreateIndexOp,
    DowngradeOps,
    DropIndexOp,
    DropTableOp,
    MigrationScript,
    ModifyTableOps,
)
from alembic.runtime.migration import MigrationContext
from sqlalchemy import JSON, Connection, String, inspect

from coordinator.store import migrate
from coordinator.store.database import Database
from coordinator.store.schema import UTCDateTime

INITIAL = "0001"
_CHATTER = "# ###"


def revision(message: str) -> Path:
    """Write the next revision and answer where; read it before committing it."""
    newest = migrate.newest()
    return _write(message, INITIAL if newest is None else f"{int(newest) + 1:04d}")


def _write(message: str, number: str) -> Path:
    migrate.load_models()
    # An empty SQLite at the newest revision: the draft must not depend on anybody's database.
    with tempfile.TemporaryDirectory() as directory:
        database = Database(f"sqlite:///{directory}/draft.db")
        try:
            migrate.upgrade(database)
            with database.engine.connect() as conn:
                path = _draft(conn, message, number)
        finally:
            database.dispose()
    _tidy(path)
    return path


def _draft(conn: Connection, message: str, number: str) -> Path:
    config = migrate.make_config(conn, render_item=_render_type)
    with redirect_stdout(sys.stderr), migrate.without_known_warnings():
        script = command.revision(
            config, message, autogenerate=True, rev_id=number, process_revision_directives=_complete
        )
    if script is None or isinstance(script, list):
        raise migrate.MigrationRefused("alembic drafted no revision")
    return Path(script.path)


def _render_type(kind: str, item: Any, _context: AutogenContext) -> str | bool:
    """Our column types by the names that the template gives them: a revision keeps its meaning when ours change."""
    if kind != "type":
        return False
    if isinstance(item, UTCDateTime):
        return "MOMENT"
    if isinstance(item, JSON):
        return "DOCUMENT"
    if isinstance(item, String) and item.length == 36 and _has_variant(item):
        return "ID"
    return False


def _has_variant(item: Any) -> bool:
    return "postgresql" in item._variant_mapping  # noqa: SLF001 - SQLAlchemy has no public door to it


def _complete(context: MigrationContext, _revision: Any, directives: Iterable[MigrationScript]) -> None:
    """Add what alembic leaves out and leave out what nobody needs."""
    script = next(iter(directives))
    conn, up, down = context.connection, script.upgrade_ops, script.downgrade_ops
    assert conn is not None
    assert up is not None
    assert down is not None
    _forget_dropped_tables(down)
    present = {row[0] for row in conn.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'index'")}
    tables = set(inspect(conn).get_table_names())
    for name, index in sorted(migrate.ordered_indexes().items()):
        if name in present:
            continue
        up.ops.append(CreateIndexOp.from_index(index))
        if index.table is not None and index.table.name in tables:
            down.ops.insert(0, DropIndexOp.from_index(index))


def _forget_dropped_tables(down: DowngradeOps) -> None:
    """A table that is dropped takes its indexes along: dropping them first is noise."""
    dropped = {op.table_name for op in down.ops if isinstance(op, DropTableOp)}
    down.ops[:] = [op for op in down.ops if not (isinstance(op, ModifyTableOps) and op.table_name in dropped)]


def _tidy(path: Path) -> None:
    """Without alembic's remarks, and formatted as the rest of the code where the formatter is installed."""
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if not line.strip().startswith(_CHATTER)) + "\n")
    formatter = [sys.executable, "-m", "ruff", "format", "--quiet", str(path)]
    subprocess.run(formatter, check=False, stderr=subprocess.DEVNULL)

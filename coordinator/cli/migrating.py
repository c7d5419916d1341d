"""`coordinator db`: the database's schema."""

from __future__ import annotations

from typing import Annotated

import typer

from coordinator.cli.options import HomeOption, JsonOption, database_of, settings_from, show
from coordinator.starting import ensure_admin
from coordinator.store import draft, migrate, revisions
from coordinator.weak_secrets import require_strong

app = typer.Typer(
    help="Bring the database to the newest schema, or look at it.", no_args_is_help=True, add_completion=False
)


@app.command()
def upgrade(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Bring the database to the newest revision, whole or not at all, and make the first admin if there is none."""
    settings = settings_from(home=home)
    require_strong(settings)
    with database_of(settings) as database:
        before = revisions.current(database)
        migrate.upgrade(database)
        after = revisions.current(database)
        ensure_admin(database, settings)
    told = f"at revision {after} already" if before == after else f"from {before or 'nothing'} to revision {after}"
    show({"before": before, "after": after}, f"The database is {told}.", as_json=as_json)


@app.command()
def check(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Say how the database differs from what this version needs; the exit code is 1 when it does."""
    with database_of(settings_from(home=home)) as database:
        problems = migrate.check(database)
        at = revisions.current(database)
    text = "\n".join(problems) or f"The database is at revision {at} and has exactly the tables of this version."
    show({"ok": not problems, "revision": at, "problems": problems}, text, as_json=as_json)
    raise typer.Exit(1 if problems else 0)


@app.command()
def revision(
    message: Annotated[str, typer.Argument(help="What it does, in a few words.")],
    as_json: JsonOption = False,
) -> None:
    """Draft the next revision from how the models differ from the migrations; for developers."""
    path = draft.revision(message)
    show({"path": str(path)}, f"Wrote {path}. Read it before you commit it.", as_json=as_json)

"""`coordinator serve`: the REST API."""

from __future__ import annotations

from typing import Annotated

import typer

from coordinator.cli.options import BindOption, HomeOption, database_of, joined, settings_from
from coordinator.http import server
from coordinator.starting import ensure_admin, require_current
from coordinator.up.ports import require_free
from coordinator.weak_secrets import require_strong

app = typer.Typer(add_completion=False)


@app.command()
def serve(
    home: HomeOption = None,
    bind: BindOption = None,
    web_workers: Annotated[
        int | None, typer.Option("--web-workers", min=1, max=64, help="Web processes; LONGSHORE_WEB_WORKERS.")
    ] = None,
) -> None:
    """Serve the REST API until told to stop. The database must be migrated; the first admin is made when missing."""
    settings = settings_from(home=home, bind=joined(bind), web_workers=web_workers)
    require_strong(settings)
    for address in settings.binds:
        require_free(address, "--bind HOST:PORT")
    with database_of(settings) as database:
        require_current(database)
        ensure_admin(database, settings)
    server.run(settings)

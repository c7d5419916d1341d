"""`coordinator enrol-token`: the tokens with which hosts become nodes."""

from __future__ import annotations

from typing import Annotated

import typer

from coordinator.cli.options import HomeOption, JsonOption, database_of, settings_from, show, whoever_runs_this
from coordinator.domains.fleet import service as fleet
from coordinator.domains.identity import audit
from coordinator.starting import require_current
from shared.clock import rfc3339

app = typer.Typer(help="Make a token with which a host becomes a node.", no_args_is_help=True, add_completion=False)


@app.callback()
def _group() -> None:
    """Make a token with which a host becomes a node."""


@app.command()
def create(
    note: Annotated[str | None, typer.Option("--note", help="What it is for, for people.")] = None,
    group: Annotated[str | None, typer.Option("--group", help="The group of the node that uses it.")] = None,
    expires_in: Annotated[
        int | None, typer.Option("--expires-in", metavar="SECONDS", min=1, help="LONGSHORE_ENROL_TOKEN_SECONDS, a day.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a new token, alone on its line. It works once; the node then waits for an admin's approval."""
    settings = settings_from(home=home)
    with database_of(settings) as database:
        require_current(database)
        with database.write() as tx:
            token, row = fleet.create_token(tx, settings, by=None, note=note, group=group, seconds=expires_in)
            facts = {"note": note, "group": group, "expires_at": row.expires_at}
            audit.record(tx, whoever_runs_this(), "enrolment_token.created", resource_id=row.id, after=facts)
    told = {"token": token, "id": row.id, "note": note, "group": group, "expires_at": rfc3339(row.expires_at)}
    show(told, token, as_json=as_json)

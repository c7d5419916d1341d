"""`coordinator routes`: what is served, and who may use it."""

from __future__ import annotations

from dataclasses import asdict

import typer

from coordinator.cli.options import HomeOption, JsonOption, settings_from, show
from coordinator.cli.publishing import make_idle_app
from coordinator.http.slice import routes as routes_of

app = typer.Typer(add_completion=False)


@app.command()
def routes(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Print every endpoint with its method, the right it asks for and its operation id."""
    lines = routes_of(make_idle_app(settings_from(home=home)))
    width = max(len(line.path) for line in lines)
    rights = max(len(line.right) for line in lines)
    text = "\n".join(f"{one.method:6} {one.path:{width}}  {one.right:{rights}}  {one.operation_id}" for one in lines)
    show([asdict(line) for line in lines], text, as_json=as_json)

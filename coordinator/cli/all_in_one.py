"""`coordinator up`: everything on one machine."""

from __future__ import annotations

import sys
from typing import Annotated

import orjson
import typer

from coordinator.cli.options import BindOption, HomeOption, JsonOption, joined
from coordinator.config import load_settings
from coordinator.up.plan import FLOWER_PORT, Options
from coordinator.up.run import run
from coordinator.up.telling import Told, lines
from coordinator.weak_secrets import require_strong

DRIVERS = ("auto", "docker", "process")

app = typer.Typer(add_completion=False)


@app.command()
def up(
    home: HomeOption = None,
    bind: BindOption = None,
    nodes: Annotated[int, typer.Option("--nodes", min=1, max=64, help="How many nodes to run here.")] = 1,
    driver: Annotated[
        str | None,
        typer.Option(
            "--driver", metavar="|".join(DRIVERS), help="What the nodes make computers of; auto unless given."
        ),
    ] = None,
    slots: Annotated[int | None, typer.Option("--slots", min=1, help="Computers at a time, per node.")] = None,
    flower_port: Annotated[int, typer.Option("--flower-port", min=1, max=65535, help="Flower's port.")] = FLOWER_PORT,
    no_flower: Annotated[bool, typer.Option("--no-flower", help="Start no Flower.")] = False,
    no_node: Annotated[bool, typer.Option("--no-node", help="Start the coordinator's side alone.")] = False,
    require_approval: Annotated[
        bool, typer.Option("--require-approval", help="Leave the approval of the nodes to an admin.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run everything on this machine, in the foreground: Redis, API, dispatcher, Flower, nodes.

    Without LONGSHORE_REDIS_URL it starts a Redis of its own; without LONGSHORE_DATABASE_URL it uses SQLite in the home.
    A second start with the same home goes on where the first one ended. SIGINT or SIGTERM stops everything in order;
    once more, everything at once. With --json it prints one line when all is ready; messages go to standard error.
    """
    if driver is not None and driver not in DRIVERS:
        raise typer.BadParameter(f"{driver!r} is not one of {', '.join(DRIVERS)}", param_hint="--driver")
    settings = load_settings(home=home, bind=joined(bind))
    require_strong(settings)
    options = Options(
        nodes=0 if no_node else nodes,
        driver=driver,
        slots=slots,
        flower_port=None if no_flower else flower_port,
        require_approval=require_approval,
    )
    run(settings, options, say=_say, on_ready=_tell_as_json if as_json else _tell)


def _say(text: str) -> None:
    sys.stderr.write(f"coordinator up: {text}\n")
    sys.stderr.flush()


def _tell(told: Told) -> None:
    typer.echo("\n".join(lines(told)))
    sys.stdout.flush()


def _tell_as_json(told: Told) -> None:
    typer.echo(orjson.dumps(told.to_json(), default=str).decode())
    sys.stdout.flush()

"""What the commands have in common: options, settings, and how a result is printed."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from coordinator.config import Settings, load_settings
from coordinator.domains.identity.audit import Who
from coordinator.store.database import Database
from coordinator.up.kept import kept_url

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        metavar="DIR",
        help="Where state and generated secrets are kept; LONGSHORE_HOME, ~/.longshore unless given.",
    ),
]
BindOption = Annotated[
    list[str] | None,
    typer.Option("--bind", metavar="HOST:PORT", help="Listen here; may be repeated. LONGSHORE_BIND, 127.0.0.1:9000."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def settings_from(**overrides: Any) -> Settings:
    """The settings of a command. Without a Redis URL they name the server that `coordinator up` keeps in this home."""
    settings = load_settings(**overrides)
    if settings.redis_url or (kept := kept_url(settings.home)) is None:
        return settings
    return settings.model_copy(update={"redis_url": kept})


def joined(binds: list[str] | None) -> str | None:
    """`--bind` as the setting has it."""
    return ",".join(binds) if binds else None


@contextmanager
def database_of(settings: Settings) -> Iterator[Database]:
    """The database for as long as one command needs it."""
    database = Database(settings.database_url)
    try:
        yield database
    finally:
        database.dispose()


def whoever_runs_this() -> Who:
    """Who acts from the command line, for the audit trail: the coordinator, by the hands of a user of its host."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        # A container may run as a number that no name belongs to.
        user = str(os.getuid())
    return Who("system", name=f"command line ({user})")


def show(value: Any, text: str, *, as_json: bool) -> None:
    """Print a result: `text` for people, `value` for programs."""
    typer.echo(orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2).decode() if as_json else text)

"""The root of the `coordinator` command: finds the command, and turns our errors into words and exit codes."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NoReturn

import typer
from typer._click.core import Command, Context
from typer.core import TyperGroup

from shared import __version__
from shared.errors import LongshoreError
from shared.settings import SettingsError

FAILED = 1
WRONG_USE = 2

COMMANDS: Mapping[str, str] = {
    "up": "all_in_one",
    "serve": "serving",
    "dispatch": "dispatching",
    "check": "checking",
    "db": "migrating",
    "admin": "admins",
    "audit": "auditing",
    "keys": "keys",
    "enrol-token": "enrolling",
    "routes": "routing",
    "openapi": "publishing",
}
"""Each command and its module in this package, in the order of the help text."""


class LazyCommands(TyperGroup):
    """Imports a command's module when the command is asked for: a supervisor needs no web framework."""

    def list_commands(self, ctx: Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"coordinator.cli.{COMMANDS[cmd_name]}")
        command: Command = typer.main.get_command(module.app)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=LazyCommands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"longshore {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Print the version."),
) -> None:
    """Longshore's coordinator: the REST API, the dispatcher, and everything on one machine.

    Settings come from the environment (LONGSHORE_…); an option overrides its variable.
    """


def main(arguments: list[str] | None = None) -> NoReturn:
    """Entry point of the `coordinator` script."""
    try:
        app(arguments)
    except SettingsError as error:
        _fail(str(error), WRONG_USE)
    except LongshoreError as error:
        _fail(_told(error), FAILED)
    raise SystemExit(0)


def _told(error: LongshoreError) -> str:
    details = ", ".join(f"{name}: {_plain(value)}" for name, value in error.details.items())
    return f"{error.message} ({details})" if details else error.message


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple | set) else str(value)


def _fail(text: str, code: int) -> NoReturn:
    typer.echo(f"coordinator: {text}", err=True)
    raise SystemExit(code)

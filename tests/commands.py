"""Whether a command line is one that our programs understand, without running it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any

import typer.main


def refusal_of(command: Sequence[str]) -> str | None:
    """Why these words are no command of ours; None when they are one."""
    program, *words = command
    if program == "celery":
        found = {entry.name for entry in entry_points(group="celery.commands")}
        return None if words == ["flower"] and "flower" in found else f"{words} is no command of celery"
    app = importlib.import_module(f"{program}.cli.root" if program == "coordinator" else f"{program}.cli").app
    # What --help leaves out does not matter here: parsing alone finds unknown commands, options and missing values.
    try:
        _parse(typer.main.get_command(app), program, words)
    except Exception as error:  # noqa: BLE001 - whatever the parser says is the answer
        return f"{' '.join(command)}: {error}"
    return None


def _parse(command: Any, name: str, words: list[str]) -> None:
    with command.make_context(name, list(words)) as context:
        if not hasattr(command, "resolve_command"):
            return
        below, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        _parse(found, below, rest)

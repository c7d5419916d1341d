"""`coordinator openapi`: the published document."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from flask import Flask

from coordinator.app import create_app
from coordinator.cli.options import HomeOption, settings_from
from coordinator.config import Settings
from coordinator.resources import make_resources
from shared.errors import Invalid

app = typer.Typer(add_completion=False)


@app.command()
def openapi(
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write here instead of to standard output.")
    ] = None,
    home: HomeOption = None,
    _as_json: Annotated[bool, typer.Option("--json", help="The document is JSON with and without it.")] = False,
) -> None:
    """Print the OpenAPI 3.1 document of both versions of the API, always the same bytes for the same version."""
    document: bytes = make_idle_app(settings_from(home=home)).extensions["longshore"].document
    if output is None:
        sys.stdout.buffer.write(document.rstrip(b"\n") + b"\n")
        return
    try:
        output.write_bytes(document)
    except OSError as error:
        raise Invalid(f"cannot write {output}: {error.strerror}") from error


def make_idle_app(settings: Settings) -> Flask:
    """The app for looking at it; it connects to nothing."""
    return create_app(make_resources(settings))

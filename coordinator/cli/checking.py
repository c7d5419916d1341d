"""`coordinator check`: what is missing, in words."""

from __future__ import annotations

from dataclasses import asdict

import typer

from coordinator.checkup import examine
from coordinator.cli.options import HomeOption, JsonOption, settings_from, show

MARKS = {True: "ok     ", False: "MISSING", None: "-      "}

app = typer.Typer(add_completion=False)


@app.command()
def check(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Say what the coordinator needs and does not have; the exit code is 1 when something is missing."""
    findings = examine(settings_from(home=home))
    is_ok = all(finding.ok is not False for finding in findings)
    text = "\n".join(f"{MARKS[finding.ok]} {finding.name}: {finding.message}" for finding in findings)
    show({"ok": is_ok, "findings": [asdict(finding) for finding in findings]}, text, as_json=as_json)
    raise typer.Exit(0 if is_ok else 1)

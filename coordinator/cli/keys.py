"""`coordinator keys`: the keys that seal stored secrets."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from coordinator.cli.options import HomeOption, JsonOption, database_of, settings_from, show, whoever_runs_this
from coordinator.domains.identity import audit
from coordinator.domains.vault import rotation
from coordinator.domains.vault.keyring import Keyring, shown
from coordinator.domains.vault.rotation import Beginning, Holding
from coordinator.starting import require_current
from coordinator.store.database import Database
from shared.clock import rfc3339

app = typer.Typer(help="Show or rotate the keys that seal stored secrets.", no_args_is_help=True, add_completion=False)


@app.command()
def status(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Print the data keys with what each has sealed. The exit code is 1 when the master key of one is missing."""
    settings = settings_from(home=home)
    keyring = Keyring.from_settings(settings)
    with database_of(settings) as database:
        require_current(database)
        with database.read() as tx:
            holdings = rotation.status(tx, keyring)
    told = {"master": shown(keyring.master.fingerprint), "data_keys": [_told(each) for each in holdings]}
    show(told, _in_words(keyring, holdings), as_json=as_json)
    raise typer.Exit(0 if all(each.known for each in holdings) else 1)


@app.command()
def rotate(
    master: Annotated[
        bool,
        typer.Option("--master", help="After LONGSHORE_MASTER_KEY was changed: wrap the data keys with the new one."),
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Make a new data key even if an earlier rotation has not ended.")
    ] = False,
    batch: Annotated[int, typer.Option("--batch", min=1, max=10_000, help="Rows in one transaction.")] = rotation.BATCH,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a new data key and seal everything by it. It may be interrupted; called again, it goes on."""
    settings = settings_from(home=home)
    keyring = Keyring.from_settings(settings)
    with database_of(settings) as database:
        require_current(database)
        if master:
            _wrap_anew(database, keyring, as_json=as_json)
        else:
            _seal_anew(database, keyring, rotation.begin(database, keyring, fresh=fresh), batch, as_json=as_json)


def _wrap_anew(database: Database, keyring: Keyring, *, as_json: bool) -> None:
    with database.write() as tx:
        count = rotation.wrap_anew(tx, keyring)
        name = shown(keyring.master.fingerprint)
        told = {"master": name, "rewrapped": count}
        if count:
            audit.record(tx, whoever_runs_this(), "master_key.changed", resource_id=name, after=told)
    show(told, f"{count} data keys are wrapped by the master key {name} now.", as_json=as_json)


def _seal_anew(database: Database, keyring: Keyring, begun: Beginning, size: int, *, as_json: bool) -> None:
    typer.echo(f"{'Going on with' if begun.resumed else 'Made'} data key {begun.key.id}.", err=True)
    sealed, broken = 0, []
    for done in rotation.seal_anew(database, keyring, begun.key, size=size):
        sealed += done.sealed
        broken += [f"{done.purpose} of {subject}" for subject in done.broken]
        typer.echo(f"{done.sealed} of {done.purpose}", err=True)
    told = {"data_key": begun.key.id, "resumed": begun.resumed, "sealed": sealed, "broken": broken}
    with database.write() as tx:
        audit.record(tx, whoever_runs_this(), "data_key.rotated", resource_id=begun.key.id, after=told)
    show(told, _ended(begun, sealed, broken), as_json=as_json)
    raise typer.Exit(1 if broken else 0)


def _ended(begun: Beginning, sealed: int, broken: list[str]) -> str:
    lines = [f"{sealed} secrets were sealed by data key {begun.key.id}."]
    if broken:
        lines += ["These cannot be opened and stay as they are:", *(f"  {each}" for each in broken)]
    return "\n".join(lines)


def _told(holding: Holding) -> dict[str, Any]:
    key = holding.key
    return {
        "id": key.id,
        "created_at": rfc3339(key.created_at),
        "retired_at": None if key.retired_at is None else rfc3339(key.retired_at),
        "master": shown(key.master),
        "master_is_known": holding.known,
        "sealed": holding.counts,
    }


def _in_words(keyring: Keyring, holdings: list[Holding]) -> str:
    lines = [f"Master key {shown(keyring.master.fingerprint)}; {len(keyring.old)} old ones."]
    lines += [_line(keyring, each) for each in holdings] or ["No data key yet: the first secret makes one."]
    return "\n".join(lines)


def _line(keyring: Keyring, holding: Holding) -> str:
    key = holding.key
    state = "seals" if key.retired_at is None else f"retired {rfc3339(key.retired_at)}"
    counts = ", ".join(f"{count} of {purpose}" for purpose, count in sorted(holding.counts.items())) or "nothing"
    by = "this master key" if key.master == keyring.master.fingerprint else f"master key {shown(key.master)}"
    missing = "" if holding.known else ", WHICH IS MISSING: give it among LONGSHORE_OLD_MASTER_KEYS"
    return f"{key.id}  {state}  holds {counts}; wrapped by {by}{missing}"

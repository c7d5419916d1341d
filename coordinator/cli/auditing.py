"""`coordinator audit`: the audit trail's chain, for whoever wants to know whether it is whole."""

from __future__ import annotations

from typing import Annotated

import typer

from coordinator.cli.options import HomeOption, JsonOption, database_of, settings_from, show
from coordinator.domains.identity import audit
from coordinator.domains.identity.audit import Head, Verdict
from coordinator.domains.identity.audit_chain import parse_head
from coordinator.starting import require_current
from shared.errors import Invalid

app = typer.Typer(help="Verify the audit trail, or export its head.", no_args_is_help=True, add_completion=False)


@app.command()
def head(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Print the end of the chain as SEQUENCE:HASH. Keep it where nobody who can write the database can write."""
    with database_of(settings_from(home=home)) as database:
        require_current(database)
        with database.read() as tx:
            found, unsealed = audit.head(tx), audit.count_unsealed(tx)
    show({"sequence": found.sequence, "hash": found.hash, "unsealed": unsealed}, str(found), as_json=as_json)


@app.command()
def verify(
    expected: Annotated[
        str | None,
        typer.Option("--head", metavar="SEQ:HASH", help="A head that was exported: the chain must lead through it."),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Walk the whole chain and say the first place where it is broken; the exit code is 1 when it is."""
    wanted = _parsed(expected)
    with database_of(settings_from(home=home)) as database:
        require_current(database)
        with database.read() as tx:
            verdict = audit.verify(tx, wanted)
    show(_told(verdict), _in_words(verdict, wanted), as_json=as_json)
    raise typer.Exit(1 if verdict.problem else 0)


def _parsed(text: str | None) -> Head | None:
    try:
        return None if text is None else parse_head(text)
    except ValueError as error:
        raise Invalid(str(error), field="--head") from None


def _told(verdict: Verdict) -> dict[str, object]:
    return {
        "ok": verdict.problem is None,
        "problem": verdict.problem,
        "rows": verdict.rows,
        "start": str(verdict.start),
        "head": str(verdict.head),
        "unsealed": verdict.unsealed,
    }


def _in_words(verdict: Verdict, wanted: Head | None) -> str:
    if verdict.problem is not None:
        return f"The audit trail is broken: {verdict.problem}."
    whole = f"{verdict.rows} rows, whole from {verdict.start.sequence + 1} to {verdict.head.sequence}"
    if not verdict.rows:
        whole = "no sealed rows"
    through = f", through the exported head {wanted.sequence}" if wanted else ""
    waiting = f"\n{verdict.unsealed} more wait for the dispatcher to seal them." if verdict.unsealed else ""
    return f"The audit trail has {whole}{through}.\nHead: {verdict.head}{waiting}"

"""`coordinator admin`: admins and forgotten passwords, for whoever has this machine."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.exc import IntegrityError

from coordinator.cli.options import HomeOption, JsonOption, database_of, settings_from, show, whoever_runs_this
from coordinator.domains.identity import audit, recovery
from coordinator.domains.identity import service as identity
from coordinator.domains.identity.passwords import passwords
from coordinator.domains.identity.rights import Role
from coordinator.starting import require_current
from shared.errors import Duplicate, Invalid

SHORTEST_PASSWORD = 12

app = typer.Typer(
    help="Make an admin or let one back in, without asking one.", no_args_is_help=True, add_completion=False
)


@app.callback()
def _group() -> None:
    """Make an admin or let one back in, without asking one."""


@app.command()
def create(
    name: Annotated[str, typer.Option("--name", help="The name to log in with.")],
    email: Annotated[str | None, typer.Option("--email", help="The e-mail address to log in with.")] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(
            "--password-file", metavar="FILE", help="Holds the password; one is made up and printed otherwise."
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an admin who can log in at once."""
    settings = settings_from(home=home)
    password = _read(password_file) if password_file else secrets.token_urlsafe(15)
    digest = passwords(settings.password_cost).hash(password)
    with database_of(settings) as database:
        require_current(database)
        try:
            with database.write() as tx:
                made = identity.add_principal(
                    tx, kind="user", name=name, role=Role.ADMIN, email=email, password_hash=digest
                )
                facts = {"name": made.name, "email": made.email, "role": made.role}
                audit.record(tx, whoever_runs_this(), "user.created", resource_id=made.id, after=facts)
        except IntegrityError as error:
            raise Duplicate("somebody has this name or e-mail address already", name=name, email=email) from error
    told: dict[str, str | None] = {"id": made.id, "name": made.name, "email": made.email}
    if password_file is None:
        told["password"] = password
    _show(told, as_json=as_json)


@app.command("reset-password")
def reset_password(
    name: Annotated[str, typer.Argument(help="The name or e-mail address of whoever forgot theirs.")],
    password_file: Annotated[
        Path | None,
        typer.Option(
            "--password-file", metavar="FILE", help="Holds the password; one is made up and printed otherwise."
        ),
    ] = None,
    keep_mfa: Annotated[
        bool, typer.Option("--keep-mfa", help="Leave the second factor alone; it is taken away otherwise.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give somebody who is locked out another password: end lock-outs and sessions, and take the second factor away."""
    settings = settings_from(home=home)
    password = _read(password_file) if password_file else secrets.token_urlsafe(15)
    digest = passwords(settings.password_cost).hash(password)
    with database_of(settings) as database:
        require_current(database)
        with database.write() as tx:
            found = recovery.let_back_in(tx, settings, name, digest, keep_mfa=keep_mfa)
            audit.record(tx, whoever_runs_this(), "user.password_reset", resource_id=found.id)
    told: dict[str, str | None] = {"id": found.id, "name": found.name, "email": found.email}
    if password_file is None:
        told["password"] = password
    _show(told, as_json=as_json)


def _show(told: dict[str, str | None], *, as_json: bool) -> None:
    show(told, "\n".join(f"{key}: {value}" for key, value in told.items() if value), as_json=as_json)


def _read(path: Path) -> str:
    try:
        password = path.read_text().strip()
    except OSError as error:
        raise Invalid(f"cannot read the password from {path}: {error.strerror}") from error
    if len(password) < SHORTEST_PASSWORD:
        raise Invalid(f"the password in {path} is shorter than {SHORTEST_PASSWORD} characters")
    return password

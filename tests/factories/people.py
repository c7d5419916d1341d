"""Principals and their credentials."""

from __future__ import annotations

from itertools import count
from typing import Any

from flask import Flask

from coordinator.domains.identity import binding_store, service
from coordinator.domains.identity.passwords import passwords
from coordinator.domains.identity.rights import BUILT_IN_IDS, Role
from coordinator.domains.identity.service import Principal
from coordinator.store.database import Database

_numbers = count(1)


def make_person(
    database: Database,
    *,
    role: Role | None = Role.OPERATOR,
    name: str | None = None,
    password: str | None = None,
    kind: str = "user",
    **fields: Any,
) -> Principal:
    """A principal with this role; with `password`, one who can log in."""
    with database.write() as tx:
        return service.add_principal(
            tx,
            kind=kind,
            name=name or f"{role or 'nobody'}-{next(_numbers)}",
            role=role,
            password_hash=None if password is None else passwords("low").hash(password),
            **fields,
        )


def hold(database: Database, person: Principal, role: Role, *, space: str | None = None) -> str:
    """Let them hold a built-in role, everywhere or in a space; the id of the binding."""
    with database.write() as tx:
        return binding_store.bind(tx, principal_id=person.id, role_id=BUILT_IN_IDS[role], space=space, by=None)


def credentials_of(app: Flask, person: Principal, *, seconds: int = 1800) -> dict[str, str]:
    """Headers with an access token of theirs."""
    ours = app.extensions["longshore"]
    with ours.resources.database.write() as tx:
        session = service.open_session(tx, person, seconds=seconds, refreshable=False)
    with app.app_context():
        token = ours.tokens.mint("access", person.id, seconds=seconds, claims={"sid": session.id})
    return {"Authorization": f"Bearer {token}"}

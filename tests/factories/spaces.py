"""Spaces, and people who hold a role in one of them or everywhere."""

from __future__ import annotations

from typing import Any

from flask import Flask
from werkzeug.test import TestResponse

from coordinator.domains.identity import spaces
from coordinator.domains.identity.rights import Role
from coordinator.domains.identity.service import Principal
from coordinator.store.database import Database
from tests.factories.people import credentials_of, hold, make_person


def make_space(database: Database, name: str, **fields: Any) -> str:
    """A space of this name."""
    with database.write() as tx:
        return spaces.add(tx, {"name": name, **fields}, by="").name


class V0Caller:
    """Somebody who calls `/api/v0` (or, with a whole path, anything else)."""

    def __init__(self, app: Flask, person: Principal, headers: dict[str, str] | None = None) -> None:
        self.person = person
        self.client = app.test_client()
        self.headers = headers or credentials_of(app, person)

    @classmethod
    def make(cls, app: Flask, database: Database, role: Role | None = None, *, space: str | None = None) -> V0Caller:
        """Somebody with this role everywhere, in one space alone, or with none."""
        person = make_person(database, role=role if space is None else None)
        if role is not None and space is not None:
            hold(database, person, role, space=space)
        return cls(app, person)

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> TestResponse:
        headers = {**self.headers, **options.pop("headers", {})}
        whole = path if path.startswith("/api/") else f"/api/v0{path}"
        if body is not None:
            options["json"] = body
        return self.client.open(whole, method=method, headers=headers, **options)

    def get(self, path: str, **options: Any) -> TestResponse:
        return self.call("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> TestResponse:
        return self.call("POST", path, body, **options)

    def put(self, path: str, body: Any, **options: Any) -> TestResponse:
        return self.call("PUT", path, body, **options)

    def delete(self, path: str, **options: Any) -> TestResponse:
        return self.call("DELETE", path, **options)

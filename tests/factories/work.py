"""Clients with rights, agents, tasks and files, made through the endpoints that users have."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.datastructures import FileStorage
from werkzeug.test import TestResponse, encode_multipart

from coordinator.domains.identity.rights import Role
from coordinator.domains.queue.placing import Ticket
from coordinator.resources import Resources
from tests.factories.fleet import TestNode, place_all
from tests.factories.people import credentials_of, make_person

API = "/api/v1"


@dataclass(frozen=True)
class Person:
    """Somebody with a role who calls the API."""

    client: FlaskClient
    headers: dict[str, str]
    id: str
    name: str

    @classmethod
    def make(cls, app: Flask, resources: Resources, role: Role = Role.OPERATOR) -> Person:
        principal = make_person(resources.database, role=role)
        return cls(app.test_client(), credentials_of(app, principal), principal.id, principal.name or "")

    def get(self, path: str, **options: Any) -> TestResponse:
        return self._call("get", path, options)

    def post(self, path: str, body: Any = None, **options: Any) -> TestResponse:
        return self._call("post", path, options if body is None else {"json": body, **options})

    def patch(self, path: str, body: Any, **options: Any) -> TestResponse:
        return self._call("patch", path, {"json": body, **options})

    def delete(self, path: str, **options: Any) -> TestResponse:
        return self._call("delete", path, options)

    def agent(self, **fields: Any) -> dict[str, Any]:
        return self._made("/agents", {"name": "runner", **fields})

    def task(self, **fields: Any) -> dict[str, Any]:
        return self._made("/tasks", {"title": "a task", "instructions": "true", **fields})

    def execution(self, agent_id: str, **fields: Any) -> dict[str, Any]:
        answer = self.post(f"/agents/{agent_id}/execute", {"input": {"command": "true"}, **fields})
        return told(answer, 202)

    def upload(
        self, content: bytes, name: str = "data.txt", *, path: str = "/files/upload", **options: Any
    ) -> TestResponse:
        media_type = options.pop("content_type", "text/plain")
        return self.post(path, **multipart(file=attached(content, name, media_type)), **options)

    def file(self, content: bytes = b"content", name: str = "data.txt") -> dict[str, Any]:
        return told(self.upload(content, name), 201)

    def _made(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return told(self.post(path, body), 201)

    def _call(self, method: str, path: str, options: dict[str, Any]) -> TestResponse:
        headers = {**self.headers, **options.pop("headers", {})}
        answer: TestResponse = getattr(self.client, method)(f"{API}{path}", headers=headers, **options)
        return answer


def attached(content: bytes, name: str, media_type: str = "application/octet-stream") -> FileStorage:
    """A file as a field of a form."""
    return FileStorage(io.BytesIO(content), name, content_type=media_type)


def multipart(**fields: Any) -> dict[str, Any]:
    """Options of a request with this form. Encoded here, as the test client would leave its temporary file open."""
    boundary, body = encode_multipart(fields)
    return {"data": body, "content_type": f"multipart/form-data; boundary={boundary}"}


def told(answer: TestResponse, status: int = 200) -> dict[str, Any]:
    """The body of an answer that must have this status."""
    assert answer.status_code == status, (answer.status_code, answer.get_data(as_text=True))
    body: dict[str, Any] = answer.get_json()
    return body


def refused(answer: TestResponse, status: int) -> dict[str, Any]:
    """The error of an answer that must have this status; its details are beside it."""
    error: dict[str, Any] = told(answer, status)["error"]
    return {**error, **error["details"]}


def start_one(resources: Resources, node: TestNode) -> Ticket:
    """Place what waits, and let the node begin the one job that was placed."""
    (ticket,) = place_all(resources).tickets
    assert node.claim(ticket)["token"]
    return ticket


def run_one(resources: Resources, node: TestNode, *, outcome: str = "succeeded", **facts: Any) -> Ticket:
    """Place, begin and report the one job that waits."""
    ticket = start_one(resources, node)
    assert node.report(ticket.attempt_id, outcome, **facts) == "accepted"
    return ticket

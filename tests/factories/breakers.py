"""Breakers as tests work them: jobs that depend on some, nodes that charge them, an admin who looks."""

from __future__ import annotations

from typing import Any

from flask import Flask
from flask.testing import FlaskClient

from coordinator.domains.identity.rights import Role
from coordinator.domains.queue.placing import Ticket
from coordinator.resources import Resources
from tests.factories.fleet import TestNode, job_of, new_job, place_all, submit
from tests.factories.people import credentials_of, make_person
from tests.factories.work import Person, told

MODEL = "llm:openai/gpt-4o"
IMAGE = "image:registry.example/team/tool:3"


class Site:
    """What these tests do again and again."""

    def __init__(self, node: TestNode, resources: Resources, admin: Person) -> None:
        self.node, self.resources, self.admin = node, resources, admin

    @classmethod
    def make(cls, app: Flask, client: FlaskClient, resources: Resources) -> Site:
        """A node with room, and an admin whose login outlives the waiting in these tests."""
        node = TestNode(client, resources, slots=8, light_slots=8).approve()
        person = make_person(resources.database, role=Role.ADMIN)
        headers = credentials_of(app, person, seconds=10**6)
        return cls(node, resources, Person(app.test_client(), headers, person.id, person.name or ""))

    def submit(self, *names: str, count: int = 1, **facts: Any) -> list[str]:
        """Jobs that depend on these breakers."""
        needs = {"breakers": sorted(names), **facts.pop("needs", {})}
        return submit(self.resources, *(new_job(needs=needs, **facts) for _ in range(count)))

    def place(self) -> list[Ticket]:
        return list(place_all(self.resources).tickets)

    def end(self, ticket: Ticket, outcome: str = "succeeded", **facts: Any) -> None:
        assert self.node.claim(ticket)["token"]
        assert self.node.report(ticket.attempt_id, outcome, **facts) == "accepted"

    def charge(self, verdict: str = "failed", *, name: str = MODEL, count: int = 1) -> None:
        """Jobs that depend on nothing call a model and tell how that went."""
        for _ in range(count):
            self.submit(agent_id="bystander")
            (ticket,) = self.place()
            self.end(ticket, charges={name: verdict})

    def probe(self, verdict: str = "ok", *, name: str = MODEL) -> None:
        """The one job that may go tries the model."""
        (ticket,) = self.place()
        self.end(ticket, charges={name: verdict})

    def breaker(self, name: str = MODEL) -> dict[str, Any]:
        return told(self.admin.get(f"/circuit-breakers/{name}"))

    def command(self, verb: str, name: str = MODEL, **body: Any) -> dict[str, Any]:
        return told(self.admin.post(f"/circuit-breakers/{name}/{verb}", body))

    def hold_of(self, job_id: str) -> str | None:
        return job_of(self.resources, job_id).hold_reason

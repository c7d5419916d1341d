"""Nodes and work for tests that go through the coordinator's real services and endpoints."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from flask.testing import FlaskClient

from coordinator.domains.fleet import service as fleet
from coordinator.domains.queue import service as queue
from coordinator.domains.queue.placing import Placed, Ticket, place
from coordinator.resources import Resources
from shared.contracts.node import Enrol
from shared.ids import new_id

_numbers = itertools.count(1)


class TestNode:
    """A node as the coordinator sees it over HTTP; what it does is what the test makes it do."""

    __test__ = False

    def __init__(self, client: FlaskClient, resources: Resources, **facts: Any) -> None:
        told = Enrol(**({"name": f"node-{next(_numbers)}", "hostname": "host", "ip_address": "10.0.0.1"} | facts))
        with resources.database.write() as tx:
            node, self.credential = fleet.enrol(tx, told, token_id=None)
        self.id, self.name = node.id, node.name
        self.epoch = new_id()
        self._client, self._resources = client, resources
        self.held: dict[str, str] = {}

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.credential}"}

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._client.post(f"/api/v1/workers/{self.id}/{path}", json=body, headers=self.headers)

    def beat(self, **facts: Any) -> dict[str, Any]:
        held = [{"attempt_id": attempt_id, "token": token} for attempt_id, token in self.held.items()]
        answer = self.post("heartbeat", {"epoch": self.epoch, "attempts": held} | facts)
        assert answer.status_code == 200, answer.get_json()
        reply: dict[str, Any] = answer.get_json()
        return reply

    def approve(self, **choices: Any) -> TestNode:
        """Approved and online."""
        self.beat()
        with self._resources.database.write() as tx:
            fleet.approve(tx, self._resources, self.id, is_approved=True, by="test", **choices)
        return self

    def sync(self, *, claims: Sequence[Mapping[str, Any]] = (), reports: Sequence[Mapping[str, Any]] = ()) -> Any:
        return self.post("sync", {"epoch": self.epoch, "claims": list(claims), "reports": list(reports)})

    def claim(self, ticket: Ticket, *, nonce: str = "the-nonce") -> dict[str, Any]:
        """The grant or refusal of one claim."""
        answer = self.sync(claims=[{"attempt_id": ticket.attempt_id, "nonce": nonce}])
        assert answer.status_code == 200, answer.get_json()
        grant: dict[str, Any] = answer.get_json()["grants"][0]
        if grant["token"]:
            self.held[ticket.attempt_id] = grant["token"]
        return grant

    def report(self, attempt_id: str, outcome: str = "succeeded", **facts: Any) -> str:
        """What the coordinator made of the report: accepted or stale."""
        told = {"attempt_id": attempt_id, "token": self.held.get(attempt_id, "x"), "outcome": outcome} | facts
        answer = self.sync(reports=[told])
        assert answer.status_code == 200, answer.get_json()
        verdict: str = answer.get_json()["reports"][attempt_id]
        if verdict == "accepted":
            self.held.pop(attempt_id, None)
        return verdict


def new_job(**facts: Any) -> queue.NewJob:
    """An empty job of some agent that needs no computer."""
    defaults: dict[str, Any] = {
        "id": new_id(),
        "space": "default",
        "kind": "task",
        "agent_id": "agent-1",
        "priority": 1,
        "spec": {"kind": "task", "agent": "echo", "runtime": "echo", "input": {"n": 1}},
        "retry": {},
        "needs": {},
        "takes_slot": False,
        "deadline_at": None,
        "created_by": None,
    }
    return queue.NewJob(**(defaults | facts))


def submit(resources: Resources, *jobs: queue.NewJob) -> list[str]:
    with resources.database.write() as tx:
        for agent_id in {job.agent_id for job in jobs if job.agent_id}:
            queue.set_lane(tx, resources, agent_id, hold_reason=None, max_active=None)
        queue.submit(tx, resources, jobs)
    return [job.id for job in jobs]


def place_all(resources: Resources, *, batch: int = 100) -> Placed:
    """One round of placement."""
    with resources.database.write() as tx:
        return place(tx, fleet.facts(tx), batch=batch)


def job_of(resources: Resources, job_id: str) -> queue.JobView:
    with resources.database.read() as tx:
        return queue.get(tx, job_id)

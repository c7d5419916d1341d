"""An open breaker is tried when its time has come, by a dispatcher that nothing else wakes."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from flask.testing import FlaskClient

from coordinator.config import Settings
from coordinator.dispatcher import Dispatcher
from coordinator.domains.queue.placing import Ticket
from coordinator.resources import Nudge, Resources
from coordinator.store.database import Database
from shared.clock import SystemClock
from tests.factories.fleet import TestNode, job_of, new_job, place_all, submit
from tests.services.processes import wait_until

MODEL = "llm:openai/gpt-4o"
NEVER = 3600.0


@pytest.fixture
def settings(settings: Settings) -> Settings:
    brisk = {"breaker_failure_threshold": 1, "breaker_recovery_seconds": 0.5, "breaker_success_threshold": 1}
    return settings.model_copy(update={**brisk, "sweep_seconds": NEVER, "leader_seconds": NEVER})


@pytest.fixture
def resources(resources: Resources, database: Database) -> Resources:
    database.clock = SystemClock()
    return replace(resources, clock=SystemClock(), nudge=Nudge(resources.signals))


def end(node: TestNode, ticket: Ticket, verdict: str) -> None:
    assert node.claim(ticket)["token"]
    assert node.report(ticket.attempt_id, charges={MODEL: verdict}) == "accepted"


def test_the_dispatcher_sends_the_probe_by_itself(client: FlaskClient, resources: Resources) -> None:
    node = TestNode(client, resources).approve()
    submit(resources, new_job(agent_id="bystander"))
    (ticket,) = place_all(resources).tickets
    end(node, ticket, "failed")
    (job_id,) = submit(resources, new_job(needs={"breakers": [MODEL]}))
    dispatcher = Dispatcher(resources)
    thread = threading.Thread(target=dispatcher.run)
    thread.start()
    try:
        wait_until(
            lambda: (job_of(resources, job_id).hold_reason or "").startswith("breaker_open: "), what="a reason to wait"
        )
        wait_until(lambda: job_of(resources, job_id).state == "dispatched", what="the probe")
    finally:
        dispatcher.stop()
        thread.join(10)
        assert not thread.is_alive()

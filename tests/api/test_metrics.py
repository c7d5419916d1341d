"""The metrics page counts what really is."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from coordinator.resources import Resources
from shared.clock import FrozenClock
from tests.factories.fleet import TestNode, new_job, place_all, submit


def values(client: FlaskClient) -> dict[tuple[str, ...], float]:
    """(name, label values…) → value."""
    text = client.get("/metrics").get_data(as_text=True)
    return {
        (sample.name, *(sample.labels[key] for key in sorted(sample.labels) if key != "node_id")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def node(client: FlaskClient, resources: Resources) -> TestNode:
    return TestNode(client, resources, slots=2, name="one").approve()


def test_it_counts_jobs_by_state_and_the_age_of_the_oldest(
    client: FlaskClient, node: TestNode, resources: Resources, clock: FrozenClock
) -> None:
    submit(resources, *(new_job(takes_slot=True, priority=3) for _ in range(4)))
    first, _ = place_all(resources).tickets
    node.claim(first)
    clock.advance(30)
    told = values(client)
    assert told["longshore_queue_depth", "critical"] == 2
    assert told["longshore_queue_depth", "low"] == 0
    assert told["longshore_queue_oldest_seconds",] == 30
    states = {state: told["longshore_jobs", state] for state in ("queued", "dispatched", "running", "cancelling")}
    assert states == {"queued": 2, "dispatched": 1, "running": 1, "cancelling": 0}
    node.report(first.attempt_id)
    assert values(client)["longshore_jobs_ended", "succeeded"] == 1


def test_it_counts_nodes_and_their_places(client: FlaskClient, node: TestNode, resources: Resources) -> None:
    submit(resources, new_job(takes_slot=True))
    place_all(resources)
    told = values(client)
    assert (told["longshore_nodes", "online"], told["longshore_nodes", "offline"]) == (1, 0)
    assert (told["longshore_node_slots", "one"], told["longshore_node_slots_used", "one"]) == (2, 1)


def test_it_tells_how_long_work_waits_for_a_node(
    client: FlaskClient, node: TestNode, resources: Resources, clock: FrozenClock
) -> None:
    submit(resources, new_job())
    clock.advance(3)
    (ticket,) = place_all(resources).tickets
    clock.advance(2)
    node.claim(ticket)
    told = values(client)
    assert told["longshore_placement_seconds", "0.5"] == 3
    assert told["longshore_dispatch_seconds", "0.99"] == 2
    assert told["longshore_attempts_recent", "running"] == 1

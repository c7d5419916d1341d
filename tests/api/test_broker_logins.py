"""Logins of nodes on the broker, from an approval to its end, on a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis as redis_library
from flask.testing import FlaskClient

from coordinator.app import create_app
from coordinator.config import Settings
from coordinator.domains.fleet import broker_access
from coordinator.domains.fleet import service as fleet
from coordinator.resources import Resources, make_resources
from coordinator.signal_line import SignalLine
from shared.clock import FrozenClock
from shared.queue import logins
from shared.queue.broker import Broker, parse_broker
from shared.queue.names import node_queue
from tests.factories.fleet import TestNode
from tests.services.redis import RedisServer

MODEST = "coordinator-without-acl"


@pytest.fixture
def node(client: FlaskClient, resources: Resources) -> TestNode:
    return TestNode(client, resources).approve()


@pytest.fixture
def modest_url(redis: Any, redis_server: RedisServer) -> Iterator[str]:
    """A login that may do what tickets take, and make no logins."""
    redis.execute_command("ACL SETUSER", MODEST, "reset", "on", ">pw", "~*", "&*", "+@all", "-@admin")
    yield f"redis://{MODEST}:pw@127.0.0.1:{redis_server.port}/0"
    redis.execute_command("ACL DELUSER", MODEST)


def told(node: TestNode) -> Broker:
    return parse_broker(node.beat()["broker"])


def decide(resources: Resources, node: TestNode, *, is_approved: bool, **choices: Any) -> None:
    with resources.database.write() as tx:
        fleet.approve(tx, resources, node.id, is_approved=is_approved, by="test", **choices)


def test_an_approved_node_is_given_its_own_login_and_reads_its_queue_with_it(
    node: TestNode, redis: redis_library.Redis, resources: Resources
) -> None:
    reply = node.beat()
    shared = parse_broker(resources.settings.redis_url)
    assert parse_broker(reply["broker"]).username == logins.username_of(node.id)
    assert shared.password not in reply["broker"]
    redis.delete(node_queue(node.id))
    redis.lpush(node_queue(node.id), "ticket")
    with parse_broker(reply["broker"]).client() as own:
        assert own.brpop([node_queue(node.id)], 1) is not None
        with pytest.raises(redis_library.exceptions.NoPermissionError):
            own.keys()


@pytest.mark.parametrize("how", ["rejected", "removed"])
def test_from_the_withdrawal_on_it_can_do_nothing_and_what_was_open_is_closed(
    node: TestNode, redis: redis_library.Redis, resources: Resources, how: str
) -> None:
    with told(node).client() as own:
        waiting = own.connection_pool.get_connection()
        waiting.send_command("BRPOP", node_queue(node.id), "0")
        if how == "rejected":
            decide(resources, node, is_approved=False)
        else:
            with resources.database.write() as tx:
                fleet.remove(tx, resources, node.id)
        with pytest.raises(redis_library.ConnectionError):
            _read_to_the_end(waiting, node)
        with pytest.raises(redis_library.exceptions.AuthenticationError):
            own.ping()
    assert node.id not in logins.known(redis)
    assert not redis.exists(node_queue(node.id))


def test_another_approval_has_another_password_and_a_change_of_labels_has_not(
    node: TestNode, resources: Resources, clock: FrozenClock
) -> None:
    first = told(node)
    decide(resources, node, is_approved=True, labels={"rack": "7"})
    assert told(node) == first
    clock.advance(1)
    decide(resources, node, is_approved=False)
    decide(resources, node, is_approved=True)
    assert told(node).password not in (None, first.password)


def test_of_an_approval_and_a_withdrawal_that_cross_the_later_one_counts(
    node: TestNode, redis: redis_library.Redis, resources: Resources
) -> None:
    decide(resources, node, is_approved=False)
    # What the approval still had to do comes to the broker last.
    broker_access.settle(resources, [node.id])
    assert node.id not in logins.known(redis)


def test_a_broker_that_is_away_postpones_the_login_and_the_node_asks_again_soon(
    client: FlaskClient, resources: Resources, redis: redis_library.Redis
) -> None:
    late = TestNode(client, resources)
    late.beat()
    nobody = redis_library.Redis(port=1)
    away = replace(resources, redis=nobody, signals=SignalLine(nobody, probe_seconds=3600))
    decide(away, late, is_approved=True)
    reply = late.beat()
    assert (reply["is_approved"], reply["broker"]) == (True, None)
    assert reply["heartbeat_seconds"] <= 1
    broker_access.settle(resources, [late.id])
    with told(late).client() as own:
        assert own.ping()


def test_where_the_broker_makes_no_logins_nodes_share_one_and_it_is_said(
    resources: Resources, settings: Settings, modest_url: str
) -> None:
    there = _with(resources, settings.model_copy(update={"redis_url": modest_url}))
    client = create_app(there, check_replies=True).test_client()
    node = TestNode(client, there).approve()
    assert node.beat()["broker"] == modest_url
    assert _view(client, node)["broker_login"] == "shared"
    assert client.get("/health/ready").get_json()["checks"]["redis"] == {
        "ok": True,
        "detail": "makes no logins for nodes: they share one",
    }


def test_nodes_that_must_have_their_own_get_nothing_where_there_is_none(
    resources: Resources, settings: Settings, modest_url: str
) -> None:
    there = _with(resources, settings.model_copy(update={"redis_url": modest_url, "node_broker_logins": "own"}))
    client = create_app(there, check_replies=True).test_client()
    node = TestNode(client, there).approve()
    reply = node.beat()
    assert (reply["broker"], reply["status"]) == (None, "error")
    view = _view(client, node)
    assert view["broker_login"] == "refused"
    assert view["status_reason"] == "the broker makes no login of its own for it, and no other is allowed"


def test_a_shared_login_can_be_wished_for(resources: Resources, settings: Settings, redis: redis_library.Redis) -> None:
    there = _with(resources, settings.model_copy(update={"node_broker_logins": "shared"}))
    client = create_app(there, check_replies=True).test_client()
    node = TestNode(client, there).approve()
    assert node.beat()["broker"] == settings.redis_url
    assert _view(client, node)["broker_login"] == "shared"
    assert node.id not in logins.known(redis)


def _with(resources: Resources, settings: Settings) -> Resources:
    return make_resources(settings, database=resources.database, clock=resources.clock)


def _read_to_the_end(connection: Any, node: TestNode) -> None:
    """Read the queue until the connection breaks: what the node was called with may still come."""
    while connection.read_response() is not None:
        connection.send_command("BRPOP", node_queue(node.id), "0")


def _view(client: FlaskClient, node: TestNode) -> dict[str, Any]:
    answer = client.get(f"/api/v1/workers/{node.id}", headers=node.headers)
    view: dict[str, Any] = answer.get_json()
    return view

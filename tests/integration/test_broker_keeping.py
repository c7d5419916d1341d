"""What the leader does for the broker: logins that come back, canaries, and going on the moment that it answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest
import redis as redis_library
from flask.testing import FlaskClient

from coordinator.app import create_app
from coordinator.config import Settings
from coordinator.dispatcher import Dispatcher
from coordinator.domains.fleet import service as fleet
from coordinator.domains.fleet.canaries import DEAF_AFTER
from coordinator.domains.queue import leadership
from coordinator.resources import Resources, make_resources
from coordinator.store.database import Database
from shared.clock import SystemClock
from shared.ids import new_id
from shared.queue import logins
from shared.queue.names import PING, RUN, node_queue
from tests.factories.fleet import TestNode, job_of, new_job, submit
from tests.services.processes import wait_until
from tests.services.redis import RedisServer

RARELY = 600.0
"""Whatever happens within a test did not wait for this."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    lively = {"leader_seconds": 60.0, "lease_seconds": 60.0, "heartbeat_seconds": 60.0, "unpublished_seconds": 0.1}
    return settings.model_copy(update=lively | {"sweep_seconds": RARELY, "canary_seconds": RARELY})


@pytest.fixture
def resources(settings: Settings, database: Database, redis: redis_library.Redis) -> Iterator[Resources]:
    """With the impatient client that the coordinator has."""
    database.clock = SystemClock()
    made = make_resources(settings, database=database)
    yield made
    made.redis.close()


@pytest.fixture
def client(resources: Resources) -> FlaskClient:
    return create_app(resources, check_replies=True).test_client()


@pytest.fixture
def node(client: FlaskClient, resources: Resources) -> TestNode:
    return TestNode(client, resources).approve()


@contextmanager
def leading(resources: Resources, **changes: Any) -> Iterator[None]:
    settings = resources.settings.model_copy(update=changes)
    dispatcher = Dispatcher(make_resources(settings, database=resources.database, redis=resources.redis))
    thread = threading.Thread(target=dispatcher.run)
    thread.start()
    try:
        wait_until(lambda: _is_led(resources), what="leader")
        yield
    finally:
        dispatcher.stop()
        thread.join(20)
        assert not thread.is_alive()


@contextmanager
def paused(server: RedisServer) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


def test_a_broker_that_was_started_anew_gets_the_logins_at_once(
    resources: Resources, node: TestNode, redis: redis_library.Redis, redis_server: RedisServer
) -> None:
    with leading(resources):
        known = logins.known(redis)
        redis_server.restart()
        wait_until(lambda: logins.known(redis).get(node.id) == known[node.id], what="login of the node")


def test_a_login_that_somebody_took_away_comes_back_and_those_of_another_fleet_are_left_alone(
    resources: Resources, node: TestNode, redis: Any
) -> None:
    stranger = new_id()
    logins.grant(redis, {stranger: "theirs"}, database=0)
    with leading(resources, sweep_seconds=0.1):
        redis.execute_command("ACL DELUSER", logins.username_of(node.id))
        wait_until(lambda: node.id in logins.known(redis), what="login of the node")
    assert stranger in logins.known(redis)


def test_a_node_that_was_cut_off_while_the_broker_hung_is_cut_off_there_too_when_it_answers(
    resources: Resources, node: TestNode, redis: redis_library.Redis, redis_server: RedisServer
) -> None:
    with leading(resources, sweep_seconds=0.1):
        with paused(redis_server), resources.database.write() as tx:
            fleet.approve(tx, resources, node.id, is_approved=False, by="test")
        wait_until(lambda: node.id not in logins.known(redis), what="withdrawal of the login")


def test_nodes_that_were_approved_before_there_were_logins_are_told_theirs_from_the_leader(
    resources: Resources, client: FlaskClient, redis: redis_library.Redis
) -> None:
    shared = make_resources(
        resources.settings.model_copy(update={"node_broker_logins": "shared"}), database=resources.database
    )
    node = TestNode(client, shared).approve()
    assert node.beat()["broker"] == resources.settings.redis_url
    with leading(resources):
        wait_until(lambda: node.id in logins.known(redis), what="login of the node")
        wait_until(lambda: node.beat()["broker"] != resources.settings.redis_url, what="another address")


def test_placement_goes_on_the_moment_the_broker_answers_again(
    resources: Resources, node: TestNode, redis: redis_library.Redis, redis_server: RedisServer
) -> None:
    with leading(resources):
        with paused(redis_server):
            (first,) = submit(resources, new_job())
            wait_until(lambda: resources.signals.is_away, what="the news that the broker is away")
        (second,) = submit(resources, new_job())
        wait_until(lambda: len(set(_on_queue(redis, node, RUN))) == 2, what="two tickets")
        assert {job_of(resources, job_id).state for job_id in (first, second)} == {"dispatched"}


def test_a_broker_that_hangs_holds_up_no_request_but_the_first(resources: Resources, redis_server: RedisServer) -> None:
    took = []
    with paused(redis_server):
        for _ in range(40):
            began = time.monotonic()
            submit(resources, new_job())
            took.append(time.monotonic() - began)
    assert sum(seconds > 0.5 for seconds in took) <= 1, took
    assert resources.signals.wait_back(5)


def test_a_node_that_misses_its_canaries_is_deaf_until_it_hears_again(
    resources: Resources, node: TestNode, redis: redis_library.Redis
) -> None:
    def beat(pings: int) -> dict[str, Any]:
        return node.beat(vitals={"queue": {"pings": pings, "listening_seconds": RARELY + 1}}, queue_ok=True)

    assert beat(7)["status"] == "online"
    with leading(resources, canary_seconds=0.05):
        reply = wait_until(lambda: (told := beat(7))["status"] == "error" and told, what="a deaf node")
        assert reply["restart_consumer"] is True
        submit(resources, new_job())
        assert _on_queue(redis, node, RUN) == []
        assert len(_on_queue(redis, node, PING)) == DEAF_AFTER
        redis.delete(node_queue(node.id))
        wait_until(lambda: _on_queue(redis, node, PING), what="a canary for one that is deaf")
        reply = beat(8)
        assert (reply["status"], reply["restart_consumer"]) == ("online", False)


def _is_led(resources: Resources) -> bool:
    with resources.database.read() as tx:
        return leadership.is_led(tx)


def _on_queue(redis: Any, node: TestNode, kind: str) -> list[str]:
    messages = [orjson.loads(item) for item in redis.lrange(node_queue(node.id), 0, -1)]
    return [message["headers"]["id"] for message in messages if message["headers"]["task"] == kind]

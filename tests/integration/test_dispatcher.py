"""The dispatcher with a real database, a real Redis and real time: jobs become tickets, whatever breaks on the way."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import orjson
import pytest
import redis as redis_library
from flask.testing import FlaskClient

from coordinator.config import Settings
from coordinator.dispatcher import Dispatcher
from coordinator.domains.queue import leadership
from coordinator.domains.queue import service as queue
from coordinator.domains.queue.leadership import NotLeading
from coordinator.domains.queue.models import attempts
from coordinator.domains.queue.relay import Relay
from coordinator.resources import Nudge, Resources
from coordinator.store.database import Database
from shared.clock import FrozenClock, SystemClock
from tests.factories.fleet import TestNode, job_of, new_job, submit
from tests.services.processes import wait_until
from tests.services.redis import RedisServer

BRISK: dict[str, Any] = {
    "sweep_seconds": 0.1,
    "unpublished_seconds": 0.2,
    "republish_seconds": 0.5,
    "leader_seconds": 1.0,
    "lease_seconds": 60.0,
    "heartbeat_seconds": 60.0,
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update=BRISK)


@pytest.fixture
def resources(resources: Resources, database: Database) -> Resources:
    database.clock = SystemClock()
    return replace(resources, clock=SystemClock(), nudge=Nudge(resources.signals))


@pytest.fixture
def node(client: FlaskClient, resources: Resources) -> TestNode:
    return TestNode(client, resources).approve()


@contextmanager
def leading(resources: Resources) -> Iterator[Dispatcher]:
    dispatcher = Dispatcher(resources)
    thread = threading.Thread(target=dispatcher.run)
    thread.start()
    try:
        yield dispatcher
    finally:
        dispatcher.stop()
        thread.join(10)
        assert not thread.is_alive()


def tickets_of(redis: redis_library.Redis, node: TestNode) -> list[str]:
    """Attempt ids on the node's queue, oldest first; nudges are left out."""
    raw: Any = redis.lrange(f"node.{node.id}", 0, -1)
    messages = [orjson.loads(item) for item in reversed(raw)]
    runs = [message for message in messages if message["headers"]["task"] == "agent.run"]
    for message in runs:
        assert orjson.loads(base64.b64decode(message["body"]))[1]["attempt"] == message["headers"]["id"]
    return [message["headers"]["id"] for message in runs]


def test_a_submitted_job_becomes_a_ticket_on_its_nodes_queue(
    resources: Resources, node: TestNode, redis: redis_library.Redis
) -> None:
    with leading(resources):
        (job_id,) = submit(resources, new_job())
        (attempt_id,) = wait_until(lambda: tickets_of(redis, node), what="a ticket")
    assert job_of(resources, job_id).current_attempt_id == attempt_id


def test_an_unclaimed_ticket_is_sent_again_and_then_given_up(
    resources: Resources, node: TestNode, redis: redis_library.Redis
) -> None:
    with leading(resources):
        (job_id,) = submit(resources, new_job())
        wait_until(lambda: len(job_of(resources, job_id).attempts) > 1, what="a second attempt")
        view = job_of(resources, job_id)
        assert view.attempts[0]["state"] == "expired"
        sent = tickets_of(redis, node)
        assert sent.count(view.attempts[0]["id"]) == resources.settings.max_publishes


def test_a_wiped_redis_costs_a_republish_and_no_job(
    resources: Resources, node: TestNode, redis: redis_library.Redis
) -> None:
    with leading(resources):
        (job_id,) = submit(resources, new_job())
        (attempt_id,) = wait_until(lambda: tickets_of(redis, node), what="a ticket")
        redis.flushall()
        wait_until(lambda: tickets_of(redis, node) == [attempt_id], what="the same ticket again")
    assert job_of(resources, job_id).state == "dispatched"


def test_a_crash_between_commit_and_publish_costs_a_sweep_and_no_job(
    resources: Resources, node: TestNode, redis: redis_library.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(resources, new_job())
    monkeypatch.setattr(Relay, "publish", lambda self, batch: True)
    with leading(resources):
        wait_until(lambda: _states(resources) == ["dispatched"], what="a placed job")
    monkeypatch.undo()
    assert not tickets_of(redis, node)
    with leading(resources):
        wait_until(lambda: tickets_of(redis, node), what="the ticket of the crashed leader")


def test_while_the_broker_is_away_work_is_accepted_and_waits(
    resources: Resources, node: TestNode, redis_server: RedisServer, redis: redis_library.Redis
) -> None:
    with leading(resources):
        redis_server.kill()
        try:
            job_ids = submit(resources, *(new_job() for _ in range(3)))
        finally:
            redis_server.restart()
        wait_until(lambda: len(set(tickets_of(redis, node))) == 3, what="three tickets")
    assert {job_of(resources, job_id).state for job_id in job_ids} == {"dispatched"}


def test_two_dispatchers_have_one_leader_and_the_second_follows_at_once(
    resources: Resources, node: TestNode, redis: redis_library.Redis
) -> None:
    with leading(resources):
        submit(resources, new_job())
        wait_until(lambda: tickets_of(redis, node), what="a ticket")
        with leading(resources):
            (second,) = submit(resources, new_job())
            wait_until(lambda: job_of(resources, second).state == "dispatched", what="placement")
            wait_until(lambda: len(tickets_of(redis, node)) == 2, what="its ticket")
    with leading(resources):
        (third,) = submit(resources, new_job())
        wait_until(lambda: job_of(resources, third).state == "dispatched", what="placement by the next leader")


def test_a_term_that_ran_out_is_over_even_if_nobody_else_leads(database: Database, clock: FrozenClock) -> None:
    with database.write() as tx:
        first = leadership.campaign(tx, holder="one", seconds=10)
        assert first is not None
    clock.advance(11)
    for step in (leadership.require, partial(leadership.renew, seconds=10)):
        with pytest.raises(NotLeading), database.write() as tx:
            step(tx, first)
    with database.write() as tx:
        second = leadership.campaign(tx, holder="one", seconds=10)
    assert second is not None
    assert second.since == clock.now()


def test_a_delayed_retry_runs_when_it_is_due(resources: Resources, node: TestNode, redis: redis_library.Redis) -> None:
    with leading(resources):
        (job_id,) = submit(resources, new_job(retry={"max_attempts": 3, "base_seconds": 0.3, "cap_seconds": 0.3}))
        (first,) = wait_until(lambda: tickets_of(redis, node), what="a ticket")
        grants = node.sync(claims=[{"attempt_id": first, "nonce": "the-nonce"}]).get_json()["grants"]
        node.held[first] = grants[0]["token"]
        node.report(first, "failed", error={"code": "X", "message": "x", "retryable": True})
        wait_until(lambda: len(tickets_of(redis, node)) == 2, what="the second try")
    assert job_of(resources, job_id).attempts[1]["number"] == 2


def test_cancelling_running_work_calls_its_node(
    resources: Resources, node: TestNode, redis: redis_library.Redis
) -> None:
    with leading(resources):
        (job_id,) = submit(resources, new_job())
        (first,) = wait_until(lambda: tickets_of(redis, node), what="a ticket")
        node.sync(claims=[{"attempt_id": first, "nonce": "the-nonce"}])
        redis.delete(f"node.{node.id}")
        with resources.database.write() as tx:
            queue.cancel(tx, resources, job_id, by="alice")
    raw: Any = redis.lrange(f"node.{node.id}", 0, -1)
    assert [orjson.loads(item)["headers"]["task"] for item in raw] == ["node.nudge"]


def _states(resources: Resources) -> list[str]:
    with resources.database.read() as tx:
        return [row.state for row in tx.conn.execute(attempts.select())]

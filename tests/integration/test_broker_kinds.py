"""The whole way of a ticket over TLS and through Sentinels: leader, broker, a node's consumer with its own login."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from coordinator.app import create_app
from coordinator.config import Settings
from coordinator.dispatcher import Dispatcher
from coordinator.resources import Resources, make_resources
from coordinator.store.database import Database
from shared.clock import SystemClock
from shared.queue.broker import parse_broker
from shared.queue.consumer import TicketConsumer
from shared.queue.tickets import RunTicket
from tests.factories.fleet import TestNode, job_of, new_job, submit
from tests.services.databases import SqliteSite
from tests.services.redis_kinds import SentinelSite, TlsRedis

BRISK = {"sweep_seconds": 0.2, "unpublished_seconds": 0.2, "republish_seconds": 1.0, "max_publishes": 50}


class Heard(queue.SimpleQueue[str]):
    """A handler that keeps what it is handed."""

    def run(self, ticket: RunTicket, shown: str) -> None:
        self.put(ticket.attempt)

    def nudge(self) -> None:
        """Nobody here has a heart to beat."""

    def ping(self) -> None:
        """Nobody here counts canaries."""


@pytest.fixture
def database_site(sqlite_site: SqliteSite) -> SqliteSite:
    """What is tried here is the broker; one kind of database will do."""
    return sqlite_site


@pytest.fixture
def tls() -> Iterator[TlsRedis]:
    server = TlsRedis()
    yield server
    server.stop()


@pytest.fixture
def sentinel() -> Iterator[SentinelSite]:
    site = SentinelSite()
    yield site
    site.stop()


@contextmanager
def a_fleet_at(url: str, settings: Settings, database: Database) -> Iterator[tuple[Resources, Heard]]:
    """A leader, and one approved node whose consumer came by what its heartbeat was told."""
    database.clock = SystemClock()
    resources = make_resources(settings.model_copy(update={"redis_url": url, **BRISK}), database=database)
    node = TestNode(create_app(resources).test_client(), resources).approve()
    told = node.beat()["broker"]
    assert parse_broker(told).username == f"longshore-node-{node.id}"
    dispatcher, heard, ready = Dispatcher(resources), Heard(), threading.Event()
    leader = threading.Thread(target=dispatcher.run)
    consumer = TicketConsumer(told, node_id=node.id, threads=1, handler=heard, on_ready=ready.set)
    leader.start()
    consumer.start()
    try:
        assert ready.wait(30)
        yield resources, heard
    finally:
        dispatcher.stop()
        leader.join(20)
        assert consumer.stop()
        assert consumer.join(20)
        resources.redis.close()


def is_sent(resources: Resources, heard: Heard) -> bool:
    """Whether a new job's ticket arrives; what came before is passed over."""
    (job_id,) = submit(resources, new_job())
    while True:
        attempt = heard.get(timeout=60)
        if job_of(resources, job_id).current_attempt_id == attempt:
            return True


def test_tickets_travel_over_tls(tls: TlsRedis, settings: Settings, database: Database) -> None:
    with a_fleet_at(tls.url(), settings, database) as (resources, heard):
        assert is_sent(resources, heard)


def test_a_certificate_of_an_authority_that_nobody_trusts_is_refused(tls: TlsRedis) -> None:
    with (
        parse_broker(tls.url_without_authority()).client() as client,
        pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        client.ping()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:\\s*In Celery 5.1:PendingDeprecationWarning")
def test_tickets_find_the_new_master_after_a_failover(
    sentinel: SentinelSite, settings: Settings, database: Database
) -> None:
    with a_fleet_at(sentinel.url(), settings, database) as (resources, heard):
        assert is_sent(resources, heard)
        sentinel.fail_over()
        # The new master knew no login of any node until the leader found out.
        assert is_sent(resources, heard)

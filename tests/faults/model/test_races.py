"""Races that schedules found, each in its smallest form: two requests on PostgreSQL, one waits for the other's lock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from flask.testing import FlaskClient

from coordinator.domains.queue import service as queue
from coordinator.resources import Resources
from coordinator.store.database import Transaction
from shared.contracts.node import Sync, SyncReply
from tests.factories.fleet import TestNode, new_job, place_all, submit
from tests.faults.model.reader import Reader
from tests.services.databases import PostgresSite
from tests.services.processes import wait_until

T = TypeVar("T")


@pytest.fixture(params=["postgresql"])
def database_site(postgres_site: PostgresSite) -> PostgresSite:
    """The one where writers overlap."""
    return postgres_site


@pytest.fixture
def reader(database_site: PostgresSite) -> Iterator[Reader]:
    with Reader(database_site.database.url) as found:
        yield found


def sync_twice(resources: Resources, reader: Reader, node: TestNode, **body: Any) -> tuple[SyncReply, SyncReply]:
    """The answers to one request that came twice: the second one waits until the first has committed."""

    def ask(tx: Transaction) -> SyncReply:
        return queue.sync(tx, resources, node_id=node.id, request=Sync(node.epoch, **body))

    return twice(resources, reader, ask)


def twice(resources: Resources, reader: Reader, ask: Callable[[Transaction], T]) -> tuple[T, T]:
    """What `ask` answers in two transactions, of which the second waits until the first has committed."""
    answers: list[T] = []

    def act(tx: Transaction) -> None:
        answers.append(ask(tx))

    with resources.database.write() as first:
        act(first)
        second = _Beside(resources, act)
        wait_until(lambda: second.backend and reader.blockers(second.backend), what="a second request that waits")
    second.join()
    return answers[0], answers[1]


class _Beside:
    """Something done in a transaction of its own, on a thread of its own."""

    def __init__(self, resources: Resources, act: Callable[[Transaction], None]) -> None:
        self.backend = 0
        self._resources, self._act = resources, act
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def join(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with self._resources.database.write() as tx:
            driver: Any = tx.conn.connection.dbapi_connection
            self.backend = driver.info.backend_pid
            self._act(tx)


def test_a_claim_that_comes_again_while_the_first_is_decided_gets_the_same_grant(
    client: FlaskClient, resources: Resources, reader: Reader
) -> None:
    node = TestNode(client, resources).approve()
    submit(resources, new_job())
    (ticket,) = place_all(resources).tickets

    first, second = sync_twice(resources, reader, node, claims=[{"attempt_id": ticket.attempt_id, "nonce": "one"}])

    assert first.grants[0]["token"]
    assert second.grants == first.grants


def test_a_report_that_comes_again_while_the_first_is_decided_is_accepted_too(
    client: FlaskClient, resources: Resources, reader: Reader
) -> None:
    node = TestNode(client, resources).approve()
    submit(resources, new_job())
    (ticket,) = place_all(resources).tickets
    token = node.claim(ticket)["token"]
    report = {"attempt_id": ticket.attempt_id, "token": token, "outcome": "succeeded", "digest": "d" * 64}

    first, second = sync_twice(resources, reader, node, reports=[report])

    assert first.reports == second.reports == {ticket.attempt_id: "accepted"}


def test_lines_that_come_again_while_the_first_are_stored_are_stored_once(
    client: FlaskClient, resources: Resources, reader: Reader
) -> None:
    node = TestNode(client, resources).approve()
    submit(resources, new_job())
    (ticket,) = place_all(resources).tickets
    spoken = {"attempt_id": ticket.attempt_id, "token": node.claim(ticket)["token"], "stream": "stdout"}
    lines = [spoken | {"offset": number, "level": "info", "message": f"line {number}"} for number in range(3)]

    first, second = twice(resources, reader, lambda tx: queue.store_lines(tx, node_id=node.id, lines=lines))

    assert first == (3, [])
    assert second == (0, [])

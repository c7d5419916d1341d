"""Following events and timelines inside one process: nothing lost, nothing twice, and no waiting in vain."""

from __future__ import annotations

import queue as queues
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from coordinator.domains.live import service
from coordinator.domains.live.follower import Follower
from coordinator.domains.live.words import Told
from coordinator.domains.queue import moves
from coordinator.domains.queue import service as queue
from coordinator.domains.queue.service import JobEvent
from coordinator.http.slice import routes
from coordinator.resources import Bell, Resources, connect_redis
from coordinator.signal_line import SignalLine
from coordinator.store.database import Transaction
from shared.errors import Unavailable
from shared.ids import new_id
from shared.queue.names import LIVE_CHANNEL
from tests.factories.fleet import new_job
from tests.factories.fleet import submit as submit_jobs
from tests.factories.people import credentials_of, make_person
from tests.services.ports import free_port
from tests.services.processes import wait_until
from tests.services.web import HANDSHAKE


def submit(resources: Resources) -> str:
    (job_id,) = submit_jobs(resources, new_job(agent_id=new_id()))
    return job_id


def emit(tx: Transaction, mark: Any) -> None:
    queue.emit(tx, "system.alert", space="default", subject_id=None, data={"mark": mark})


class Heard:
    """Collects what a follower tells."""

    def __init__(self) -> None:
        self._items: queues.SimpleQueue[Any] = queues.SimpleQueue()

    def events(self, news: Sequence[Told]) -> None:
        for told in news:
            self._items.put(told.event.data["mark"])

    def lines(self, news: Sequence[JobEvent]) -> None:
        for line in news:
            self._items.put(line.type)

    def next(self) -> Any:
        return self._items.get(timeout=15)

    @property
    def is_empty(self) -> bool:
        return self._items.empty()


@pytest.fixture
def follower(resources: Resources) -> Iterator[Follower]:
    made = Follower(resources)
    yield made
    made.stop()


# SQLite has one writer at a time: its ids commit in order.
on_postgresql = pytest.mark.parametrize("database_site", ["postgresql"], indirect=True)


class TestFollower:
    def test_events_are_told_from_now_on(self, follower: Follower, resources: Resources) -> None:
        with resources.database.write() as tx:
            emit(tx, "before")
        heard = Heard()
        leave = follower.watch_events(heard.events)
        with resources.database.write() as tx:
            emit(tx, 1)
            emit(tx, 2)
        assert [heard.next(), heard.next()] == [1, 2]
        leave()

    @on_postgresql
    def test_an_event_that_commits_after_a_greater_id_is_told_too(
        self, follower: Follower, resources: Resources
    ) -> None:
        heard = Heard()
        leave = follower.watch_events(heard.events)
        with resources.database.write() as slow:
            emit(slow, "slow")
            with resources.database.write() as quick:
                emit(quick, "quick")
            assert heard.next() == "quick"
        assert heard.next() == "slow"
        with resources.database.write() as tx:
            emit(tx, "last")
        assert heard.next() == "last"
        assert heard.is_empty
        leave()

    @on_postgresql
    def test_an_event_in_the_making_when_following_began_is_told(
        self, follower: Follower, resources: Resources
    ) -> None:
        with resources.database.write() as tx:
            emit(tx, "before")
        heard = Heard()
        with resources.database.write() as slow:
            emit(slow, "slow")
            with resources.database.write() as quick:
                emit(quick, "quick, but before anybody listened")
            leave = follower.watch_events(heard.events)
        assert heard.next() == "slow"
        leave()

    def test_a_timeline_is_told_behind_each_watchers_place(self, follower: Follower, resources: Resources) -> None:
        job_id = submit(resources)
        with resources.database.read() as tx:
            (first,) = queue.events_after(tx, job_id, 0, 10)
        late, early = Heard(), Heard()
        leave_late = follower.watch_job(job_id, first.id, late.lines)
        leave_early = follower.watch_job(job_id, 0, early.lines)
        assert early.next() == "job.queued"
        with resources.database.write() as tx:
            queue.cancel(tx, resources, job_id, by=None)
        assert early.next() == "job.cancelled"
        while late.next() != "job.cancelled":
            pass
        leave_late()
        leave_early()

    def test_a_place_far_ahead_keeps_nobody_else_from_the_news(self, follower: Follower, resources: Resources) -> None:
        job_id = submit(resources)
        heard, ahead = Heard(), Heard()
        leave_ahead = follower.watch_job(job_id, 2**53, ahead.lines)
        leave = follower.watch_job(job_id, 0, heard.lines)
        assert heard.next() == "job.queued"
        with resources.database.write() as tx:
            queue.cancel(tx, resources, job_id, by=None)
        assert heard.next() == "job.cancelled"
        leave()
        leave_ahead()

    def test_without_redis_news_comes_by_looking(self, resources: Resources) -> None:
        alone = replace(resources, redis=connect_redis(f"redis://127.0.0.1:{free_port()}/0"))
        heard, follower = Heard(), Follower(alone)
        leave = follower.watch_events(heard.events)
        began = time.monotonic()
        with resources.database.write() as tx:
            emit(tx, 1)
        assert heard.next() == 1
        assert time.monotonic() - began < 3
        leave()
        follower.stop()
        alone.redis.close()


def fail_in_a_transaction(resources: Resources) -> None:
    with resources.database.write() as tx:
        emit(tx, 3)
        raise RuntimeError


class TestBell:
    def test_a_commit_rings_once_and_a_rollback_not_at_all(self, resources: Resources) -> None:
        rung: list[int] = []
        resources.database.bell, before = lambda: rung.append(1), resources.database.bell
        try:
            with resources.database.write() as tx:
                emit(tx, 1)
                emit(tx, 2)
                assert rung == []
            assert rung == [1]
            with pytest.raises(RuntimeError):
                fail_in_a_transaction(resources)
            assert rung == [1]
        finally:
            resources.database.bell = before

    def test_it_falls_silent_for_a_while_when_nobody_hears(self, resources: Resources) -> None:
        calls: list[str] = []

        class Wire:
            def publish(self, channel: str, _message: bytes) -> int:
                calls.append(channel)
                return 0 if len(calls) < 2 else 1

        bell = Bell(SignalLine(Wire()))  # type: ignore[arg-type]
        bell()
        bell()
        assert calls == [LIVE_CHANNEL]
        bell._silent_until = 0.0
        bell()
        bell()
        assert calls == [LIVE_CHANNEL] * 3


class TestWaiting:
    def test_news_ends_the_wait(self, resources: Resources) -> None:
        job_id = submit(resources)
        with resources.database.read() as tx:
            (first,) = queue.events_after(tx, job_id, 0, 10)

        def cancel() -> None:
            with resources.database.write() as tx:
                queue.cancel(tx, resources, job_id, by=None)

        canceller = threading.Timer(0.2, cancel)
        canceller.start()
        found = service.wait_for_events(resources, job_id, first.id, 10, 20)
        canceller.join()
        assert [line.type for line in found] == ["job.cancelled"]

    def test_what_is_there_is_not_waited_for(self, resources: Resources) -> None:
        job_id = submit(resources)
        assert [line.type for line in service.wait_for_events(resources, job_id, 0, 10, 20)] == ["job.queued"]

    def test_an_ended_job_is_not_waited_for(self, resources: Resources) -> None:
        job_id = submit(resources)
        with resources.database.write() as tx:
            queue.cancel(tx, resources, job_id, by=None)
        began = time.monotonic()
        assert service.wait_for_events(resources, job_id, 2**40, 10, 20) == []
        assert time.monotonic() - began < 10

    def test_time_ends_the_wait(self, resources: Resources) -> None:
        job_id = submit(resources)
        with resources.database.read() as tx:
            (first,) = queue.events_after(tx, job_id, 0, 10)
        assert service.wait_for_news(resources, job_id, first.id, 0.2) >= 0.2

    def test_too_many_are_asked_to_come_again(self, resources: Resources) -> None:
        small = replace(
            resources, settings=resources.settings.model_copy(update={"web_threads": 4, "live_reserved_threads": 3})
        )
        job_id = submit(resources)
        with service._place(small), pytest.raises(Unavailable) as caught:
            service.wait_for_news(small, job_id, 0, 1)
        assert caught.value.details["retry_after_seconds"] == 1


class TestHandshake:
    @pytest.mark.parametrize(
        ("changes", "status"),
        [
            ({"Authorization": "Bearer wrong"}, 401),
            ({"Authorization": "Basic wrong"}, 401),
            ({"Origin": "https://elsewhere.example"}, 403),
            ({"Sec-WebSocket-Version": "12"}, 400),
            ({"Sec-WebSocket-Key": None}, 400),
            ({"Upgrade": None}, 400),
            ({"Connection": None}, 400),
        ],
    )
    def test_what_is_wrong_is_told_before_anything_is_opened(
        self, client: FlaskClient, changes: dict[str, str | None], status: int
    ) -> None:
        headers = {name: value for name, value in (HANDSHAKE | changes).items() if value is not None}
        answer = client.get("/api/v1/ws", headers=headers)
        assert (answer.status_code, "code" in answer.get_json()["error"]) == (status, True)

    def test_a_server_that_cannot_carry_sockets_says_so_and_nobody_is_left_listening(
        self, app: Flask, client: FlaskClient, resources: Resources
    ) -> None:
        headers = HANDSHAKE | credentials_of(app, make_person(resources.database))
        assert client.get("/api/v1/ws", headers=headers).status_code == 503
        assert client.get("/v1/ws", headers=headers).status_code == 503

    def test_the_route_table_shows_the_sockets_with_their_rights(self, app: Flask) -> None:
        shown = {(line.method, line.path): line.right for line in routes(app) if line.method == "WS"}
        assert shown == {
            ("WS", "/api/v1/ws"): ("agents:get or circuit_breakers:get or executions:get or tasks:get or workers:get"),
            ("WS", "/api/v1/executions/<id:execution_id>/stream"): "executions:get",
            ("WS", "/api/v1/tasks/<id:task_id>/stream"): "tasks:get",
        }


def test_who_joins_in_the_middle_of_a_look_is_told_from_the_beginning(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit(resources)
    with resources.database.write() as tx:
        line = {"job_id": job_id, "at": tx.now, "type": "log", "level": "info", "message": "x", "data": {}}
        moves.tell(tx, [line] * 5)
    with resources.database.read() as tx:
        ids = [row.id for row in queue.events_after(tx, job_id, 0, 10)]
    follower, joined = Follower(resources), threading.Event()
    late: list[JobEvent] = []
    timelines_beyond = queue.timelines_beyond

    def read(tx: Transaction, places: Mapping[str, int], limit: int) -> list[JobEvent]:
        rows = timelines_beyond(tx, places, limit)
        if rows and not joined.is_set():
            joined.set()
            follower.watch_job(job_id, 0, late.extend)
        return rows

    monkeypatch.setattr(queue, "timelines_beyond", read)
    follower.watch_job(job_id, ids[2], lambda rows: None)
    try:
        wait_until(lambda: len(late) >= len(ids), what="the whole timeline")
    finally:
        follower.stop()
    assert [row.id for row in late][: len(ids)] == ids

"""How much may wait: beyond it work is refused before any of it is accepted, and taken again once there is room."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event

from coordinator.config import Settings
from coordinator.domains.queue import admission
from coordinator.domains.queue.admission import Limit, counting
from coordinator.domains.queue.service import submit
from coordinator.resources import Resources
from coordinator.store.database import Database
from shared.clock import FrozenClock
from shared.errors import LimitReached
from tests.factories.fleet import TestNode, new_job
from tests.factories.work import Person, refused, run_one, told


@pytest.fixture
def limits(request: pytest.FixtureRequest) -> dict[str, int]:
    given: dict[str, int] = getattr(request, "param", {"queue_max_waiting": 3})
    return given


@pytest.fixture
def settings(settings: Settings, limits: dict[str, int]) -> Settings:
    return settings.model_copy(update=limits)


@pytest.fixture
def operator(app: Flask, resources: Resources) -> Person:
    return Person.make(app, resources)


@pytest.fixture
def node(client: FlaskClient, resources: Resources) -> TestNode:
    return TestNode(client, resources, slots=1).approve()


def tasks_of(operator: Person) -> int:
    total: int = told(operator.get("/tasks"))["pagination"]["total"]
    return total


class TestTheQueue:
    def test_what_would_go_beyond_is_refused_with_the_figures(self, operator: Person) -> None:
        for _ in range(3):
            operator.task()
        answer = operator.post("/tasks", {"title": "one too many"})
        error = refused(answer, 429)
        assert (error["code"], error["which"], error["limit"], error["waiting"]) == ("RATE_LIMIT_ERROR", "queue", 3, 3)
        assert int(answer.headers["Retry-After"]) >= 1
        assert tasks_of(operator) == 3

    def test_it_accepts_again_once_there_is_room(self, operator: Person, node: TestNode, resources: Resources) -> None:
        agent = operator.agent()
        for _ in range(3):
            operator.task(agent_id=agent["id"])
        refused(operator.post("/tasks", {"title": "later"}), 429)
        run_one(resources, node)
        told(operator.post("/tasks", {"title": "later"}), 201)
        refused(operator.post("/tasks", {"title": "too many again"}), 429)

    def test_many_at_once_are_accepted_or_refused_as_a_whole(self, operator: Person) -> None:
        refused(operator.post("/tasks/bulk", {"tasks": [{"title": str(number)} for number in range(4)]}), 429)
        assert tasks_of(operator) == 0
        answer = told(operator.post("/tasks/bulk", {"tasks": [{"title": str(number)} for number in range(3)]}))
        assert answer["created"] == 3

    def test_executions_count_as_well(self, operator: Person) -> None:
        agent = operator.agent()
        for _ in range(3):
            operator.execution(agent["id"])
        refused(operator.post(f"/agents/{agent['id']}/execute", {"input": {"command": "true"}}), 429)

    def test_a_refusal_is_not_kept_for_its_idempotency_key(self, operator: Person) -> None:
        first = operator.task()
        for _ in range(2):
            operator.task()
        headers = {"Idempotency-Key": "the-same"}
        refused(operator.post("/tasks", {"title": "again"}, headers=headers), 429)
        told(operator.post(f"/tasks/{first['id']}/cancel"))
        told(operator.post("/tasks", {"title": "again"}, headers=headers), 201)


@pytest.mark.parametrize("limits", [{"space_max_waiting": 2}], indirect=True)
class TestASpace:
    def test_others_have_their_own_room(self, operator: Person, resources: Resources) -> None:
        for _ in range(2):
            operator.task()
        error = refused(operator.post("/tasks", {"title": "no"}), 429)
        assert (error["which"], error["subject"], error["limit"]) == ("space", "default", 2)
        accept(resources, 2, space="other")
        with pytest.raises(LimitReached):
            accept(resources, space="other")


@pytest.mark.parametrize("limits", [{"agent_max_waiting": 2}], indirect=True)
class TestAnAgent:
    def test_others_have_their_own_room_and_work_without_an_agent_is_free(self, operator: Person) -> None:
        first, second = operator.agent(name="first"), operator.agent(name="second")
        for _ in range(2):
            operator.task(agent_id=first["id"])
        body = {"title": "no", "instructions": "true"}
        error = refused(operator.post("/tasks", body | {"agent_id": first["id"]}), 429)
        assert (error["which"], error["subject"], error["waiting"]) == ("agent", first["id"], 2)
        told(operator.post("/tasks", body | {"agent_id": second["id"]}), 201)
        told(operator.post("/tasks", body), 201)


@contextmanager
def counts_in(database: Database) -> Iterator[list[str]]:
    """The statements that count what waits, as they are run."""
    seen: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith("SELECT count(*)"):
            seen.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


def accept(resources: Resources, count: int = 1, *, space: str = "default") -> None:
    with resources.database.write() as tx:
        submit(tx, resources, [new_job(agent_id=None, space=space) for _ in range(count)])


class TestWhatItCosts:
    @pytest.mark.parametrize("limits", [{"queue_max_waiting": 1000}], indirect=True)
    def test_far_from_the_limit_one_count_serves_many_requests(self, resources: Resources, database: Database) -> None:
        with counts_in(database) as seen:
            for _ in range(20):
                accept(resources)
        assert len(seen) == 1

    @pytest.mark.parametrize("limits", [{"queue_max_waiting": 1000}], indirect=True)
    def test_a_count_grows_old(self, resources: Resources, database: Database, clock: FrozenClock) -> None:
        with counts_in(database) as seen:
            accept(resources)
            clock.advance(admission.STALE_SECONDS + 1)
            accept(resources)
        assert len(seen) == 2

    @pytest.mark.parametrize("limits", [{"queue_max_waiting": 8}], indirect=True)
    def test_where_much_waits_the_limit_holds_between_the_counts(
        self, resources: Resources, database: Database, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(admission, "EXACT_BELOW", 1)
        monkeypatch.setattr(admission, "ENTRIES_PER_SECOND", 4)
        accept(resources, 4)
        clock.advance(100)
        with counts_in(database) as seen:
            for _ in range(4):
                accept(resources)
            with pytest.raises(LimitReached):
                accept(resources)
            assert len(seen) == 1
            clock.advance(1)
            with pytest.raises(LimitReached):
                accept(resources)
        assert len(seen) == 2

    @pytest.mark.parametrize("limit", [Limit("queue", "", 9), Limit("space", "a", 9), Limit("agent", "a", 9)], ids=str)
    def test_an_index_is_counted_and_not_the_table(self, database: Database, limit: Limit) -> None:
        plan = plan_of(database, counting(limit))
        assert re.search(r"(?i)using (covering )?(index )?ix_jobs_", plan), plan


def plan_of(database: Database, statement: Any) -> str:
    """How the database would run it, with the reasons to prefer whole tables taken away: test tables are tiny."""
    text = str(statement.compile(database.engine, compile_kwargs={"literal_binds": True}))
    with database.read() as tx:
        if not database.is_sqlite:
            tx.conn.exec_driver_sql("SET LOCAL enable_seqscan = off")
            tx.conn.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
        explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
        return "\n".join(str(row[-1]) for row in tx.conn.exec_driver_sql(explain + text.replace("%", "%%"))) + "\n"


def test_a_kind_of_job_that_no_limit_counts_is_no_kind(resources: Resources) -> None:
    with resources.database.write() as tx, pytest.raises(ValueError, match="not kinds of jobs"):
        submit(tx, resources, [new_job(kind="surprise")])

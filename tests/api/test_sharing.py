"""The order in which waiting work gets places, and what holds it back: priorities, turns between agents, limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, insert, select

from coordinator.domains.fleet import service as fleet
from coordinator.domains.queue import service as queue
from coordinator.domains.queue import store, waiting
from coordinator.domains.queue.models import demands, jobs
from coordinator.domains.queue.placing import Placed, Ticket, place
from coordinator.resources import Resources
from coordinator.store.database import Database
from coordinator.upkeep.deadlines import expire_overdue
from shared.clock import FrozenClock, rfc3339
from shared.ids import new_id
from shared.policy.fairness import Sharing
from tests.factories.fleet import TestNode, job_of, new_job, place_all, submit
from tests.factories.work import Person, told

LOW, MEDIUM, CRITICAL = 0, 1, 3
AGING = 300.0


@pytest.fixture
def node(client: FlaskClient, resources: Resources) -> TestNode:
    return TestNode(client, resources, slots=2, light_slots=2).approve()


def place_with(resources: Resources, sharing: Sharing, *, batch: int = 100) -> Placed:
    with resources.database.write() as tx:
        return place(tx, fleet.facts(tx), batch=batch, sharing=sharing)


def finish(node: TestNode, tickets: Sequence[Ticket]) -> None:
    for ticket in tickets:
        node.claim(ticket)
        assert node.report(ticket.attempt_id) == "accepted"


class TestPriority:
    def test_low_work_is_served_under_an_endless_stream_of_critical_work(
        self, node: TestNode, resources: Resources, clock: FrozenClock
    ) -> None:
        (low,) = submit(resources, new_job(priority=LOW))
        waited = 0.0
        while job_of(resources, low).state == "queued":
            assert waited <= 3 * AGING + 60
            submit(resources, *(new_job(priority=CRITICAL) for _ in range(2)))
            finish(node, place_all(resources).tickets)
            clock.advance(60)
            waited += 60
        assert waited >= 3 * AGING - 60

    def test_an_amended_priority_changes_the_place_in_line(self, node: TestNode, resources: Resources) -> None:
        first, second, third = submit(resources, new_job(), new_job(), new_job())
        with resources.database.write() as tx:
            queue.amend(tx, resources, third, priority=CRITICAL)
        placed = [ticket.job_id for ticket in place_all(resources).tickets]
        assert placed == [third, first]
        assert job_of(resources, second).state == "queued"

    def test_a_job_that_is_tried_again_keeps_its_place_in_line(
        self, node: TestNode, resources: Resources, clock: FrozenClock
    ) -> None:
        (old,) = submit(resources, new_job(retry={"max_attempts": 3, "base_seconds": 0}))
        (ticket,) = place_all(resources).tickets
        clock.advance(10)
        submit(resources, *(new_job() for _ in range(3)))
        node.claim(ticket)
        node.report(ticket.attempt_id, "failed", error={"code": "EXIT_NONZERO", "message": "1", "retryable": True})
        clock.advance(1)
        assert place_all(resources).tickets[0].job_id == old

    def test_tasks_that_want_an_agent_are_looked_at_in_the_same_order(
        self, resources: Resources, database: Database, clock: FrozenClock
    ) -> None:
        (old,) = submit(resources, new_job(agent_id=None, priority=LOW))
        clock.advance(3 * AGING + 1)
        new, middling = submit(
            resources, new_job(agent_id=None, priority=CRITICAL), new_job(agent_id=None, priority=MEDIUM)
        )
        with resources.database.read() as tx:
            first = queue.unassigned(tx, 1)
            rest = queue.unassigned(tx, 5, after=first[0])
        assert [job.id for job in (*first, *rest)] == [old, new, middling]


class TestTurns:
    def test_a_few_new_jobs_are_placed_among_a_large_old_backlog(
        self, node: TestNode, resources: Resources, clock: FrozenClock
    ) -> None:
        sharing = Sharing()
        submit(resources, *(new_job(agent_id="hoarder") for _ in range(60)))
        finish(node, place_with(resources, sharing).tickets)
        clock.advance(3600)
        theirs = set(submit(resources, *(new_job(agent_id="guest") for _ in range(5))))
        placed: list[str] = []
        for _ in range(6):
            tickets = place_with(resources, sharing).tickets
            placed += [ticket.job_id for ticket in tickets]
            finish(node, tickets)
            clock.advance(1)
        assert theirs <= set(placed)
        assert len(placed) == 12

    def test_two_agents_share_the_places_of_one_round(self, node: TestNode, resources: Resources) -> None:
        submit(resources, *(new_job(agent_id="one") for _ in range(5)))
        submit(resources, *(new_job(agent_id="two") for _ in range(5)))
        owners = Counter(job_of(resources, ticket.job_id).agent_id for ticket in place_all(resources).tickets)
        assert owners == {"one": 1, "two": 1}

    def test_an_agent_that_holds_places_lets_others_go_first(
        self, client: FlaskClient, resources: Resources, clock: FrozenClock
    ) -> None:
        TestNode(client, resources, slots=4).approve()
        submit(resources, *(new_job(agent_id="one", takes_slot=True) for _ in range(2)))
        place_all(resources)
        submit(resources, *(new_job(agent_id="one", takes_slot=True) for _ in range(2)))
        clock.advance(5)
        theirs = submit(resources, *(new_job(agent_id="two", takes_slot=True) for _ in range(2)))
        assert sorted(ticket.job_id for ticket in place_all(resources).tickets) == sorted(theirs)

    def test_many_agents_are_served_in_windows_and_none_is_left_over(
        self, client: FlaskClient, resources: Resources
    ) -> None:
        TestNode(client, resources, slots=1, light_slots=500).approve()
        submit(resources, *(new_job(agent_id=f"agent-{n % 3}") for n in range(150)))
        placed = place_all(resources, batch=60)
        assert (len(placed.tickets), placed.is_full_batch) == (60, True)
        assert (
            Counter(job_of(resources, ticket.job_id).agent_id for ticket in placed.tickets).most_common(1)[0][1] == 20
        )
        rest = [place_all(resources, batch=60) for _ in range(3)]
        assert sum(len(each.tickets) for each in rest) == 90
        assert not rest[-1].is_full_batch


class TestLimits:
    def test_an_agent_at_its_limit_says_so_until_it_has_room(
        self, app: Flask, node: TestNode, resources: Resources
    ) -> None:
        operator = Person.make(app, resources)
        agent = operator.agent(max_concurrent_tasks=1)
        first, second = operator.task(agent_id=agent["id"]), operator.task(agent_id=agent["id"])
        (ticket,) = place_all(resources).tickets
        held = told(operator.get(f"/tasks/{second['id']}"))["hold_reason"]
        assert held == "agent_limit: its agent runs as many jobs at a time as it may (1)"
        listed = {each["id"]: each["hold_reason"] for each in told(operator.get("/tasks"))["tasks"]}
        assert listed == {first["id"]: None, second["id"]: held}
        finish(node, [ticket])
        place_all(resources)
        assert told(operator.get(f"/tasks/{second['id']}"))["hold_reason"] is None

    def test_a_space_at_its_limit_says_so_and_others_go_on(self, node: TestNode, resources: Resources) -> None:
        sharing = Sharing(space_max_active=1)
        crowd = submit(resources, *(new_job(agent_id="one", space="crowd") for _ in range(3)))
        (other,) = submit(resources, new_job(agent_id="two", space="calm"))
        placed = [ticket.job_id for ticket in place_with(resources, sharing).tickets]
        assert sorted(placed) == sorted([crowd[0], other])
        assert not place_with(resources, sharing).tickets
        reason = job_of(resources, crowd[1]).hold_reason
        assert reason == "space_limit: space crowd runs as many jobs at a time as it may (1)"

    def test_a_limit_of_a_space_holds_over_all_its_agents(self, node: TestNode, resources: Resources) -> None:
        submit(resources, *(new_job(agent_id=f"agent-{n}") for n in range(3)))
        assert len(place_with(resources, Sharing(space_max_active=1)).tickets) == 1

    def test_a_full_fleet_is_a_reason_too(self, node: TestNode, resources: Resources) -> None:
        submitted = submit(resources, *(new_job() for _ in range(3)))
        tickets = place_all(resources).tickets
        assert job_of(resources, submitted[2]).hold_reason == "no_room: every node that fits is full"
        finish(node, tickets)
        place_all(resources)
        assert job_of(resources, submitted[2]).state == "dispatched"

    def test_a_reason_that_is_told_is_not_told_again(self, node: TestNode, resources: Resources) -> None:
        submit(resources, *(new_job() for _ in range(3)))
        place_all(resources)
        with resources.database.read() as tx:
            before = waiting.wishes(tx)
        place_all(resources)
        with resources.database.read() as tx:
            assert waiting.wishes(tx) == before
            assert before[0].told_hold == "no_room: every node that fits is full"


def test_work_that_waited_beyond_its_deadline_tells_so(app: Flask, resources: Resources, clock: FrozenClock) -> None:
    operator = Person.make(app, resources)
    task = operator.task(deadline=rfc3339(clock.now() + timedelta(minutes=1)))
    clock.advance(61)
    with resources.database.write() as tx:
        assert expire_overdue(tx, resources) == 1
    shown = told(operator.get(f"/tasks/{task['id']}"))
    assert (shown["status"], shown["reason_code"], shown["hold_reason"]) == ("failed", "deadline_exceeded", None)
    assert shown["error"]["code"] == "DEADLINE_EXCEEDED"
    assert shown["error"]["message"] == "the deadline passed before the work was done"
    assert told(operator.get("/tasks"))["tasks"][0]["error"] == shown["error"]


WAITING = 30_000


class TestTheWayItIsRead:
    """A page of waiting work is read from its index in order, however much waits: nothing is sorted."""

    @pytest.fixture
    def crowd(self, resources: Resources, database: Database) -> str:
        demand = store.Demand.of("agent-1", {}, space="default", takes_slot=False)
        with resources.database.write() as tx:
            store.ensure_demands(tx, [demand])
            tx.conn.execute(insert(jobs), [_waiting(tx.now, demand.id, number) for number in range(WAITING)])
        if not database.is_sqlite:
            with database.engine.connect() as conn:
                conn.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("ANALYZE jobs")
        return demand.id

    def test_the_first_of_a_line(self, crowd: str, database: Database) -> None:
        told_plan = plan(database, waiting.HEADS, {"demand": crowd, "most": 257})
        assert "ix_jobs_ready" in told_plan
        assert_in_order(told_plan)

    def test_the_first_that_want_an_agent(self, crowd: str, database: Database) -> None:
        told_plan = plan(database, store.WITHOUT_AGENT.order_by(jobs.c.rank, jobs.c.id).limit(100), {})
        assert "ix_jobs_unassigned" in told_plan
        assert_in_order(told_plan)

    def test_whether_anything_waits_at_all(self, crowd: str, database: Database) -> None:
        told_plan = plan(database, waiting.WISHES, {})
        assert "ix_jobs_ready" in told_plan
        assert "Seq Scan on jobs" not in told_plan
        with database.read() as tx:
            assert tx.conn.scalar(select(func.count()).select_from(demands)) == 1


def _waiting(now: Any, demand: str, number: int) -> dict[str, Any]:
    agent = None if number % 2 else "agent-1"
    return {
        "id": new_id(),
        "space": "default",
        "kind": "task",
        "agent_id": agent,
        "demand_id": demand if agent else None,
        "priority": number % 4,
        "rank": number * 7919 % WAITING,
        "state": "queued",
        "spec": {},
        "retry": {},
        "generation": 1,
        "attempts_made": 0,
        "fail_count": 0,
        "infra_count": 0,
        "created_at": now,
        "updated_at": now,
    }


def plan(database: Database, statement: Any, values: dict[str, Any]) -> str:
    with database.read() as tx:
        given = {"now": tx.now} | values
        known = {name: value for name, value in given.items() if name in statement.compile().params}
        text = str(statement.params(**known).compile(tx.conn, compile_kwargs={"literal_binds": True}))
        explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
        return "\n".join(str(row[-1]) for row in tx.conn.exec_driver_sql(explain + text.replace("%", "%%")))


def assert_in_order(told_plan: str) -> None:
    assert "Sort" not in told_plan
    assert "TEMP B-TREE" not in told_plan
    assert "Seq Scan" not in told_plan

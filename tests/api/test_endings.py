"""How jobs end when all does not go well: retries by reason, poison, deadlines on nodes, exclusive jobs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from coordinator.domains.identity.rights import Role
from coordinator.domains.queue import redriving
from coordinator.domains.queue import service as queue
from coordinator.domains.queue.nodes import WAITERS
from coordinator.domains.queue.placing import Ticket
from coordinator.domains.queue.redriving import Principal
from coordinator.resources import Resources
from coordinator.store.database import Database
from coordinator.upkeep.deadlines import expire_overdue
from coordinator.upkeep.leases import lose_expired
from shared.clock import FrozenClock, rfc3339
from tests.factories.fleet import TestNode, job_of, new_job, place_all, submit
from tests.factories.work import Person, start_one, told

FAILED: dict[str, Any] = {
    "error": {"code": "EXIT_NONZERO", "message": "exit code 3", "retryable": True},
    "reason_code": "exit_nonzero",
    "exit_code": 3,
}
EAGER = {"max_attempts": 9, "base_seconds": 0, "cap_seconds": 0}


@pytest.fixture
def node(client: FlaskClient, resources: Resources) -> TestNode:
    return TestNode(client, resources).approve()


@pytest.fixture
def operator(app: Flask, resources: Resources) -> Person:
    return Person.make(app, resources)


def placed_on(resources: Resources, node: TestNode) -> Ticket:
    """The one waiting job, begun by this node."""
    (ticket,) = place_all(resources).tickets
    assert ticket.node_id == node.id
    assert node.claim(ticket)["token"]
    return ticket


def expire_leases(resources: Resources, clock: FrozenClock) -> None:
    clock.advance(resources.settings.lease_seconds + 1)
    with resources.database.write() as tx:
        lose_expired(tx, resources, leading_since=clock.now() - timedelta(hours=1))


class TestRetries:
    def test_a_reason_that_the_policy_does_not_name_is_final(
        self, operator: Person, node: TestNode, resources: Resources
    ) -> None:
        agent = operator.agent(runtime="echo", retry={"on": ["timeout"], **EAGER})
        task = operator.task(agent_id=agent["id"])
        assert task["retry"]["on"] == ["timeout"]
        ticket = start_one(resources, node)
        node.report(ticket.attempt_id, "failed", **FAILED | {"reason_code": "timeout"})
        assert told(operator.get(f"/tasks/{task['id']}"))["status"] == "assigned"
        ticket = start_one(resources, node)
        node.report(ticket.attempt_id, "failed", **FAILED)
        shown = told(operator.get(f"/tasks/{task['id']}"))
        assert (shown["status"], shown["reason_code"]) == ("failed", "exit_nonzero")

    def test_a_tasks_own_list_replaces_its_agents(self, operator: Person) -> None:
        agent = operator.agent(retry={"on": ["timeout"]})
        assert operator.task(agent_id=agent["id"], retry={"on": ["out_of_memory"]})["retry"]["on"] == ["out_of_memory"]
        assert operator.task(agent_id=agent["id"], retry={"on": None})["retry"]["on"] == ["timeout"]

    def test_every_try_is_shown_and_when_the_next_one_is_due(
        self, operator: Person, node: TestNode, resources: Resources, clock: FrozenClock
    ) -> None:
        agent = operator.agent(runtime="echo", retry=EAGER)
        task = operator.task(agent_id=agent["id"])
        ticket = start_one(resources, node)
        error = FAILED["error"] | {"retry_after_seconds": 90}
        node.report(ticket.attempt_id, "failed", **FAILED | {"error": error})
        shown = told(operator.get(f"/tasks/{task['id']}"))
        assert shown["next_retry_at"] == rfc3339(clock.now() + timedelta(seconds=90))
        (attempt,) = shown["attempts"]
        assert (attempt["node_id"], attempt["exit_code"], attempt["reason_code"]) == (node.id, 3, "exit_nonzero")
        assert attempt["started_at"] == attempt["ended_at"] == rfc3339(clock.now())
        clock.advance(90)
        start_one(resources, node)
        assert told(operator.get(f"/tasks/{task['id']}"))["next_retry_at"] is None

    @pytest.mark.parametrize(
        ("asked", "waits"), [(10**9, 3600), (-5, 0), ("soon", 0), (True, 0), (None, 0), ([7], 0), (7.5, 7.5)]
    )
    def test_what_a_service_asks_for_is_taken_with_care(
        self, node: TestNode, resources: Resources, clock: FrozenClock, asked: Any, waits: float
    ) -> None:
        (job_id,) = submit(resources, new_job(retry=EAGER))
        ticket = placed_on(resources, node)
        error = FAILED["error"] | {"retry_after_seconds": asked}
        assert node.report(ticket.attempt_id, "failed", **FAILED | {"error": error}) == "accepted"
        assert job_of(resources, job_id).not_before == clock.now() + timedelta(seconds=waits)


class TestPoison:
    @pytest.fixture
    def nodes(self, client: FlaskClient, node: TestNode, resources: Resources) -> dict[str, TestNode]:
        other = TestNode(client, resources).approve()
        return {node.id: node, other.id: other}

    def lose(self, resources: Resources, nodes: dict[str, TestNode], **facts: Any) -> Ticket:
        """The waiting job is lost on the node that it is placed on, by that node's own word."""
        (ticket,) = place_all(resources).tickets
        node = nodes[ticket.node_id]
        node.claim(ticket)
        assert node.report(ticket.attempt_id, **{"outcome": "lost", "reason_code": "computer_lost"} | facts)
        return ticket

    def pinned(self, node: TestNode) -> queue.NewJob:
        return new_job(retry=EAGER, needs={"worker_id": node.id})

    def move(self, resources: Resources, job_id: str, node: TestNode) -> None:
        with resources.database.write() as tx:
            queue.amend(tx, resources, job_id, needs={"worker_id": node.id})

    def test_work_lost_three_times_on_two_nodes_is_not_tried_again(
        self, nodes: dict[str, TestNode], resources: Resources
    ) -> None:
        first, second = nodes.values()
        (job_id,) = submit(resources, self.pinned(first))
        self.lose(resources, nodes)
        self.lose(resources, nodes)
        assert job_of(resources, job_id).state == "queued"
        self.move(resources, job_id, second)
        self.lose(resources, nodes)
        view = job_of(resources, job_id)
        assert (view.state, view.reason_code) == ("dead", "poison_suspected")
        assert view.error is not None
        assert first.name in view.error["message"]
        assert second.name in view.error["message"]

    def test_leases_that_run_out_count_as_much_as_a_nodes_word(
        self, nodes: dict[str, TestNode], resources: Resources, clock: FrozenClock
    ) -> None:
        first, second = nodes.values()
        (job_id,) = submit(resources, self.pinned(first))
        for node in (first, first, second):
            if node is second:
                self.move(resources, job_id, second)
            placed_on(resources, node)
            expire_leases(resources, clock)
            node.held.clear()
            node.beat()
        view = job_of(resources, job_id)
        assert (view.state, view.reason_code) == ("dead", "poison_suspected")

    def test_a_node_that_runs_out_of_memory_is_a_loss(self, nodes: dict[str, TestNode], resources: Resources) -> None:
        (job_id,) = submit(resources, new_job(retry=EAGER | {"max_attempts": 1}))
        self.lose(resources, nodes, outcome="failed", reason_code="node_out_of_memory")
        view = job_of(resources, job_id)
        assert (view.state, view.attempts[0]["state"]) == ("queued", "lost")

    def test_one_bad_node_kills_no_work_by_itself(self, nodes: dict[str, TestNode], resources: Resources) -> None:
        (job_id,) = submit(resources, self.pinned(next(iter(nodes.values()))))
        for _ in range(5):
            self.lose(resources, nodes, reason_code="node_fenced")
        assert job_of(resources, job_id).state == "queued"
        self.lose(resources, nodes, reason_code="node_fenced")
        view = job_of(resources, job_id)
        assert (view.state, view.reason_code) == ("dead", "node_fenced")

    def test_what_is_handed_back_does_not_count(self, nodes: dict[str, TestNode], resources: Resources) -> None:
        first, second = nodes.values()
        (job_id,) = submit(resources, self.pinned(first))
        self.lose(resources, nodes)
        self.lose(resources, nodes, outcome="returned", reason_code=None)
        self.move(resources, job_id, second)
        self.lose(resources, nodes)
        assert job_of(resources, job_id).state == "queued"


class TestDeadlines:
    def test_a_claim_is_told_how_long_the_job_has_left(
        self, node: TestNode, resources: Resources, clock: FrozenClock
    ) -> None:
        submit(resources, new_job(deadline_at=clock.now() + timedelta(seconds=60)))
        (ticket,) = place_all(resources).tickets
        clock.advance(20)
        assert node.claim(ticket)["deadline_in_seconds"] == 40
        clock.advance(15)
        assert node.claim(ticket)["deadline_in_seconds"] == 25

    def test_a_job_without_one_has_all_the_time(self, node: TestNode, resources: Resources) -> None:
        submit(resources, new_job())
        (ticket,) = place_all(resources).tickets
        assert node.claim(ticket)["deadline_in_seconds"] is None

    def test_nothing_is_begun_after_its_deadline(
        self, node: TestNode, resources: Resources, clock: FrozenClock
    ) -> None:
        (job_id,) = submit(resources, new_job(deadline_at=clock.now() + timedelta(seconds=5)))
        (ticket,) = place_all(resources).tickets
        clock.advance(5)
        assert node.claim(ticket)["refused"] == "deadline_exceeded"
        with resources.database.write() as tx:
            expire_overdue(tx, resources)
        assert job_of(resources, job_id).reason_code == "deadline_exceeded"

    def test_a_node_that_ended_it_in_time_is_believed(
        self, node: TestNode, resources: Resources, clock: FrozenClock
    ) -> None:
        (job_id,) = submit(resources, new_job(retry=EAGER, deadline_at=clock.now() + timedelta(seconds=5)))
        ticket = placed_on(resources, node)
        clock.advance(6)
        error = {"code": "DEADLINE_EXCEEDED", "message": "the deadline passed", "retryable": True}
        assert node.report(ticket.attempt_id, "failed", reason_code="deadline_exceeded", error=error) == "accepted"
        view = job_of(resources, job_id)
        assert (view.state, view.reason_code) == ("dead", "deadline_exceeded")


def plan_of(database: Database, statement: Any) -> str:
    """How the database would run it, with the reasons to prefer whole tables taken away: test tables are tiny."""
    text = str(statement.compile(database.engine, compile_kwargs={"literal_binds": True}))
    with database.read() as tx:
        if not database.is_sqlite:
            tx.conn.exec_driver_sql("SET LOCAL enable_seqscan = off")
            tx.conn.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
        explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
        return "\n".join(str(row[-1]) for row in tx.conn.exec_driver_sql(explain + text))


class TestExclusive:
    @pytest.fixture
    def other(self, client: FlaskClient, node: TestNode, resources: Resources) -> TestNode:
        return TestNode(client, resources).approve()

    def exclusive(self, **facts: Any) -> queue.NewJob:
        spec = {"kind": "task", "agent": "echo", "runtime": "echo", "input": {}, "is_exclusive": True}
        return new_job(**{"spec": spec, "retry": EAGER} | facts)

    def begun(self, resources: Resources, nodes: list[TestNode], **facts: Any) -> tuple[str, TestNode, TestNode]:
        """A running exclusive job, the node that has it, and the other one."""
        (job_id,) = submit(resources, self.exclusive(**facts))
        (ticket,) = place_all(resources).tickets
        first, second = sorted(nodes, key=lambda node: node.id != ticket.node_id)
        first.claim(ticket)
        return job_id, first, second

    def silence(self, resources: Resources, clock: FrozenClock, awake: TestNode) -> None:
        """Only `awake` goes on beating until the lease of the other one has run out."""
        expire_leases(resources, clock)
        awake.beat()

    def test_it_waits_until_its_silent_node_is_heard_of_and_has_no_computer_of_it(
        self, node: TestNode, other: TestNode, resources: Resources, clock: FrozenClock
    ) -> None:
        job_id, first, second = self.begun(resources, [node, other])
        (attempt_id,) = first.held
        self.silence(resources, clock, second)
        reason = f"exclusive: waits until node {first.name} confirms that the old computer is gone"
        assert job_of(resources, job_id).hold_reason == reason
        assert not place_all(resources).tickets
        first.beat(present=[attempt_id])
        first.beat(present=None)
        second.beat(present=[])
        assert not place_all(resources).tickets
        first.held.clear()
        first.beat(present=[])
        assert job_of(resources, job_id).hold_reason is None
        assert len(place_all(resources).tickets) == 1

    def test_an_attempt_that_is_still_held_is_not_gone(
        self, node: TestNode, other: TestNode, resources: Resources, clock: FrozenClock
    ) -> None:
        _, first, second = self.begun(resources, [node, other])
        self.silence(resources, clock, second)
        first.beat(present=[])
        assert not place_all(resources).tickets

    def test_the_report_of_its_node_is_confirmation_enough(
        self, node: TestNode, other: TestNode, resources: Resources
    ) -> None:
        job_id, first, _ = self.begun(resources, [node, other])
        (attempt_id,) = first.held
        first.report(attempt_id, "lost", reason_code="computer_lost")
        assert job_of(resources, job_id).hold_reason is None
        assert len(place_all(resources).tickets) == 1

    def test_other_work_does_not_wait(
        self, node: TestNode, other: TestNode, resources: Resources, clock: FrozenClock
    ) -> None:
        (job_id,) = submit(resources, new_job(retry=EAGER))
        (ticket,) = place_all(resources).tickets
        first, second = sorted([node, other], key=lambda one: one.id != ticket.node_id)
        first.claim(ticket)
        self.silence(resources, clock, second)
        assert job_of(resources, job_id).hold_reason is None
        assert len(place_all(resources).tickets) == 1

    def test_a_new_daemon_that_sees_no_computer_releases_at_once(
        self, node: TestNode, other: TestNode, resources: Resources
    ) -> None:
        _, first, _ = self.begun(resources, [node, other])
        first.held.clear()
        first.epoch = "a-new-daemon"
        first.beat(present=[])
        assert len(place_all(resources).tickets) == 1

    def test_a_new_daemon_that_finds_the_old_computer_does_not(
        self, node: TestNode, other: TestNode, resources: Resources
    ) -> None:
        job_id, first, _ = self.begun(resources, [node, other])
        (attempt_id,) = first.held
        first.held.clear()
        first.epoch = "a-new-daemon"
        first.beat(present=[attempt_id])
        assert not place_all(resources).tickets
        assert str(job_of(resources, job_id).hold_reason).startswith("exclusive: waits until node")

    def test_an_admin_who_fences_the_node_releases_it_and_cuts_the_node_off(
        self, app: Flask, node: TestNode, other: TestNode, resources: Resources, clock: FrozenClock
    ) -> None:
        job_id, first, second = self.begun(resources, [node, other])
        self.silence(resources, clock, second)
        admin = Person.make(app, resources, Role.ADMIN)
        shown = told(admin.post(f"/admin/workers/{first.id}/fence"))
        assert (shown["is_approved"], shown["status"]) == (False, "pending")
        assert shown["status_reason"] == f"fenced by {admin.name}: its machine is off"
        (ticket,) = place_all(resources).tickets
        assert (ticket.job_id, ticket.node_id) == (job_id, second.id)
        with resources.database.read() as tx:
            lines = [line.message for line in queue.events_after(tx, job_id, 0, 100)]
        assert f"{admin.name} confirms that the old computer is gone" in lines

    def test_fencing_releases_what_still_ran_there_too(
        self, app: Flask, node: TestNode, other: TestNode, resources: Resources
    ) -> None:
        _, first, second = self.begun(resources, [node, other])
        told(Person.make(app, resources, Role.ADMIN).post(f"/admin/workers/{first.id}/fence"))
        (ticket,) = place_all(resources).tickets
        assert ticket.node_id == second.id

    def test_cutting_a_node_off_does_not_mean_that_it_is_off(
        self, app: Flask, node: TestNode, other: TestNode, resources: Resources
    ) -> None:
        _, first, _ = self.begun(resources, [node, other])
        admin = Person.make(app, resources, Role.ADMIN)
        told(admin.patch(f"/admin/workers/{first.id}/approve", {"is_approved": False}))
        assert not place_all(resources).tickets
        assert admin.delete(f"/admin/workers/{first.id}").status_code == 204
        assert len(place_all(resources).tickets) == 1

    def test_only_admins_may_fence(self, operator: Person, node: TestNode) -> None:
        assert operator.post(f"/admin/workers/{node.id}/fence").status_code == 403

    def test_a_dead_one_that_goes_round_again_still_waits(
        self, app: Flask, node: TestNode, other: TestNode, resources: Resources, clock: FrozenClock
    ) -> None:
        deadline = clock.now() + timedelta(seconds=60)
        job_id, first, second = self.begun(resources, [node, other], deadline_at=deadline)
        self.silence(resources, clock, second)
        clock.advance(60)
        with resources.database.write() as tx:
            expire_overdue(tx, resources)
        assert job_of(resources, job_id).state == "dead"
        with resources.database.write() as tx:
            redriving.redrive(tx, resources, [redriving.lock_one(tx, "default", job_id)], by=Principal(first.id, "me"))
        second.beat()
        assert str(job_of(resources, job_id).hold_reason).startswith(f"exclusive: waits until node {first.name}")
        assert not place_all(resources).tickets
        first.held.clear()
        first.beat(present=[])
        assert len(place_all(resources).tickets) == 1

    def test_one_that_died_waits_no_longer_when_its_computer_was_seen_to_be_gone(
        self, node: TestNode, other: TestNode, resources: Resources, clock: FrozenClock
    ) -> None:
        deadline = clock.now() + timedelta(seconds=60)
        job_id, first, second = self.begun(resources, [node, other], deadline_at=deadline)
        self.silence(resources, clock, second)
        clock.advance(60)
        with resources.database.write() as tx:
            expire_overdue(tx, resources)
        first.held.clear()
        first.beat(present=[])
        with resources.database.write() as tx:
            redriving.redrive(tx, resources, [redriving.lock_one(tx, "default", job_id)], by=Principal(first.id, "me"))
        assert job_of(resources, job_id).hold_reason is None
        second.beat()
        assert len(place_all(resources).tickets) == 1

    def test_a_heartbeat_finds_what_waits_without_looking_at_all_jobs(self, database: Database) -> None:
        plan = plan_of(database, WAITERS.params(node_id="node"))
        assert "ix_jobs_exclusive" in plan
        assert "SCAN jobs" not in plan

    def test_tasks_and_executions_take_it_and_agents_have_a_default(
        self, operator: Person, node: TestNode, resources: Resources
    ) -> None:
        agent = operator.agent(runtime="echo", exclusive=True)
        assert agent["exclusive"] is True
        usual = operator.task(agent_id=agent["id"])
        shared = operator.task(agent_id=agent["id"], exclusive=False)
        run = operator.execution(agent["id"])
        shown = told(operator.get(f"/executions/{run['id']}"))
        assert (usual["exclusive"], shared["exclusive"], shown["exclusive"]) == (True, False, True)
        specs = {ticket.job_id: node.claim(ticket)["spec"]["is_exclusive"] for ticket in place_all(resources).tickets}
        assert specs == {usual["id"]: True, shared["id"]: False, run["id"]: True}

    def test_a_task_that_nobody_has_yet_keeps_its_wish(
        self, operator: Person, node: TestNode, resources: Resources, clock: FrozenClock
    ) -> None:
        task = operator.task(exclusive=True)
        agent = operator.agent(runtime="echo")
        told(operator.patch(f"/tasks/{task['id']}", {"agent_id": agent["id"]}))
        start_one(resources, node)
        expire_leases(resources, clock)
        assert told(operator.get(f"/tasks/{task['id']}"))["hold_reason"].startswith("exclusive: ")

    def test_whoever_takes_the_wish_back_waits_no_longer(
        self, operator: Person, node: TestNode, resources: Resources, clock: FrozenClock
    ) -> None:
        agent = operator.agent(runtime="echo")
        task = operator.task(agent_id=agent["id"], exclusive=True)
        start_one(resources, node)
        expire_leases(resources, clock)
        changed = told(operator.patch(f"/tasks/{task['id']}", {"exclusive": False}))
        assert (changed["exclusive"], changed["hold_reason"]) == (False, None)
        node.beat()
        assert len(place_all(resources).tickets) == 1

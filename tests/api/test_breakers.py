"""Circuit breakers as nodes charge them, and as work waits for them and tries them."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event, func, select

from coordinator.domains.queue import service as queue
from coordinator.domains.queue.leadership import campaign, require
from coordinator.domains.queue.models import attempts, breakers
from coordinator.domains.queue.placing import OUTLOOK, Ticket
from coordinator.resources import Resources
from shared.clock import FrozenClock, rfc3339
from tests.factories.breakers import IMAGE, MODEL, Site
from tests.factories.fleet import TestNode, place_all
from tests.factories.work import told


@pytest.fixture
def site(app: Flask, client: FlaskClient, resources: Resources) -> Site:
    return Site.make(app, client, resources)


@contextmanager
def told_apart(resources: Resources) -> Iterator[list[str]]:
    """The statements that are run meanwhile, on one line each."""
    seen: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(" ".join(statement.split()))

    event.listen(resources.database.engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(resources.database.engine, "before_cursor_execute", note)


def next_due(resources: Resources) -> Any:
    """When the dispatcher would wake by itself."""
    with resources.database.write() as tx:
        term = campaign(tx, holder="the test", seconds=60)
        assert term is not None
        due = require(tx, term, also=OUTLOOK).next_due
        tx.conn.rollback()
        return due


class TestOpening:
    def test_a_healthy_fleet_has_no_breakers(self, site: Site) -> None:
        site.submit(IMAGE, MODEL, takes_slot=True)
        (ticket,) = site.place()
        site.end(ticket, charges={MODEL: "ok"})
        with site.resources.database.read() as tx:
            assert tx.conn.scalar(select(func.count()).select_from(breakers)) == 0

    def test_five_failures_within_the_window_open_it(self, site: Site, clock: FrozenClock) -> None:
        site.charge(count=4)
        assert (site.breaker()["state"], site.breaker()["failure_count"]) == ("closed", 4)
        site.charge()
        found = site.breaker()
        assert (found["state"], found["failure_count"], found["total_failures"]) == ("open", 5, 5)
        assert (found["success_rate"], found["forced"]) == (0.0, False)
        assert found["cause"] == "5 failures within 120 s, the last one: a call to the model failed"
        assert found["opened_at"] == rfc3339(clock.now())
        assert found["last_failure"]["node_id"] == site.node.id
        assert [(line["previous_state"], line["state"]) for line in found["history"]] == [("closed", "open")]

    def test_failures_that_are_too_far_apart_do_not(self, site: Site, clock: FrozenClock) -> None:
        site.charge(count=4)
        clock.advance(121)
        site.charge()
        assert (site.breaker()["state"], site.breaker()["failure_count"]) == ("closed", 1)

    def test_several_failures_in_one_batch_count_each(self, site: Site) -> None:
        site.submit(count=6)
        tickets = site.place()
        for ticket in tickets:
            site.node.claim(ticket)
        reports = [
            {
                "attempt_id": ticket.attempt_id,
                "token": site.node.held[ticket.attempt_id],
                "outcome": "succeeded",
                "charges": {MODEL: "failed"},
            }
            for ticket in tickets
        ]
        assert site.node.sync(reports=reports).status_code == 200
        assert (site.breaker()["state"], site.breaker()["failure_count"]) == ("open", 6)

    def test_a_repeated_report_counts_once(self, site: Site) -> None:
        site.submit()
        (ticket,) = site.place()
        site.node.claim(ticket)
        token = site.node.held[ticket.attempt_id]
        for _ in range(2):
            site.node.held[ticket.attempt_id] = token
            site.node.report(ticket.attempt_id, digest="d" * 64, charges={MODEL: "failed"})
        assert site.breaker()["total_failures"] == 1

    def test_a_missing_image_opens_the_images(self, site: Site) -> None:
        (job_id,) = site.submit(IMAGE, takes_slot=True, retry={"base_seconds": 0})
        told(site.admin.post("/circuit-breakers", {"name": IMAGE, "failure_threshold": 1}), 201)
        (ticket,) = site.place()
        site.end(ticket, "lost", reason_code="image_missing", error={"code": "IMAGE_MISSING", "message": "not here"})
        assert site.breaker(IMAGE)["state"] == "open"
        assert not site.place()
        assert (site.hold_of(job_id) or "").startswith(f"breaker_open: {IMAGE} is open since ")

    def test_a_failing_command_charges_nobody(self, site: Site) -> None:
        for _ in range(6):
            site.submit(IMAGE, takes_slot=True, retry={"max_attempts": 1})
            (ticket,) = site.place()
            site.end(ticket, "failed", reason_code="exit_nonzero", exit_code=1)
        assert told(site.admin.get("/circuit-breakers"))["circuit_breakers"] == []

    def test_it_charges_its_agent_once_an_admin_made_a_breaker_for_it(self, site: Site) -> None:
        with site.resources.database.write() as tx:
            queue.set_lane(tx, site.resources, "agent-1", hold_reason=None, max_active=None, agent_name="the reporter")
        told(site.admin.post("/circuit-breakers", {"name": "agent:the reporter", "failure_threshold": 2}), 201)
        for _ in range(2):
            site.submit(retry={"max_attempts": 1})
            (ticket,) = site.place()
            site.end(ticket, "failed", reason_code="exit_nonzero", exit_code=1)
        assert site.breaker("agent:the reporter")["state"] == "open"
        (job_id,) = site.submit()
        assert not site.place()
        assert (site.hold_of(job_id) or "").startswith("breaker_open: agent:the reporter ")

    def test_a_node_is_not_believed_what_it_says_of_others(self, site: Site) -> None:
        site.charge(name="node:another")
        site.charge(name="image:python")
        assert told(site.admin.get("/circuit-breakers"))["circuit_breakers"] == []


class TestManyAtOnce:
    def test_nodes_that_charge_the_same_breakers_in_any_order_wait_for_each_other(self, app: Flask, site: Site) -> None:
        names = [f"llm:provider/{letter}" for letter in "abcd"]
        nodes = [TestNode(app.test_client(), site.resources, light_slots=8).approve() for _ in range(4)]
        site.submit(count=32)
        tickets = site.place()
        here = {each.id: each for each in [site.node, *nodes]}
        start = threading.Barrier(len(here))
        verdicts: list[str] = []

        def work(node: TestNode, order: list[str]) -> None:
            mine = [ticket for ticket in tickets if ticket.node_id == node.id]
            for ticket in mine:
                node.claim(ticket)
            start.wait()
            for ticket in mine:
                verdicts.append(node.report(ticket.attempt_id, charges=dict.fromkeys(order, "failed")))

        threads = [
            threading.Thread(target=work, args=(node, names if number % 2 else names[::-1]))
            for number, node in enumerate(here.values())
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert verdicts == ["accepted"] * len(tickets)
        for name in names:
            found = site.breaker(name)
            assert (found["state"], found["total_failures"]) == ("open", len(tickets))
            assert [line["state"] for line in found["history"]] == ["open"]


class TestCost:
    """What the path of every job pays for breakers, in statements."""

    def test_a_healthy_fleet_pays_none(self, site: Site) -> None:
        with told_apart(site.resources) as statements:
            site.submit(MODEL, count=3)
            for ticket in site.place():
                site.end(ticket, charges={MODEL: "ok"})
        # Whether there are any is asked inside statements that are run anyhow.
        assert [text for text in statements if re.match(r"(SELECT|UPDATE|INSERT INTO|DELETE FROM) breaker", text)] == []

    def test_where_there_are_some_a_batch_pays_for_itself_and_not_for_each_report(self, site: Site) -> None:
        site.charge()
        counts = []
        for size in (1, 6):
            site.submit(MODEL, count=size)
            tickets = site.place()
            for ticket in tickets:
                site.node.claim(ticket)
            reports = [
                {
                    "attempt_id": ticket.attempt_id,
                    "token": site.node.held[ticket.attempt_id],
                    "outcome": "succeeded",
                    "charges": {MODEL: "ok"},
                }
                for ticket in tickets
            ]
            with told_apart(site.resources) as statements:
                assert site.node.sync(reports=reports).status_code == 200
            counts.append(sum("breakers" in text for text in statements))
        # With the lock of the jobs goes the question whether there are any; then what the jobs depend on is read,
        # the breakers are locked, and written.
        assert counts[0] == counts[1] <= 4


class TestWaiting:
    def test_work_that_depends_on_it_waits_and_burns_no_attempt(self, site: Site) -> None:
        site.charge(count=5)
        waits, goes = site.submit(MODEL, count=2), site.submit("llm:other/model")
        for _ in range(3):
            assert {ticket.job_id for ticket in site.place()} <= set(goes)
        found = site.breaker()
        assert site.hold_of(waits[0]) == (
            f"breaker_open: {MODEL} is open since {found['opened_at']} until {found['next_probe_at']}: {found['cause']}"
        )
        with site.resources.database.read() as tx:
            burned = select(func.count()).select_from(attempts).where(attempts.c.job_id.in_(waits))
            assert tx.conn.scalar(burned) == 0

    def test_the_dispatcher_wakes_when_the_recovery_time_is_over(self, site: Site) -> None:
        assert next_due(site.resources) is None
        site.charge(count=5)
        site.submit(MODEL)
        assert rfc3339(next_due(site.resources)) == site.breaker()["next_probe_at"]

    def test_a_nodes_breaker_takes_the_node_out(self, client: FlaskClient, site: Site) -> None:
        other = TestNode(client, site.resources, light_slots=8).approve()
        site.command("force-open", f"node:{site.node.id}")
        site.submit(count=4)
        assert {ticket.node_id for ticket in site.place()} == {other.id}

    def test_without_another_node_work_says_whose_breaker_it_waits_for(self, site: Site) -> None:
        site.command("force-open", f"node:{site.node.id.upper()}", reason="its disk is failing")
        (job_id,) = site.submit()
        assert not site.place()
        reason = site.hold_of(job_id) or ""
        assert reason.startswith(f"breaker_open: node:{site.node.id} ({site.node.name}) is open since ")
        assert reason.endswith(f"until an admin resets it: forced open by {site.admin.name}: its disk is failing")

    def test_trouble_with_computers_opens_the_nodes(self, site: Site) -> None:
        for _ in range(5):
            site.submit(takes_slot=True, retry={"base_seconds": 3600})
            ticket = site.place()[-1]
            site.end(ticket, "lost", reason_code="driver_unavailable", error={"code": "X", "message": "no dockerd"})
        found = site.breaker(f"node:{site.node.id}")
        assert (found["state"], found["last_failure"]["message"]) == ("open", "no dockerd")


class TestTrying:
    def test_one_probe_at_a_time_and_closed_after_three(self, site: Site, clock: FrozenClock) -> None:
        site.charge(count=5)
        waiting = site.submit(MODEL, count=6)
        clock.advance(59)
        assert not site.place()
        clock.advance(1)
        for number in range(3):
            (ticket,) = site.place()
            assert site.breaker()["probe_attempt_id"] == ticket.attempt_id
            assert not site.place(), "a second one would be a second probe"
            still = next(job_id for job_id in reversed(waiting) if job_id != ticket.job_id)
            assert "one job at a time tries whether it works again" in (site.hold_of(still) or "")
            assert site.breaker()["state"] == "half_open"
            assert site.breaker()["probes_succeeded"] == number
            site.end(ticket, charges={MODEL: "ok"})
        found = site.breaker()
        assert (found["state"], found["cause"], found["failure_count"]) == ("closed", "it worked 3 times in a row", 0)
        assert len(site.place()) == 3
        moves = [(line["previous_state"], line["state"]) for line in found["history"]]
        assert moves == [("half_open", "closed"), ("open", "half_open"), ("closed", "open")]

    def test_agents_and_demands_share_the_one_place(self, client: FlaskClient, site: Site, clock: FrozenClock) -> None:
        TestNode(client, site.resources, light_slots=8).approve()
        site.charge(count=5)
        for agent in ("one", "two", "three"):
            site.submit(MODEL, agent_id=agent, count=2)
            site.submit(MODEL, IMAGE, agent_id=agent)
        clock.advance(60)
        assert len(site.place()) == 1
        assert not site.place()

    def test_rounds_at_the_same_time_send_one_probe(self, client: FlaskClient, site: Site, clock: FrozenClock) -> None:
        TestNode(client, site.resources, light_slots=8).approve()
        site.charge(count=5)
        for agent in ("one", "two", "three", "four"):
            site.submit(MODEL, agent_id=agent, count=3)
        clock.advance(60)
        tickets: list[Ticket] = []
        start = threading.Barrier(4)

        def one_round() -> None:
            start.wait()
            tickets.extend(place_all(site.resources).tickets)

        threads = [threading.Thread(target=one_round) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(tickets) == 1

    def test_a_failed_probe_opens_it_for_twice_as_long(self, site: Site, clock: FrozenClock) -> None:
        site.charge(count=5)
        site.submit(MODEL, count=3)
        for times, (least, most) in enumerate([(120, 132), (240, 264), (480, 528), (600, 600), (600, 600)], start=1):
            clock.advance(600)
            site.submit(MODEL)
            site.probe("failed")
            found = site.breaker()
            assert (found["state"], found["times_reopened"]) == ("open", times)
            with site.resources.database.read() as tx:
                row = tx.conn.execute(select(breakers)).one()
            assert least <= (row.probe_from - clock.now()).total_seconds() <= most
            assert not site.place()

    def test_successes_before_a_failed_probe_are_forgotten(self, site: Site, clock: FrozenClock) -> None:
        site.charge(count=5)
        site.submit(MODEL, count=5)
        clock.advance(60)
        site.probe()
        site.probe()
        site.probe("failed")
        clock.advance(600)
        site.probe()
        assert (site.breaker()["state"], site.breaker()["probes_succeeded"]) == ("half_open", 1)

    def test_a_probe_that_ends_without_a_word_frees_its_place(self, site: Site, clock: FrozenClock) -> None:
        site.charge(count=5)
        site.submit(MODEL, count=4)
        clock.advance(60)
        (cancelled,) = site.place()
        with site.resources.database.write() as tx:
            queue.cancel(tx, site.resources, cancelled.job_id, by="somebody")
        (silent,) = site.place()
        site.end(silent, "succeeded")
        (lost,) = site.place()
        site.end(lost, "lost", reason_code="node_fenced")
        assert len(site.place()) == 1
        assert (site.breaker()["state"], site.breaker()["probes_succeeded"]) == ("half_open", 0)

    def test_what_began_before_does_not_close_it(self, site: Site, clock: FrozenClock) -> None:
        site.submit(agent_id="early", count=3)
        early = site.place()
        for ticket in early:
            site.node.claim(ticket)
        site.charge(count=5)
        site.submit(MODEL)
        clock.advance(60)
        (probe,) = site.place()
        for ticket in early:
            assert site.node.report(ticket.attempt_id, charges={MODEL: "ok"}) == "accepted"
        assert (site.breaker()["state"], site.breaker()["probes_succeeded"]) == ("half_open", 0)
        assert site.breaker()["probe_attempt_id"] == probe.attempt_id

    def test_a_node_that_is_tried_out_gets_one_job(self, client: FlaskClient, site: Site, clock: FrozenClock) -> None:
        name = f"node:{site.node.id}"
        told(site.admin.post("/circuit-breakers", {"name": name, "failure_threshold": 1}), 201)
        site.submit(takes_slot=True)
        (ticket,) = site.place()
        site.end(ticket, "lost", reason_code="computer_error", error={"code": "X", "message": "broken"})
        assert not site.place()
        site.submit(count=5)
        clock.advance(60)
        (probe,) = site.place()
        assert not site.place()
        other = TestNode(client, site.resources, slots=8, light_slots=8).approve()
        assert {ticket.node_id for ticket in site.place()} == {other.id}
        site.end(probe)
        assert site.breaker(name)["probes_succeeded"] == 1

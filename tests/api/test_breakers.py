"""Circuit breakers as nodes charge them, as work waits for them, and as admins work them."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select

from coordinator.domains.identity.rights import Role
from coordinator.domains.queue import service as queue
from coordinator.domains.queue.leadership import campaign, require
from coordinator.domains.queue.models import attempts, breakers, events
from coordinator.domains.queue.placing import OUTLOOK, Ticket
from coordinator.resources import Resources
from shared.clock import FrozenClock, rfc3339
from tests.factories.fleet import TestNode, job_of, new_job, place_all, submit
from tests.factories.people import credentials_of, make_person
from tests.factories.work import Person, refused, told

MODEL = "llm:openai/gpt-4o"
IMAGE = "image:registry.example/team/tool:3"


@pytest.fixture
def node(client: FlaskClient, resources: Resources) -> TestNode:
    return TestNode(client, resources, slots=8, light_slots=8).approve()


@pytest.fixture
def admin(app: Flask, resources: Resources) -> Person:
    """An admin whose login outlives the waiting in these tests."""
    person = make_person(resources.database, role=Role.ADMIN)
    return Person(app.test_client(), credentials_of(app, person, seconds=10**6), person.id, person.name or "")


class Site:
    """What these tests do again and again."""

    def __init__(self, node: TestNode, resources: Resources, admin: Person) -> None:
        self.node, self.resources, self.admin = node, resources, admin

    def submit(self, *names: str, count: int = 1, **facts: Any) -> list[str]:
        """Jobs that depend on these breakers."""
        needs = {"breakers": sorted(names), **facts.pop("needs", {})}
        return submit(self.resources, *(new_job(needs=needs, **facts) for _ in range(count)))

    def place(self) -> list[Ticket]:
        return list(place_all(self.resources).tickets)

    def end(self, ticket: Ticket, outcome: str = "succeeded", **facts: Any) -> None:
        assert self.node.claim(ticket)["token"]
        assert self.node.report(ticket.attempt_id, outcome, **facts) == "accepted"

    def charge(self, verdict: str = "failed", *, name: str = MODEL, count: int = 1) -> None:
        """Jobs that depend on nothing call a model and tell how that went."""
        for _ in range(count):
            self.submit(agent_id="bystander")
            (ticket,) = self.place()
            self.end(ticket, charges={name: verdict})

    def probe(self, verdict: str = "ok", *, name: str = MODEL) -> None:
        """The one job that may go tries the model."""
        (ticket,) = self.place()
        self.end(ticket, charges={name: verdict})

    def breaker(self, name: str = MODEL) -> dict[str, Any]:
        return told(self.admin.get(f"/circuit-breakers/{name}"))

    def command(self, verb: str, name: str = MODEL, **body: Any) -> dict[str, Any]:
        return told(self.admin.post(f"/circuit-breakers/{name}/{verb}", body))

    def hold_of(self, job_id: str) -> str | None:
        return job_of(self.resources, job_id).hold_reason


@pytest.fixture
def site(node: TestNode, resources: Resources, admin: Person) -> Site:
    return Site(node, resources, admin)


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


class TestAdmins:
    def test_forced_open_stays_open_whatever_succeeds(self, site: Site, clock: FrozenClock) -> None:
        answer = site.command("force-open", reason="announced outage")
        assert answer == {
            "service": MODEL,
            "state": "open",
            "message": f"{MODEL} is forced open until it is reset",
        }
        (job_id,) = site.submit(MODEL)
        for _ in range(3):
            site.charge("ok")
            clock.advance(3600)
            assert not site.place()
        found = site.breaker()
        assert (found["state"], found["forced"], found["next_probe_at"]) == ("open", True, None)
        assert found["total_successes"] == 3
        assert site.command("reset")["state"] == "closed"
        assert [ticket.job_id for ticket in site.place()] == [job_id]

    def test_forced_closed_stays_closed_whatever_fails(self, site: Site) -> None:
        site.command("force-close")
        site.charge(count=7)
        found = site.breaker()
        assert (found["state"], found["forced"], found["failure_count"]) == ("closed", True, 7)
        site.submit(MODEL)
        assert len(site.place()) == 1

    def test_a_reset_clears_the_counts_and_keeps_the_numbers(self, site: Site) -> None:
        told(site.admin.post("/circuit-breakers", {"name": MODEL, "failure_threshold": 3}), 201)
        site.charge(count=3)
        assert site.command("reset", reason="mended")["message"] == f"{MODEL} is closed, its counts are cleared"
        found = site.breaker()
        assert (found["state"], found["failure_count"], found["total_failures"]) == ("closed", 0, 0)
        assert (found["success_rate"], found["last_failure"]) == (100.0, None)
        assert found["config"]["failure_threshold"] == 3
        site.charge(count=2)
        assert site.breaker()["state"] == "closed"

    def test_a_name_that_nobody_has_heard_of_is_closed(self, site: Site) -> None:
        found = site.breaker("llm:nobody/knows")
        assert (found["state"], found["history"], found["created_at"]) == ("closed", [], None)
        assert site.command("reset", "llm:nobody/knows")["state"] == "closed"
        assert told(site.admin.get("/circuit-breakers"))["circuit_breakers"] == []
        assert site.command("force-open", "payments")["state"] == "open"
        listed = told(site.admin.get("/circuit-breakers"))
        assert [each["service"] for each in listed["circuit_breakers"]] == ["payments"]
        assert listed["pagination"]["total"] == 1

    def test_names_may_have_slashes_encoded_or_not(self, site: Site) -> None:
        site.command("force-open", "image:registry.example:5000/a/b/c@sha256:abc")
        assert site.breaker("image:registry.example:5000%2Fa%2Fb/c@sha256:abc")["state"] == "open"

    def test_it_is_created_with_the_usual_numbers_and_then_changed(self, site: Site) -> None:
        made = site.admin.post("/circuit-breakers", {"service": MODEL})
        assert told(made, 201)["config"] == {
            "failure_threshold": 5,
            "window_seconds": 120.0,
            "recovery_timeout_seconds": 60.0,
            "success_threshold": 3,
        }
        assert told(site.admin.get(made.headers["Location"].removeprefix("/api/v1")))["name"] == MODEL
        body = {"name": MODEL, "service": MODEL, "success_threshold": 1, "recovery_timeout_seconds": 0.5}
        config = told(site.admin.post("/circuit-breakers", body))["config"]
        assert config["failure_threshold"] == 5
        assert (config["success_threshold"], config["recovery_timeout_seconds"]) == (1, 0.5)
        causes = [line["cause"] for line in site.breaker()["history"]]
        assert causes == [f"configured by {site.admin.name}", f"made by {site.admin.name}"]

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "name"),
            ({"name": "a", "service": "b"}, "service"),
            ({"name": " a"}, "name"),
            ({"name": "a\u0007b"}, "name"),
            ({"name": "a", "failure_threshold": 0}, "failure_threshold"),
            ({"name": "a", "window_seconds": 0}, "window_seconds"),
            ({"name": "a", "success_threshold": "three"}, "success_threshold"),
            ({"name": "a", "state": "open"}, "state"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, site: Site, body: dict[str, Any], field: str) -> None:
        assert refused(site.admin.post("/circuit-breakers", body), 422)["field"] == field

    def test_a_name_that_is_too_long_is_refused(self, site: Site) -> None:
        assert refused(site.admin.post(f"/circuit-breakers/{'x' * 256}/force-open"), 422)["field"] == "name"

    def test_they_are_the_admins_alone(self, app: Flask, site: Site) -> None:
        operator = Person.make(app, site.resources, Role.OPERATOR)
        refused(operator.get("/circuit-breakers"), 403)
        refused(operator.post(f"/circuit-breakers/{MODEL}/reset"), 403)

    def test_those_that_hold_work_come_first(self, site: Site) -> None:
        for name in ("a", "b", "c"):
            told(site.admin.post("/circuit-breakers", {"name": name}), 201)
        site.command("force-open", "c")
        listed = told(site.admin.get("/circuit-breakers"))["circuit_breakers"]
        assert [each["name"] for each in listed] == ["c", "a", "b"]


class TestTelling:
    def test_every_change_is_an_event_with_its_cause(self, site: Site, clock: FrozenClock) -> None:
        site.charge(count=5)
        site.submit(MODEL, count=3)
        clock.advance(60)
        for _ in range(3):
            site.probe()
        site.command("force-open")
        with site.resources.database.read() as tx:
            rows = tx.conn.execute(select(events).where(events.c.type.like("breaker.%")).order_by(events.c.id)).all()
        assert [row.type for row in rows] == [
            "breaker.opened",
            "breaker.half_open",
            "breaker.closed",
            "breaker.opened",
        ]
        assert {row.data["name"] for row in rows} == {MODEL}
        assert rows[0].data["cause"].startswith("5 failures within 120 s")
        assert rows[-1].data["cause"] == f"forced open by {site.admin.name}"
        assert site.breaker()["history"][0]["changed_by"] == site.admin.id

    def test_the_metrics_count_them(self, client: FlaskClient, site: Site) -> None:
        site.command("force-open")
        told(site.admin.post("/circuit-breakers", {"name": "payments"}), 201)
        page = client.get("/metrics").get_data(as_text=True)
        assert 'longshore_breakers{state="open"} 1.0' in page
        assert 'longshore_breakers{state="half_open"} 0.0' in page
        assert 'longshore_breakers{state="closed"} 1.0' in page

"""Circuit breakers as admins work them, as agents and tasks name them, and as others hear of them."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from coordinator.domains.identity.rights import Role
from coordinator.domains.queue.models import breakers, events
from coordinator.resources import Resources
from coordinator.upkeep.forgetting import forget
from shared.clock import FrozenClock
from tests.factories.breakers import IMAGE, MODEL, Site
from tests.factories.work import Person, refused, told


@pytest.fixture
def site(app: Flask, client: FlaskClient, resources: Resources) -> Site:
    return Site.make(app, client, resources)


class TestDependences:
    """What agents, tasks and executions say they depend on."""

    def test_an_agents_image_is_one(self, site: Site) -> None:
        reference = IMAGE.removeprefix("image:")
        agent = site.admin.agent(computer={"image": reference, "driver": None})
        site.command("force-open", IMAGE)
        task = site.admin.task(agent_id=agent["id"])
        assert not site.place()
        found = told(site.admin.get(f"/tasks/{task['id']}"))
        assert found["hold_reason"].startswith(f"breaker_open: {IMAGE} ")
        assert (found["status"], found["attempts"]) == ("assigned", [])

    @pytest.mark.parametrize(
        ("name", "held"),
        [
            ("payments", {"task", "execution"}),
            (MODEL, {"task", "execution"}),
            ("mail", {"task"}),
            ("ticket system", {"execution"}),
        ],
    )
    def test_agents_tasks_and_executions_may_name_more(self, site: Site, name: str, held: set[str]) -> None:
        agent = site.admin.agent(runtime="echo", breakers=["payments", MODEL, "payments"])
        assert agent["breakers"] == ["payments", MODEL]
        site.command("force-open", name)
        task = site.admin.task(agent_id=agent["id"], breakers=["mail"])
        run = site.admin.execution(agent["id"], breakers=["ticket system"])
        site.place()
        seen = {
            "task": told(site.admin.get(f"/tasks/{task['id']}")),
            "execution": told(site.admin.get(f"/executions/{run['id']}")),
        }
        assert (seen["task"]["breakers"], seen["execution"]["breakers"]) == (["mail"], ["ticket system"])
        waits = {
            kind for kind, each in seen.items() if (each["hold_reason"] or "").startswith(f"breaker_open: {name} ")
        }
        assert waits == held
        assert {kind for kind, each in seen.items() if not each["attempts"]} == held

    def test_a_waiting_task_may_be_told_to_depend_on_others(self, site: Site) -> None:
        agent = site.admin.agent(runtime="echo")
        task = site.admin.task(agent_id=agent["id"], breakers=["mail"])
        site.command("force-open", "mail")
        assert not site.place()
        changed = told(site.admin.patch(f"/tasks/{task['id']}", {"breakers": None}))
        assert (changed["breakers"], changed["hold_reason"]) == ([], None)
        assert [ticket.job_id for ticket in site.place()] == [task["id"]]
        assert refused(site.admin.patch(f"/tasks/{task['id']}", {"breakers": ["mail"]}), 409)

    def test_a_task_that_gets_its_agent_later_depends_on_what_it_named(self, site: Site) -> None:
        task = site.admin.task(breakers=["mail"])
        site.command("force-open", "mail")
        agent = site.admin.agent(runtime="echo")
        told(site.admin.patch(f"/tasks/{task['id']}", {"agent_id": agent["id"]}))
        assert not site.place()
        assert (site.hold_of(task["id"]) or "").startswith("breaker_open: mail ")

    @pytest.mark.parametrize("names", [[" mail"], [""], ["x" * 256], [1], "mail", [f"n{n}" for n in range(21)]])
    def test_names_that_make_no_sense_are_refused(self, site: Site, names: Any) -> None:
        answer = site.admin.post("/agents", {"name": "runner", "breakers": names})
        assert refused(answer, 422)["field"].startswith("breakers")

    def test_an_agent_stays_held_when_it_is_renamed(self, site: Site) -> None:
        agent = site.admin.agent(name="scraper", runtime="echo")
        site.command("force-open", "agent:scraper", reason="it floods a customer")
        task = site.admin.task(agent_id=agent["id"])
        told(site.admin.patch(f"/agents/{agent['id']}", {"name": "harmless"}))
        assert not site.place()
        assert (site.hold_of(task["id"]) or "").startswith("breaker_open: agent:harmless ")
        found = site.breaker("agent:harmless")
        assert (found["state"], found["forced"]) == ("open", True)
        assert found["history"][0]["cause"] == "taken over from agent:scraper: the agent was renamed"
        site.command("reset", "agent:harmless")
        assert len(site.place()) == 1

    def test_a_renamed_agents_failures_go_on_counting(self, site: Site) -> None:
        agent = site.admin.agent(name="before", runtime="echo")
        told(site.admin.post("/circuit-breakers", {"name": "agent:before", "failure_threshold": 2}), 201)
        for name in ("after", "later"):
            task = site.admin.task(agent_id=agent["id"], retry={"max_attempts": 1})
            (ticket,) = site.place()
            assert ticket.job_id == task["id"]
            told(site.admin.patch(f"/agents/{agent['id']}", {"name": name}))
            site.end(ticket, "failed", reason_code="exit_nonzero")
        assert [site.breaker(f"agent:{name}")["state"] for name in ("before", "after", "later")] == [
            "closed",
            "closed",
            "open",
        ]


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


class TestForgetting:
    def test_what_a_failure_made_goes_after_a_week_without_one(self, site: Site, clock: FrozenClock) -> None:
        site.charge(name="llm:quiet/one")
        site.charge(name="llm:forced/one")
        site.command("force-close", "llm:forced/one")
        told(site.admin.post("/circuit-breakers", {"name": "llm:configured/one", "failure_threshold": 9}), 201)
        told(site.admin.post("/circuit-breakers", {"name": "agent:by hand"}), 201)
        told(site.admin.post("/circuit-breakers", {"name": "payments"}), 201)
        site.charge(name="llm:open/one", count=5)
        clock.advance(3.5 * 86400)
        site.charge(name="llm:lively/one")
        clock.advance(3.6 * 86400)
        with site.resources.database.write() as tx:
            forget(tx, site.resources)
        with site.resources.database.read() as tx:
            left = set(tx.conn.scalars(select(breakers.c.name)))
        assert left == {
            "llm:forced/one",
            "llm:configured/one",
            "llm:open/one",
            "llm:lively/one",
            "agent:by hand",
            "payments",
        }


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

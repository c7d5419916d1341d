"""Reading the audit trail: who may, what a row tells, filters, pages, and that each way of asking has an index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event, text

from coordinator.domains.identity import audit
from coordinator.domains.identity.rights import Role
from coordinator.store.database import Database
from shared.clock import FrozenClock
from tests.factories.people import credentials_of, make_person
from tests.factories.trail import seal_all, write_rows


@pytest.fixture
def as_admin(app: Flask, database: Database) -> dict[str, str]:
    return credentials_of(app, make_person(database, role=Role.ADMIN, name="root"))


def facts(row: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


class TestReading:
    @pytest.fixture
    def rows(self, database: Database, clock: FrozenClock) -> None:
        """Nine rows, a minute apart."""
        who = audit.Who("user", id="018f0000-0000-7000-8000-00000000000a", name="ada")
        write_rows(database, 3, who=who)
        clock.advance(60)
        with database.write() as tx:
            audit.record(tx, audit.SYSTEM, "breaker.opened", resource_id="llm:openai/gpt-4o", message="5 failures")
            audit.record(tx, who, "worker.drained", resource_id="w1", outcome="refused")
            audit.record(tx, who, "fleet.paused")
        clock.advance(60)
        write_rows(database, 3, who=who, outcome="failed")
        seal_all(database)

    def ask(self, client: FlaskClient, headers: dict[str, str], query: str = "") -> list[dict[str, Any]]:
        response = client.get(f"/api/v1/admin/audit?{query}", headers=headers)
        assert response.status_code == 200, response.get_json()
        entries: list[dict[str, Any]] = response.get_json()["entries"]
        return entries

    @pytest.mark.usefixtures("rows")
    def test_a_row_tells_who_did_what_to_what(self, client: FlaskClient, as_admin: dict[str, str]) -> None:
        newest = self.ask(client, as_admin)[0]
        assert facts(newest, "action", "resource_type", "resource_id") == ("worker.approved", "worker", "w2")
        assert facts(newest, "actor_type", "actor_name", "outcome") == ("user", "ada", "failed")
        assert newest["details"] == {"before": None, "after": {"number": 2}}
        assert (newest["sequence"], len(newest["hash"])) == (9, 64)

    @pytest.mark.usefixtures("rows")
    @pytest.mark.parametrize(
        ("query", "count"),
        [
            ("", 9),
            ("actor=ada", 8),
            ("actor=018F0000-0000-7000-8000-00000000000A", 8),
            ("actor=coordinator", 1),
            ("actor=nobody", 0),
            ("action=worker.approved", 6),
            ("action=worker.*", 7),
            ("action=work*", 7),
            ("action=*", 9),
            ("action=worker", 0),
            ("resource_type=worker&resource_id=w1", 3),
            ("resource_type=breaker", 1),
            ("outcome=refused", 1),
            ("outcome=done&action=worker.*", 3),
        ],
    )
    def test_filters(self, client: FlaskClient, as_admin: dict[str, str], query: str, count: int) -> None:
        assert len(self.ask(client, as_admin, query)) == count

    @pytest.mark.usefixtures("rows")
    def test_a_time_begins_with_since_and_ends_before_until(
        self, client: FlaskClient, as_admin: dict[str, str]
    ) -> None:
        times = sorted({entry["created_at"] for entry in self.ask(client, as_admin)})
        assert len(times) == 3
        assert len(self.ask(client, as_admin, f"since={times[1]}")) == 6
        assert len(self.ask(client, as_admin, f"until={times[1]}")) == 3
        assert len(self.ask(client, as_admin, f"since={times[1]}&until={times[2]}")) == 3

    @pytest.mark.parametrize("query", ["action=%25", "outcome=maybe", "since=yesterday", "limit=0", "limit=201"])
    def test_a_filter_that_makes_no_sense_is_refused(
        self, client: FlaskClient, as_admin: dict[str, str], query: str
    ) -> None:
        assert client.get(f"/api/v1/admin/audit?{query}", headers=as_admin).status_code == 422

    def test_a_page_has_a_hundred_rows_unless_asked_otherwise(
        self, client: FlaskClient, database: Database, as_admin: dict[str, str]
    ) -> None:
        write_rows(database, 105)
        response = client.get("/api/v1/admin/audit", headers=as_admin)
        assert len(response.get_json()["entries"]) == 100
        assert response.get_json()["pagination"]["total"] == 105

        rest = self.ask(client, as_admin, "limit=50&offset=100")
        assert [entry["resource_id"] for entry in rest] == ["w4", "w3", "w2", "w1", "w0"]

    @pytest.mark.parametrize(
        "query",
        [
            "",
            "actor=ada",
            "actor=018f0000-0000-7000-8000-00000000000a",
            "action=worker.approved",
            "action=worker.*",
            "resource_type=worker&resource_id=w1",
            "outcome=refused",
            "since=2026-01-01T00:00:00Z&until=2027-01-01T00:00:00Z",
        ],
    )
    def test_every_way_of_asking_has_an_index(
        self, client: FlaskClient, database: Database, as_admin: dict[str, str], query: str
    ) -> None:
        plans = list(explained(client, database, as_admin, query))
        assert plans
        assert [plan for plan in plans if "index" not in plan.lower()] == []


def explained(client: FlaskClient, database: Database, headers: dict[str, str], query: str) -> Iterator[str]:
    """How the database finds the page of one request."""
    seen: list[tuple[str, Any]] = []

    def note(_conn: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "FROM audit_trail" in statement:
            seen.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    assert client.get(f"/api/v1/admin/audit?{query}", headers=headers).status_code == 200
    event.remove(database.engine, "before_cursor_execute", note)
    for statement, parameters in seen:
        with database.read() as tx:
            if not database.is_sqlite:
                tx.conn.execute(text("SET LOCAL enable_seqscan = off"))
                tx.conn.execute(text("SET LOCAL enable_sort = off"))
            word = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
            found = tx.conn.exec_driver_sql(f"{word} {statement}", parameters)
            yield "\n".join(str(row[-1]) for row in found)

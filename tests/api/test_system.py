"""Health, readiness, version, metrics, the document and its page."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis as redis_library
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import insert

from coordinator.app import create_app
from coordinator.domains.queue.models import leaders
from coordinator.http import metrics
from coordinator.http.metrics import GaugeSample
from coordinator.resources import Nudge, Resources
from coordinator.signal_line import SignalLine
from coordinator.store.database import Database, Transaction
from shared import __version__
from shared.clock import FrozenClock
from shared.errors import Unavailable
from shared.ids import new_id
from shared.queue.names import NUDGE_CHANNEL


class StubStorage:
    """Storage of which nothing but its health is asked."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault

    def check(self) -> None:
        if self.fault is not None:
            raise self.fault


def lead(database: Database, clock: FrozenClock, *, seconds: float) -> None:
    """Let somebody be the dispatcher for so long."""
    now = clock.now()
    row = {"name": "dispatcher", "holder": "d", "epoch": 1, "since": now, "until": now + timedelta(seconds=seconds)}
    with database.write() as tx:
        tx.conn.execute(insert(leaders).values(**{c.name: row[c.name] for c in leaders.columns if c.name in row}))


def client_with(resources: Resources, **parts: Any) -> FlaskClient:
    return create_app(dataclasses.replace(resources, **parts), check_replies=True).test_client()


class TestHealth:
    @pytest.mark.parametrize("path", ["/health", "/api/v1/health", "/v1/health", "/health/"])
    def test_being_alive_asks_nobody(self, resources: Resources, path: str) -> None:
        response = client_with(resources, database=None, redis=None, storage=None).get(path)
        assert response.json == {"status": "healthy", "service": "longshore", "version": __version__}

    def test_v0_says_ok_in_plain_text(self, client: FlaskClient) -> None:
        response = client.get("/api/v0/health")
        assert (response.text, response.mimetype) == ("OK", "text/plain")

    def test_the_version_names_program_and_api(self, client: FlaskClient) -> None:
        assert client.get("/api/v0/version").json == {"version": __version__, "api": "v0"}


class TestReadiness:
    @pytest.mark.parametrize("path", ["/health/ready", "/api/v0/health/ready", "/api/v1/health/ready"])
    def test_it_is_ready_when_everything_is_there(
        self, resources: Resources, database: Database, clock: FrozenClock, path: str
    ) -> None:
        lead(database, clock, seconds=10)
        response = client_with(resources, storage=StubStorage()).get(path)
        assert response.json is not None
        assert (response.status_code, response.json["status"]) == (200, "ready")
        assert response.json["checks"].keys() == {"database", "redis", "storage", "dispatcher"}

    def failing(self, client: FlaskClient) -> set[str]:
        response = client.get("/health/ready")
        assert response.json is not None
        assert (response.status_code, response.json["status"]) == (503, "not_ready")
        assert "Retry-After" in response.headers
        return {name for name, check in response.json["checks"].items() if not check["ok"]}

    def test_a_dispatcher_whose_time_is_over_is_not_there(
        self, resources: Resources, database: Database, clock: FrozenClock
    ) -> None:
        client = client_with(resources, storage=StubStorage())
        assert self.failing(client) == {"dispatcher"}
        lead(database, clock, seconds=10)
        clock.advance(10)
        assert self.failing(client) == {"dispatcher"}

    @pytest.mark.parametrize("fault", [Unavailable("full"), OSError("gone")])
    def test_storage_that_fails_is_named(
        self, resources: Resources, database: Database, clock: FrozenClock, fault: Exception
    ) -> None:
        lead(database, clock, seconds=10)
        assert self.failing(client_with(resources, storage=StubStorage(fault))) == {"storage"}

    def test_redis_that_does_not_answer_is_named(
        self, resources: Resources, database: Database, clock: FrozenClock
    ) -> None:
        lead(database, clock, seconds=10)
        nowhere = redis_library.Redis(host="127.0.0.1", port=1, socket_connect_timeout=1)
        assert self.failing(client_with(resources, storage=StubStorage(), redis=nowhere)) == {"redis"}

    def test_a_database_that_does_not_answer_is_named_without_its_secrets(self, resources: Resources) -> None:
        broken = Database("sqlite:////nonexistent/secret-place/x.db")
        client = client_with(resources, storage=StubStorage(), database=broken)
        assert self.failing(client) == {"database", "dispatcher"}
        assert b"secret-place" not in client.get("/health/ready").data


class TestMetrics:
    @pytest.fixture(autouse=True)
    def _own_gauges(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(metrics, "_gauges", [])

    def samples(self, client: FlaskClient, path: str = "/metrics") -> dict[tuple[str, frozenset[Any]], float]:
        response = client.get(path)
        assert (response.status_code, response.content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(response.text)
            for sample in family.samples
        }

    def requests(self, client: FlaskClient, **labels: str) -> float:
        return self.samples(client).get(("longshore_http_requests_total", frozenset(labels.items())), 0)

    def test_requests_are_counted_by_rule_and_never_by_path(self, resources: Resources) -> None:
        client = client_with(resources)
        for _ in range(3):
            client.get(f"/swagger-ui/{new_id()}")
        client.get(f"/nowhere/{new_id()}")
        client.open("/health", method="BREW")
        assert self.requests(client, method="GET", route="/swagger-ui/<string:asset>", status="404") == 3
        assert self.requests(client, method="GET", route="unmatched", status="404") == 1
        assert self.requests(client, method="OTHER", route="unmatched", status="405") == 1

    @pytest.mark.parametrize("path", ["/metrics", "/api/v1/metrics"])
    def test_gauges_are_read_from_the_database_at_each_scrape(self, resources: Resources, path: str) -> None:
        asked: list[Transaction] = []

        def gauges(tx: Transaction) -> Iterator[GaugeSample]:
            asked.append(tx)
            yield GaugeSample("longshore_jobs", "Jobs.", 2, {"state": "queued", "kind": "a"})
            yield GaugeSample("longshore_jobs", "Jobs.", len(asked), {"kind": "b", "state": "dead"})

        metrics.register_gauges(gauges)
        client = client_with(resources)
        self.samples(client, path)
        found = self.samples(client, path)
        assert found["longshore_jobs", frozenset({("state", "queued"), ("kind", "a")})] == 2
        assert found["longshore_jobs", frozenset({("state", "dead"), ("kind", "b")})] == 2
        assert found["longshore_database_up", frozenset()] == 1

    def test_without_a_database_the_rest_is_still_told(self, resources: Resources) -> None:
        metrics.register_gauges(lambda tx: [GaugeSample("longshore_jobs", "Jobs.", 1)])
        client = client_with(resources, database=Database("sqlite:////nonexistent/x.db"))
        client.get("/health")
        found = self.samples(client)
        assert found["longshore_database_up", frozenset()] == 0
        assert any(name == "longshore_http_requests_total" for name, _ in found)


class TestDocumentation:
    def test_the_page_asks_nobody_else_for_anything(self, client: FlaskClient) -> None:
        page = client.get("/swagger-ui/")
        assert (page.status_code, page.mimetype) == (200, "text/html")
        assert "//" not in page.text.replace("<!doctype html>", "")
        assert "script-src 'self';" in page.headers["Content-Security-Policy"]
        assert "<script>" not in page.text

    @pytest.mark.parametrize("name", ["init.js", "swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"])
    def test_what_the_page_needs_is_there(self, client: FlaskClient, name: str) -> None:
        assert name in client.get("/swagger-ui/").text
        response = client.get(f"/swagger-ui/{name}")
        assert (response.status_code, response.headers["X-Content-Type-Options"]) == (200, "nosniff")
        assert response.mimetype in {"text/javascript", "text/css", "image/png"}

    @pytest.mark.parametrize("name", ["oauth2-redirect.html", "..%2f__init__.py", "index.html.j2"])
    def test_nothing_else_of_the_wheel_is_served(self, client: FlaskClient, name: str) -> None:
        assert client.get(f"/swagger-ui/{name}").status_code == 404

    def test_an_unchanged_document_is_not_sent_again(self, client: FlaskClient) -> None:
        first = client.get("/api-docs/openapi.json")
        again = client.get("/api-docs/openapi.json", headers={"If-None-Match": first.headers["ETag"]})
        assert (first.status_code, again.status_code) == (200, 304)


class TestNudge:
    def test_it_reaches_whoever_listens(self, redis: redis_library.Redis) -> None:
        listener = redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        listener.subscribe(NUDGE_CHANNEL)
        while listener.get_message(timeout=5) is not None:
            pass
        Nudge(SignalLine(redis))("submitted")
        message = listener.get_message(timeout=5)
        listener.close()
        assert message is not None
        assert message["data"] == b"submitted"

    def test_it_never_fails_and_soon_stops_trying(self, monkeypatch: pytest.MonkeyPatch) -> None:
        nowhere = redis_library.Redis(host="127.0.0.1", port=1)
        tries: list[str] = []
        real = nowhere.publish

        def counting(channel: str, message: str) -> Any:
            tries.append(message)
            return real(channel, message)

        monkeypatch.setattr(nowhere, "publish", counting)
        nudge = Nudge(SignalLine(nowhere, probe_seconds=3600))
        nudge("one")
        nudge("two")
        assert tries == ["one"]


def test_the_factory_of_wsgi_servers_reads_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    from coordinator.app import wsgi

    monkeypatch.setenv("LONGSHORE_HOME", str(tmp_path))
    app: Flask = wsgi()
    assert app.test_client().get("/health").status_code == 200
    app.extensions["longshore"].resources.database.dispose()

"""How many requests: counted where that is due, told on every answer of v1, refused with the time to wait."""

from __future__ import annotations

from typing import Any

import pytest
import redis as redis_library
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import update
from structlog.testing import capture_logs

from coordinator.app import create_app
from coordinator.config import Settings
from coordinator.domains.identity.models import principals
from coordinator.domains.identity.rights import Role
from coordinator.domains.identity.service import Principal
from coordinator.http.limiting import NO_LIMIT
from coordinator.http.limiting_redis import PREFIX, RedisCounter
from coordinator.resources import Resources, connect_redis, make_resources
from coordinator.store.database import Database
from shared.clock import FrozenClock
from tests.api.probe import probe
from tests.factories.fleet import TestNode as Node
from tests.factories.people import credentials_of, make_person
from tests.fixtures.coordinator import MakeApp
from tests.services.ports import free_port

HEADERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
WRONG = {"user": "nobody", "pass": "wrong"}
LIMITS = {
    "rate_anonymous_per_minute": 12,
    "rate_login_per_minute": 4,
    "rate_register_per_minute": 2,
    "rate_user_per_minute": 0,
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update=LIMITS)


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app()


def on_plan(database: Database, plan: str) -> Principal:
    person = make_person(database, role=Role.OPERATOR)
    with database.write() as tx:
        tx.conn.execute(update(principals).where(principals.c.id == person.id).values(plan=plan))
    return person


def numbers(answer: Any) -> list[int]:
    return [int(answer.headers[name]) for name in HEADERS]


class TestHeaders:
    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/api/v1/agents", 200),
            ("GET", "/v1/agents", 200),
            ("GET", "/api/v1/agents?limit=0", 422),
            ("GET", "/api/v1/tasks/00000000-0000-7000-8000-000000000000", 404),
            ("GET", "/api/v1/nothing/here", 404),
            ("DELETE", "/api/v1/agents", 405),
            ("POST", "/api/v1/agents", 400),
            ("GET", "/api/v1/admin/workers", 403),
            ("GET", "/api/v1/health", 200),
        ],
    )
    def test_every_answer_of_v1_carries_them(
        self, app: Flask, client: FlaskClient, database: Database, method: str, path: str, status: int
    ) -> None:
        headers = credentials_of(app, make_person(database))
        body = "{" if method == "POST" else None
        answer = client.open(path, method=method, headers=headers, data=body, content_type="application/json")
        assert answer.status_code == status
        assert all(number >= 0 for number in numbers(answer))

    def test_a_401_carries_them_and_counts_down(self, client: FlaskClient) -> None:
        left = [numbers(client.get("/api/v1/agents"))[:2] for _ in range(3)]
        assert left == [[12, 11], [12, 10], [12, 9]]

    def test_whom_nothing_limits_is_told_a_number_that_never_falls(
        self, app: Flask, client: FlaskClient, database: Database
    ) -> None:
        headers = credentials_of(app, make_person(database))
        told = [numbers(client.get("/api/v1/agents", headers=headers)) for _ in range(2)]
        assert told == [[NO_LIMIT, NO_LIMIT, 0]] * 2

    def test_v0_has_none(self, app: Flask, client: FlaskClient, database: Database) -> None:
        answers = [client.get("/api/v0/version"), client.get("/api/v0/auth/me")]
        assert not any(name in answer.headers for answer in answers for name in HEADERS)


class TestStrangers:
    def test_an_address_that_shows_no_good_credential_is_refused_after_a_while(
        self, client: FlaskClient, clock: FrozenClock
    ) -> None:
        shown: list[dict[str, str]] = [{}, {"Authorization": "Bearer eyJ.e30.x"}, {"X-API-Key": "enr_nothing"}]
        statuses = [client.get("/api/v1/agents", headers=shown[n % 3]).status_code for n in range(12)]
        assert statuses == [401] * 12
        refused = client.get("/api/v1/agents")
        assert (refused.status_code, refused.json["error"]["code"]) == (429, "RATE_LIMIT_ERROR")  # type: ignore[index]
        assert numbers(refused)[:2] == [12, 0]
        wait = int(refused.headers["Retry-After"])
        assert 1 <= wait <= 120
        clock.advance(wait)
        assert client.get("/api/v1/agents").status_code == 401

    def test_paths_that_are_not_there_are_counted_too(self, client: FlaskClient) -> None:
        statuses = [client.get(f"/api/v1/guess-{n}").status_code for n in range(13)]
        assert statuses == [404] * 12 + [429]

    def test_somebody_known_at_the_same_address_is_not_refused(
        self, app: Flask, client: FlaskClient, database: Database
    ) -> None:
        for _ in range(13):
            client.get("/api/v1/agents")
        headers = credentials_of(app, make_person(database))
        assert client.get("/api/v1/agents", headers=headers).status_code == 200

    def test_another_address_is_another_count(self, client: FlaskClient) -> None:
        for _ in range(13):
            client.get("/api/v1/agents")
        other = client.get("/api/v1/agents", environ_overrides={"REMOTE_ADDR": "192.0.2.7"})
        assert other.status_code == 401

    def test_health_and_metrics_are_free(self, client: FlaskClient) -> None:
        statuses = {client.get(path).status_code for _ in range(14) for path in ("/api/v1/health", "/api/v1/metrics")}
        assert statuses == {200}

    def test_a_refusal_for_too_many_requests_is_not_refused_v0(self, client: FlaskClient) -> None:
        statuses = {client.get("/api/v0/auth/me").status_code for _ in range(14)}
        assert statuses == {401}


class TestLogins:
    def test_both_apis_share_one_count_of_an_address(self, client: FlaskClient) -> None:
        doors = ["/api/v0/auth/login", "/api/v1/auth/login"]
        answers = [client.post(doors[n % 2], json=WRONG) for n in range(5)]
        assert [one.status_code for one in answers] == [401] * 4 + [429]
        assert int(answers[-1].headers["Retry-After"]) >= 1
        assert [numbers(one)[:2] for one in (answers[1], answers[3])] == [[4, 2], [4, 0]]

    def test_the_log_in_page_is_one_of_the_doors(self, client: FlaskClient) -> None:
        assert client.get("/login").status_code == 200
        statuses = [client.post("/login", data={}).status_code for _ in range(5)]
        assert statuses == [403] * 4 + [429]
        assert client.post("/api/v1/auth/login", json={"email": "a", "password": "b"}).status_code == 429
        assert client.get("/login").status_code == 200

    def test_a_right_password_counts_and_waits_as_well(self, client: FlaskClient, database: Database) -> None:
        make_person(database, name="ada", password="right")
        good = {"user": "ada", "pass": "right"}
        statuses = [client.post("/api/v0/auth/login", json=good).status_code for _ in range(5)]
        assert statuses == [200] * 4 + [429]


class TestPlans:
    def test_a_free_plan_is_told_its_hour_and_refused_after_a_burst(
        self, app: Flask, client: FlaskClient, database: Database, clock: FrozenClock
    ) -> None:
        headers = credentials_of(app, on_plan(database, "free"))
        answers = [client.get("/api/v1/agents", headers=headers) for _ in range(51)]
        assert [one.status_code for one in answers] == [200] * 50 + [429]
        assert numbers(answers[0])[:2] == [1000, 999]
        assert numbers(answers[49])[:2] == [1000, 950]
        assert (numbers(answers[50])[:2], answers[50].headers["Retry-After"]) == ([50, 0], "4")
        clock.advance(4)
        assert client.get("/api/v1/agents", headers=headers).status_code == 200

    def test_the_hour_is_used_up_whatever_the_pace(
        self, app: Flask, client: FlaskClient, database: Database, redis: redis_library.Redis, clock: FrozenClock
    ) -> None:
        person = on_plan(database, "free")
        index = int(clock.now().timestamp() // 3600)
        redis.hset(f"{PREFIX}hour:user:{person.id}", mapping={"index": index, "count": 1000, "before": 0})
        refused = client.get("/api/v1/agents", headers=credentials_of(app, person))
        assert (refused.status_code, numbers(refused)[:2]) == (429, [1000, 0])
        assert "hour" in refused.json["error"]["message"]  # type: ignore[index]

    def test_ten_at_once_and_each_place_is_given_back(
        self, app: Flask, client: FlaskClient, database: Database, redis: redis_library.Redis, clock: FrozenClock
    ) -> None:
        person = on_plan(database, "free")
        headers, key = credentials_of(app, person), f"{PREFIX}open:user:{person.id}"
        redis.zadd(key, {f"other-{n}": clock.now().timestamp() + 100 for n in range(10)})
        refused = client.get("/api/v1/agents", headers=headers)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        redis.zrem(key, "other-0")
        for path, status in [("/api/v1/agents", 200), ("/api/v1/admin/workers", 403), ("/api/v1/agents?limit=x", 422)]:
            # The id of the request is the caller's: it must not be what tells two requests from each other.
            answer = client.get(path, headers={**headers, "X-Request-ID": "other-1"})
            assert answer.status_code == status
            assert redis.zcard(key) == 9

    def test_a_plan_says_nothing_about_v0(self, app: Flask, client: FlaskClient, database: Database) -> None:
        headers = credentials_of(app, on_plan(database, "free"))
        assert {client.get("/api/v0/auth/me", headers=headers).status_code for _ in range(60)} == {200}

    def test_nobody_without_a_limit_costs_a_word_with_redis(
        self, app: Flask, client: FlaskClient, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        headers = credentials_of(app, make_person(database))
        asked: list[Any] = []
        monkeypatch.setattr(RedisCounter, "count", lambda *args, **_: asked.append(args))
        assert client.get("/api/v1/agents", headers=headers).status_code == 200
        assert asked == []


class TestPerUser:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"rate_user_per_minute": 3})

    def test_one_user_is_limited_and_another_is_not(self, app: Flask, client: FlaskClient, database: Database) -> None:
        ada, bob = (credentials_of(app, make_person(database)) for _ in range(2))
        statuses = [client.get("/api/v1/agents", headers=ada).status_code for _ in range(4)]
        assert statuses == [200] * 3 + [429]
        assert client.get("/api/v1/agents", headers=bob).status_code == 200

    def test_nodes_are_not(self, client: FlaskClient, resources: Resources) -> None:
        node = Node(client, resources)
        for _ in range(5):
            node.beat()


def test_without_redis_each_process_counts_by_itself_and_says_so_once(
    settings: Settings, database: Database, clock: FrozenClock
) -> None:
    nobody = connect_redis(f"redis://127.0.0.1:{free_port()}/0")
    resources = make_resources(settings, database=database, clock=clock, redis=nobody)
    client = create_app(resources, slices=(probe,)).test_client()
    with capture_logs() as logs:
        statuses = [client.get("/api/v1/numbers").status_code for _ in range(14)]
    assert statuses == [401] * 12 + [429] * 2
    assert [line["event"] for line in logs].count("limits.each_process_alone") == 1

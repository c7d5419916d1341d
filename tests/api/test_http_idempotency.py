"""`Idempotency-Key`: done once, answered as often as asked."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select
from werkzeug.test import TestResponse

from coordinator.config import Settings
from coordinator.domains.identity.models import role_bindings
from coordinator.domains.identity.rights import BUILT_IN_IDS, Role
from coordinator.domains.system import service
from coordinator.domains.system.models import idempotency_keys
from coordinator.store.database import Database
from shared.clock import FrozenClock
from tests.api import probe
from tests.factories.people import credentials_of, make_person


@pytest.fixture
def app(make_app: Any) -> Flask:
    made: Flask = make_app(slices=(probe.probe,))
    return made


@pytest.fixture
def headers(app: Flask, database: Database) -> dict[str, str]:
    return credentials_of(app, make_person(database))


@pytest.fixture
def gate() -> Iterator[probe.Gate]:
    probe.gate = probe.Gate()
    yield probe.gate
    probe.gate = probe.Gate()


ONE_TRANSACTION, OWN_TRANSACTIONS = "/api/v1/ships", "/api/v1/voyages"
BOTH = pytest.mark.parametrize("path", [ONE_TRANSACTION, OWN_TRANSACTIONS])


def post(
    client: FlaskClient,
    headers: dict[str, str],
    key: str = "k",
    *,
    name: str = "a",
    path: str = ONE_TRANSACTION,
    **body: Any,
) -> TestResponse:
    return client.post(path, json={"name": name, **body}, headers={**headers, "Idempotency-Key": key})


def ships(database: Database) -> int:
    with database.read() as tx:
        return tx.conn.scalar(select(func.count()).where(role_bindings.c.role_id == BUILT_IN_IDS[Role.VIEWER])) or 0


@BOTH
def test_the_same_request_again_gets_the_stored_answer(
    client: FlaskClient, headers: dict[str, str], database: Database, path: str
) -> None:
    first, second = post(client, headers, path=path), post(client, headers, path=path)
    assert (first.status_code, "Idempotency-Replayed" in first.headers) == (201, False)
    assert (second.status_code, second.headers["Idempotency-Replayed"]) == (201, "true")
    assert second.headers["Location"] == first.headers["Location"]
    assert second.content_type == first.content_type
    assert ships(database) == 1


def test_a_replay_does_not_show_a_secret_again(
    client: FlaskClient, headers: dict[str, str], database: Database
) -> None:
    first, second = post(client, headers).json, post(client, headers).json
    assert first == {**second, "key": "for your eyes only"}  # type: ignore[dict-item]
    with database.read() as tx:
        kept = tx.conn.scalars(select(idempotency_keys.c.body)).one()
    assert b"for your eyes only" not in kept


def test_the_order_of_fields_in_the_body_does_not_matter(client: FlaskClient, headers: dict[str, str]) -> None:
    for body in (b'{"name": "a", "crew": 3}', b'{"crew":3,"name":"a"}'):
        answer = client.post(
            "/api/v1/ships",
            data=body,
            headers={**headers, "Idempotency-Key": "k", "Content-Type": "application/json"},
        )
        assert answer.status_code == 201


@BOTH
def test_another_body_under_the_same_key_is_refused(client: FlaskClient, headers: dict[str, str], path: str) -> None:
    post(client, headers, path=path)
    response = post(client, headers, name="b", path=path)
    assert response.status_code == 422
    assert response.json is not None
    assert response.json["error"]["details"]["field"] == "Idempotency-Key"


def test_a_key_belongs_to_one_principal(
    app: Flask, client: FlaskClient, headers: dict[str, str], database: Database
) -> None:
    post(client, headers)
    other = credentials_of(app, make_person(database))
    assert "Idempotency-Replayed" not in post(client, other, name="b").headers


def test_a_key_belongs_to_one_path_in_both_its_forms(client: FlaskClient, headers: dict[str, str]) -> None:
    post(client, headers)
    again = {**headers, "Idempotency-Key": "k"}
    assert "Idempotency-Replayed" in client.post("/v1/ships/", json={"name": "a"}, headers=again).headers
    assert "Idempotency-Replayed" not in client.post("/api/v0/ships", json={"name": "b"}, headers=again).headers


@BOTH
def test_a_failed_request_leaves_its_key_free(client: FlaskClient, headers: dict[str, str], path: str) -> None:
    assert post(client, headers, path=path, crew=0).status_code == 409
    assert post(client, headers, path=path, crew=1).status_code == 201


def test_a_key_is_forgotten_after_its_time(
    client: FlaskClient, headers: dict[str, str], database: Database, clock: FrozenClock, settings: Settings, app: Flask
) -> None:
    post(client, headers)
    clock.advance(settings.idempotency_seconds)
    fresh = credentials_of(app, make_person(database))
    with database.write() as tx:
        assert service.purge_answers(tx) == 1
        assert service.purge_answers(tx) == 0
    assert "Idempotency-Replayed" not in post(client, fresh, name="b").headers


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "ä"])
def test_a_key_that_is_no_key_is_a_bad_request(client: FlaskClient, headers: dict[str, str], key: str) -> None:
    assert post(client, headers, key=key).status_code == 400


def test_an_endpoint_that_is_not_idempotent_ignores_the_header(client: FlaskClient, headers: dict[str, str]) -> None:
    assert client.get("/api/v1/numbers", headers={**headers, "Idempotency-Key": "ä"}).status_code == 200


def test_work_without_one_transaction_takes_its_key_first(
    app: Flask, headers: dict[str, str], database: Database, gate: probe.Gate
) -> None:
    gate.may_leave.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, app.test_client(), headers, path=OWN_TRANSACTIONS)
        assert gate.entered.wait(30)
        assert post(app.test_client(), headers, path=OWN_TRANSACTIONS).status_code == 409
        gate.may_leave.set()
        assert first.result(30).status_code == 201
    assert post(app.test_client(), headers, path=OWN_TRANSACTIONS).headers["Idempotency-Replayed"] == "true"
    assert ships(database) == 1


class BrokenGate(probe.Gate):
    def pass_through(self) -> None:
        raise RuntimeError("the process dies here")


def test_a_key_taken_by_a_process_that_died_is_free_again_in_the_end(
    client: FlaskClient, headers: dict[str, str], gate: probe.Gate, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "release_answer", lambda _tx, _which: None)
    probe.gate = BrokenGate()
    assert post(client, headers, path=OWN_TRANSACTIONS).status_code == 500
    probe.gate = gate
    assert post(client, headers, path=OWN_TRANSACTIONS).status_code == 409
    clock.advance(service.RESERVED_SECONDS)
    assert post(client, headers, path=OWN_TRANSACTIONS).status_code == 201


def test_two_at_once_are_done_once(app: Flask, headers: dict[str, str], database: Database, gate: probe.Gate) -> None:
    """On PostgreSQL the second is told that the first is at work; on SQLite, with its one writer, it waits its turn."""
    gate.may_leave.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(post, app.test_client(), headers)
        assert gate.entered.wait(30)
        second = pool.submit(post, app.test_client(), headers)
        if not database.is_sqlite:
            assert second.result(30).status_code == 409
        gate.may_leave.set()
        assert first.result(30).status_code == 201
        assert second.result(30).status_code == (201 if database.is_sqlite else 409)
    assert ships(database) == 1
    assert post(app.test_client(), headers).headers["Idempotency-Replayed"] == "true"

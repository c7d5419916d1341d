"""The second factor: set up, asked for, never good twice, and required where an admin says so."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from coordinator.domains.identity.models import recovery_codes, second_factors
from coordinator.domains.identity.rights import Role
from coordinator.domains.identity.service import Principal
from coordinator.store.database import Database
from shared.clock import FrozenClock
from tests.factories.logins import (
    PASSWORD,
    bearer,
    code_of,
    headers_of,
    logged_in,
    tried,
    with_second_factor,
)
from tests.factories.people import make_person
from tests.factories.trail import trail_of

HOUR = 3600


@pytest.fixture
def ada(database: Database) -> Principal:
    return make_person(database, name="ada", email="ada@example.org", password=PASSWORD)


@pytest.fixture
def headers(client: FlaskClient, ada: Principal) -> dict[str, str]:
    return headers_of(client, "ada")


def verify(client: FlaskClient, token: str, code: str, *, address: str = "192.0.2.1", spelling: str = "code") -> Any:
    body = {"temp_token": token, spelling: code}
    return client.post("/api/v1/auth/mfa/verify", json=body, environ_base={"REMOTE_ADDR": address})


def begun(client: FlaskClient, **further: Any) -> str:
    answer = tried(client, "ada", PASSWORD, **further)
    assert answer.status_code == 200
    assert answer.json is not None
    assert answer.json["mfa_required"] is True
    assert answer.json.keys() == {"mfa_required", "temp_token", "expires_in", "expires_at"}
    return str(answer.json["temp_token"])


class TestSettingUp:
    def test_it_shows_once_what_an_authenticator_needs(
        self, client: FlaskClient, headers: dict[str, str], database: Database
    ) -> None:
        shown = client.post("/api/v1/auth/mfa/setup", headers=headers).json
        assert shown is not None
        address = urlsplit(shown["otpauth_uri"])
        assert (address.scheme, address.netloc, parse_qs(address.query)["secret"]) == (
            "otpauth",
            "totp",
            [shown["secret"]],
        )
        assert shown["qr_code"].startswith("data:image/svg+xml")
        assert len(set(shown["recovery_codes"])) == 10
        assert all(len(code.replace("-", "")) == 16 for code in shown["recovery_codes"])
        with database.read() as tx:
            kept = str(tx.conn.execute(select(second_factors)).all()) + str(
                tx.conn.execute(select(recovery_codes)).all()
            )
        assert shown["secret"] not in kept
        assert base64.b64encode(shown["secret"].encode()).decode() not in kept
        assert not any(code in kept or code.replace("-", "") in kept for code in shown["recovery_codes"])
        told = str(trail_of(database))
        assert shown["secret"] not in told

    def test_until_a_code_has_confirmed_it_nothing_is_asked_for(
        self, client: FlaskClient, headers: dict[str, str], clock: FrozenClock
    ) -> None:
        client.post("/api/v1/auth/mfa/setup", headers=headers)
        assert logged_in(client, "ada")["mfa_required"] is False
        with_second_factor(client, headers, clock)
        assert begun(client)

    def test_a_wrong_code_confirms_nothing(
        self, client: FlaskClient, headers: dict[str, str], clock: FrozenClock
    ) -> None:
        secret = client.post("/api/v1/auth/mfa/setup", headers=headers).json["secret"]  # type: ignore[index]
        wrong = code_of(secret, clock, steps=5)
        answer = client.post("/api/v1/auth/mfa/verify", json={"code": wrong}, headers=headers)
        assert answer.status_code == 400
        assert logged_in(client, "ada")["mfa_required"] is False

    def test_a_recovery_code_confirms_nothing(self, client: FlaskClient, headers: dict[str, str]) -> None:
        shown = client.post("/api/v1/auth/mfa/setup", headers=headers).json
        assert shown is not None
        body = {"code": shown["recovery_codes"][0]}
        assert client.post("/api/v1/auth/mfa/verify", json=body, headers=headers).status_code == 400

    def test_it_is_set_up_once(self, client: FlaskClient, headers: dict[str, str], clock: FrozenClock) -> None:
        with_second_factor(client, headers, clock)
        assert client.post("/api/v1/auth/mfa/setup", headers=headers).status_code == 409
        me = client.get("/api/v1/auth/me", headers=headers).json
        assert me is not None
        assert me["mfa_enabled"] is True

    def test_confirming_needs_somebody(self, client: FlaskClient, ada: Principal) -> None:
        assert client.post("/api/v1/auth/mfa/verify", json={"code": "123456"}).status_code == 401
        answer = client.post("/api/v1/auth/mfa/verify", json={}, headers=headers_of(client, "ada"))
        assert answer.status_code == 422

    def test_there_is_nothing_to_confirm_before_it_was_begun(
        self, client: FlaskClient, headers: dict[str, str]
    ) -> None:
        assert client.post("/api/v1/auth/mfa/verify", json={"code": "123456"}, headers=headers).status_code == 409


class TestLoggingIn:
    @pytest.fixture
    def secret(self, client: FlaskClient, headers: dict[str, str], clock: FrozenClock) -> str:
        return str(with_second_factor(client, headers, clock)["secret"])

    @pytest.mark.parametrize("spelling", ["code", "token", "totp_code"])
    def test_password_and_code_in_two_steps(
        self, client: FlaskClient, secret: str, clock: FrozenClock, spelling: str
    ) -> None:
        clock.advance(30)
        answer = verify(client, begun(client), code_of(secret, clock), spelling=spelling)
        assert answer.status_code == 200
        assert client.get("/api/v1/auth/me", headers=bearer(answer.json["access_token"])).status_code == 200
        renewed = client.post("/api/v1/auth/refresh", json={"refresh_token": answer.json["refresh_token"]})
        assert renewed.status_code == 200

    def test_or_in_one(self, client: FlaskClient, secret: str, clock: FrozenClock) -> None:
        clock.advance(30)
        assert logged_in(client, "ada", code=code_of(secret, clock))["access_token"]
        assert tried(client, "ada", PASSWORD, code="000000").status_code == 401
        assert tried(client, "ada", "wrong", code=code_of(secret, clock, steps=1)).status_code == 401

    def test_v0_answers_like_any_refusal_without_a_code(self, client: FlaskClient, secret: str) -> None:
        wrong = client.post("/api/v0/auth/login", json={"user": "ada", "pass": "wrong"})
        missing = client.post("/api/v0/auth/login", json={"user": "ada", "pass": PASSWORD})
        assert (missing.status_code, missing.data) == (401, wrong.data)

    def test_no_time_step_is_taken_twice(self, client: FlaskClient, secret: str, clock: FrozenClock) -> None:
        clock.advance(30)
        code = code_of(secret, clock)
        assert verify(client, begun(client), code).status_code == 200
        assert verify(client, begun(client), code).status_code == 401
        earlier = code_of(secret, clock, steps=-1)
        assert verify(client, begun(client), earlier).status_code == 401
        assert verify(client, begun(client), code_of(secret, clock, steps=1)).status_code == 200

    @pytest.mark.parametrize(("steps", "status"), [(-2, 401), (-1, 200), (1, 200), (2, 401)])
    def test_a_clock_may_be_one_step_off(
        self, client: FlaskClient, secret: str, clock: FrozenClock, steps: int, status: int
    ) -> None:
        clock.advance(600)
        assert verify(client, begun(client), code_of(secret, clock, steps=steps)).status_code == status

    def test_the_token_of_the_first_step_is_good_for_one_login_and_five_minutes(
        self, client: FlaskClient, secret: str, clock: FrozenClock
    ) -> None:
        clock.advance(30)
        token = begun(client)
        assert verify(client, token, code_of(secret, clock)).status_code == 200
        assert verify(client, token, code_of(secret, clock, steps=1)).status_code == 401
        late = begun(client)
        clock.advance(300)
        assert verify(client, late, code_of(secret, clock)).status_code == 401

    def test_the_token_of_the_first_step_is_good_for_nothing_else(self, client: FlaskClient, secret: str) -> None:
        token = begun(client)
        assert client.get("/api/v1/auth/me", headers=bearer(token)).status_code == 401
        assert client.post("/api/v1/auth/refresh", json={"refresh_token": token}).status_code == 401

    def test_no_other_token_is_one_of_the_first_step(
        self, client: FlaskClient, secret: str, headers: dict[str, str], clock: FrozenClock
    ) -> None:
        clock.advance(30)
        access = headers["Authorization"].removeprefix("Bearer ")
        assert verify(client, access, code_of(secret, clock)).status_code == 401

    def test_five_wrong_codes_end_the_login_that_was_begun(
        self, client: FlaskClient, secret: str, clock: FrozenClock
    ) -> None:
        clock.advance(30)
        token = begun(client)
        for number in range(5):
            assert verify(client, token, "000000", address=f"198.51.100.{number}").status_code == 401
        assert verify(client, token, code_of(secret, clock)).status_code == 401
        assert verify(client, begun(client), code_of(secret, clock)).status_code == 200

    def test_beginning_anew_gives_no_further_guesses(
        self, client: FlaskClient, secret: str, clock: FrozenClock
    ) -> None:
        clock.advance(30)
        for _ in range(5):
            assert verify(client, begun(client), "000000").status_code == 401
        assert verify(client, begun(client), code_of(secret, clock)).status_code == 401
        clock.advance(1800)
        assert verify(client, begun(client), code_of(secret, clock)).status_code == 200

    def test_a_login_that_was_begun_is_worth_nothing_once_the_password_is_another(
        self, client: FlaskClient, secret: str, headers: dict[str, str], clock: FrozenClock
    ) -> None:
        clock.advance(30)
        token = begun(client)
        clock.advance(2)
        body = {"current_password": PASSWORD, "new_password": "Another-horse-8-battery"}
        assert client.post("/api/v1/auth/change-password", json=body, headers=headers).status_code == 200
        assert verify(client, token, code_of(secret, clock)).status_code == 401

    def test_both_steps_are_in_the_audit_trail(
        self, client: FlaskClient, secret: str, clock: FrozenClock, database: Database
    ) -> None:
        clock.advance(30)
        verify(client, begun(client), code_of(secret, clock))
        *_, first, second = trail_of(database)
        assert (first["action"], first["actor_name"]) == ("session.begun", "ada")
        assert (second["action"], second["after"]["method"]) == ("session.opened", "totp")


class TestRecoveryCodes:
    def test_each_opens_the_door_once_however_it_is_typed(
        self, client: FlaskClient, headers: dict[str, str], clock: FrozenClock
    ) -> None:
        codes = with_second_factor(client, headers, clock)["recovery_codes"]
        assert verify(client, begun(client), codes[0]).status_code == 200
        assert verify(client, begun(client), codes[0]).status_code == 401
        typed = codes[1].upper().replace("-", " ")
        assert verify(client, begun(client), typed).status_code == 200

    def test_setting_up_anew_voids_those_of_before(
        self, client: FlaskClient, headers: dict[str, str], clock: FrozenClock
    ) -> None:
        old = with_second_factor(client, headers, clock)["recovery_codes"]
        assert client.post("/api/v1/auth/mfa/disable", json={"code": old[0]}, headers=headers).status_code == 200
        clock.advance(30)
        with_second_factor(client, headers, clock)
        assert verify(client, begun(client), old[1]).status_code == 401


class TestDisabling:
    def test_it_needs_the_password_or_a_code(
        self, client: FlaskClient, headers: dict[str, str], clock: FrozenClock
    ) -> None:
        secret = with_second_factor(client, headers, clock)["secret"]
        url = "/api/v1/auth/mfa/disable"
        assert client.post(url, json={}, headers=headers).status_code == 422
        assert client.post(url, json={"password": "wrong"}, headers=headers).status_code == 400
        assert client.post(url, json={"code": "000000"}, headers=headers).status_code == 400
        clock.advance(30)
        answer = client.post(url, json={"code": code_of(secret, clock)}, headers=headers)
        assert (answer.status_code, answer.json) == (200, {"mfa_enabled": False})
        assert logged_in(client, "ada")["mfa_required"] is False

    def test_the_password_is_enough(self, client: FlaskClient, headers: dict[str, str], clock: FrozenClock) -> None:
        with_second_factor(client, headers, clock)
        answer = client.post("/api/v1/auth/mfa/disable", json={"password": PASSWORD}, headers=headers)
        assert answer.status_code == 200

    def test_guessing_the_password_here_is_counted_like_at_the_door(
        self, client: FlaskClient, headers: dict[str, str], clock: FrozenClock
    ) -> None:
        with_second_factor(client, headers, clock)
        url, away = "/api/v1/auth/mfa/disable", {"REMOTE_ADDR": "203.0.113.5"}
        for _ in range(5):
            client.post(url, json={"password": "wrong"}, headers=headers, environ_base=away)
        right = client.post(url, json={"password": PASSWORD}, headers=headers, environ_base=away)
        assert right.status_code == 400


class TestRequired:
    @pytest.fixture
    def admin(self, client: FlaskClient, database: Database) -> dict[str, str]:
        make_person(database, name="root", role=Role.ADMIN, password=PASSWORD)
        return headers_of(client, "root")

    def require(self, client: FlaskClient, admin: dict[str, str], **mfa: Any) -> None:
        body = {"mfa": {"required": True, **mfa}}
        assert client.put("/api/v1/security", json=body, headers=admin).status_code == 200

    def test_there_is_a_day_of_grace_and_then_the_account_alone(
        self, client: FlaskClient, ada: Principal, admin: dict[str, str], clock: FrozenClock
    ) -> None:
        self.require(client, admin)
        within = logged_in(client, "ada")
        assert (within["mfa_setup_required"], within["restricted"]) == (True, False)
        assert within["mfa_grace_ends_at"] is not None
        clock.advance(24 * HOUR)
        after = logged_in(client, "ada")
        assert (after["mfa_setup_required"], after["restricted"]) == (True, True)
        only = bearer(after["access_token"])
        assert client.get("/api/v1/tasks", headers=only).status_code == 403
        assert client.get("/api/v1/auth/me", headers=only).status_code == 200
        key = client.post("/api/v1/security/api-keys", json={"name": "way out"}, headers=only)
        assert key.status_code == 403

    def test_setting_it_up_and_renewing_the_tokens_lifts_that(
        self, client: FlaskClient, ada: Principal, admin: dict[str, str], clock: FrozenClock
    ) -> None:
        self.require(client, admin, grace_period_hours=0)
        pair = logged_in(client, "ada")
        assert pair["restricted"] is True
        with_second_factor(client, bearer(pair["access_token"]), clock)
        renewed = client.post("/api/v1/auth/refresh", json={"refresh_token": pair["refresh_token"]}).json
        assert renewed is not None
        assert (renewed["restricted"], renewed["mfa_setup_required"]) == (False, False)
        assert client.get("/api/v1/tasks", headers=bearer(renewed["access_token"])).status_code == 200

    def test_grace_begins_when_it_is_required_and_not_before(
        self, client: FlaskClient, ada: Principal, admin: dict[str, str], clock: FrozenClock
    ) -> None:
        clock.advance(20 * 24 * HOUR)
        self.require(client, headers_of(client, "root"))
        assert logged_in(client, "ada")["restricted"] is False

    def test_machines_are_not_asked(
        self, client: FlaskClient, database: Database, admin: dict[str, str], clock: FrozenClock
    ) -> None:
        make_person(database, name="bot", password=PASSWORD, kind="service_account")
        self.require(client, admin, grace_period_hours=0)
        bot = logged_in(client, "bot")
        assert (bot["restricted"], bot["mfa_setup_required"]) == (False, False)

    def test_where_it_is_switched_off_nobody_sets_one_up(
        self, client: FlaskClient, headers: dict[str, str], admin: dict[str, str]
    ) -> None:
        client.put("/api/v1/security", json={"mfa": {"enabled": False}}, headers=admin)
        assert client.post("/api/v1/auth/mfa/setup", headers=headers).status_code == 409

"""The log-in page: a cookie instead of a token, and no page of somebody else's that could use it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from coordinator.config import Settings
from coordinator.domains.identity import second_factor
from coordinator.domains.identity.rights import Role
from coordinator.domains.identity.service import Principal
from coordinator.domains.vault.keyring import Keyring
from coordinator.http.browser import safe_target
from coordinator.resources import Resources
from coordinator.store.database import Database
from shared.clock import FrozenClock
from tests.factories.people import make_person
from tests.factories.trail import trail_of

PASSWORD = "Right-Horse-1-Battery"


@pytest.fixture
def ada(database: Database) -> Principal:
    return make_person(database, role=Role.OPERATOR, name="ada", password=PASSWORD)


class _Fields(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        if tag in ("input", "meta") and given.get("name"):
            self.found[str(given["name"])] = given.get("value") or given.get("content") or ""


def fields_of(answer: TestResponse) -> dict[str, str]:
    parser = _Fields()
    parser.feed(answer.text)
    return parser.found


def log_in(client: FlaskClient, user: str = "ada", password: str = PASSWORD, **more: str) -> TestResponse:
    shown = client.get("/login", query_string={"next": more["next"]} if "next" in more else {})
    fields = fields_of(shown)
    form = {"csrf": fields["csrf"], "next": fields["next"], "user": user, "password": password}
    return client.post("/login", data=form)


def cookies_of(answer: TestResponse) -> dict[str, str]:
    return {line.partition("=")[0]: line for line in answer.headers.getlist("Set-Cookie")}


def csrf_of(client: FlaskClient) -> str:
    return fields_of(client.get("/login"))["csrf-token"]


class TestThePage:
    def test_it_has_no_script_and_asks_nobody_else(self, client: FlaskClient) -> None:
        answer = client.get("/login")
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "script-src" not in policy
        assert "<script" not in answer.text
        assert not re.search(r"https?://|\son\w+=|style=", answer.text)
        assert answer.headers["Cache-Control"] == "no-store"

    def test_its_style_is_our_own(self, client: FlaskClient) -> None:
        answer = client.get("/login/style.css")
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/css; charset=utf-8")
        assert "url(" not in answer.text

    def test_what_is_typed_into_the_address_is_made_harmless(self, client: FlaskClient) -> None:
        answer = client.get("/login", query_string={"next": '/"><script>alert(1)</script>'})
        assert "<script" not in answer.text


class TestLoggingIn:
    def test_the_right_password_leaves_a_cookie_that_scripts_cannot_read(
        self, client: FlaskClient, ada: Principal
    ) -> None:
        answer = log_in(client)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/login")
        cookie = cookies_of(answer)["longshore_session"]
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        assert "Secure" not in cookie
        assert '<strong id="who">ada</strong>' in client.get("/login").text

    def test_over_tls_the_cookies_are_for_tls_and_this_host_alone(self, client: FlaskClient, ada: Principal) -> None:
        fields = fields_of(client.get("/login", base_url="https://localhost"))
        form = {"csrf": fields["csrf"], "user": "ada", "password": PASSWORD}
        answer = client.post("/login", data=form, base_url="https://localhost")
        cookie = cookies_of(answer)["__Host-longshore_session"]
        assert "Secure" in cookie
        assert "Path=/" in cookie
        assert "Domain" not in cookie

    @pytest.mark.parametrize(
        ("user", "password"),
        [
            ("ada", "wrong"),
            ("nobody", PASSWORD),
            ("", PASSWORD),
            ("ada", ""),
            ("a\0da", PASSWORD),
            ("ada", "x" * 5000),
            ("ada" * 500, PASSWORD),
        ],
    )
    def test_whatever_is_wrong_the_page_is_the_same(
        self, client: FlaskClient, ada: Principal, user: str, password: str
    ) -> None:
        usual, answer = log_in(client, "ada", "wrong too"), log_in(client, user, password)
        assert (answer.status_code, answer.text) == (401, usual.text)
        assert "longshore_session" not in cookies_of(answer)

    def test_the_trail_tells_of_both(self, client: FlaskClient, ada: Principal, database: Database) -> None:
        log_in(client, password="wrong")
        log_in(client)
        rows = [(row["action"], row["outcome"]) for row in trail_of(database, actor_id=ada.id)]
        assert rows == [("session.opened", "refused"), ("session.opened", "done")]

    def test_a_form_of_another_browser_is_not_taken(self, app: Flask, client: FlaskClient, ada: Principal) -> None:
        theirs = fields_of(app.test_client().get("/login"))["csrf"]
        client.get("/login")
        for csrf in (theirs, "", "é"):
            answer = client.post("/login", data={"csrf": csrf, "user": "ada", "password": PASSWORD})
            assert answer.status_code == 403
            assert "longshore_session" not in cookies_of(answer)

    def test_a_login_ends_when_its_time_is_over(
        self, client: FlaskClient, ada: Principal, clock: FrozenClock, settings: Settings
    ) -> None:
        log_in(client)
        clock.advance(settings.browser_session_seconds - 1)
        assert client.get("/api/v1/auth/me").status_code == 200
        clock.advance(2)
        assert client.get("/api/v1/auth/me").status_code == 401


class TestASecondFactor:
    @pytest.fixture
    def codes(self, resources: Resources, ada: Principal) -> list[str]:
        """Recovery codes of a second factor that ada has set up."""
        with resources.database.write() as tx:
            made = second_factor.begin(tx, Keyring.of(resources), ada)
            second_factor.confirm(tx, ada.id)
        return list(made.recovery_codes)

    def _second_step(self, client: FlaskClient, first: TestResponse, code: str) -> TestResponse:
        fields = fields_of(first)
        return client.post("/login", data={name: fields[name] for name in ("csrf", "next", "step")} | {"code": code})

    def test_a_code_is_asked_for_on_a_page_of_its_own(self, client: FlaskClient, codes: list[str]) -> None:
        first = log_in(client, next="/swagger-ui/")
        assert first.status_code == 200
        assert "longshore_session" not in cookies_of(first)
        answer = self._second_step(client, first, codes[0])
        assert (answer.status_code, answer.headers["Location"]) == (303, "/swagger-ui/")
        assert client.get("/api/v1/auth/me").status_code == 200

    def test_a_wrong_code_and_a_used_step_begin_anew(self, client: FlaskClient, codes: list[str]) -> None:
        first = log_in(client)
        wrong = self._second_step(client, first, "000000")
        assert (wrong.status_code, "longshore_session" in cookies_of(wrong)) == (401, False)
        assert self._second_step(client, first, codes[0]).status_code == 303
        again = client.post("/logout", data={"csrf": csrf_of(client)})
        assert again.status_code == 303
        client.get("/login")
        assert self._second_step(client, first, codes[1]).status_code in (401, 403)

    def test_the_page_tells_nothing_by_a_wrong_password(self, client: FlaskClient, codes: list[str]) -> None:
        assert log_in(client, password="wrong").text == log_in(client, "nobody").text


class TestWhereTo:
    @pytest.mark.parametrize("target", ["/swagger-ui/", "/login?x=1#y", "/a/b-c_d.e~f"])
    def test_a_path_of_ours_is_gone_to(self, client: FlaskClient, ada: Principal, target: str) -> None:
        assert log_in(client, next=target).headers["Location"] == target

    @pytest.mark.parametrize(
        "target",
        [
            "https://evil.example",
            "//evil.example",
            "/\\evil.example",
            "/\t/evil.example",
            "\\\\evil.example",
            "javascript:alert(1)",
            "/ok\r\nSet-Cookie: a=b",
            "/\x00",
            "login",
            "",
            "/" + "x" * 3000,
        ],
    )
    def test_anything_else_is_not(self, target: str) -> None:
        assert safe_target(target, "/usual") == "/usual"


class TestTheCookie:
    def test_it_reads_without_more(self, client: FlaskClient, ada: Principal) -> None:
        log_in(client)
        answer = client.get("/api/v1/auth/me")
        assert answer.json is not None
        assert (answer.status_code, answer.json["name"]) == (200, "ada")

    def test_it_changes_nothing_without_the_token_of_its_session(
        self, app: Flask, client: FlaskClient, ada: Principal, database: Database
    ) -> None:
        log_in(client)
        make_person(database, name="bob", password=PASSWORD)
        other = app.test_client()
        log_in(other, "bob")
        body = {"name": "an-agent"}
        for headers in ({}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": csrf_of(other)}, {"X-CSRF-Token": "é"}):
            answer = client.post("/api/v1/agents", json=body, headers=headers)
            assert answer.status_code == 403, headers
        right = client.post("/api/v1/agents", json=body, headers={"X-CSRF-Token": csrf_of(client)})
        assert right.status_code == 201

    def test_it_is_no_bearer_token(self, client: FlaskClient, ada: Principal, app: Flask) -> None:
        answer = log_in(client)
        token = cookies_of(answer)["longshore_session"].partition("=")[2].partition(";")[0]
        anybody = app.test_client()
        assert anybody.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {token}"}).status_code == 401

    def test_a_bearer_token_is_no_cookie(self, client: FlaskClient, app: Flask, ada: Principal) -> None:
        body = {"email": "ada", "password": PASSWORD}
        answer = client.post("/api/v1/auth/login", json=body)
        assert answer.json is not None
        client.set_cookie("longshore_session", answer.json["access_token"])
        assert client.get("/api/v1/auth/me").status_code == 401

    def test_a_header_goes_before_it(self, client: FlaskClient, ada: Principal) -> None:
        log_in(client)
        assert client.get("/api/v1/auth/me", headers={"Authorization": "Bearer wrong"}).status_code == 401

    def test_over_tls_a_cookie_that_a_neighbour_could_have_planted_is_not_looked_at(
        self, client: FlaskClient, ada: Principal
    ) -> None:
        log_in(client)
        assert client.get("/api/v1/auth/me", base_url="https://localhost").status_code == 401


class TestLoggingOut:
    def test_it_ends_the_session_and_not_only_the_cookie(
        self, client: FlaskClient, ada: Principal, app: Flask, database: Database
    ) -> None:
        cookie = cookies_of(log_in(client))["longshore_session"].partition("=")[2].partition(";")[0]
        answer = client.post("/logout", data={"csrf": csrf_of(client)})
        assert (answer.status_code, answer.headers["Location"]) == (303, "/login")
        thief = app.test_client()
        thief.set_cookie("longshore_session", cookie)
        assert thief.get("/api/v1/auth/me").status_code == 401
        assert [row["outcome"] for row in trail_of(database, action="session.ended")] == ["done"]

    def test_another_page_cannot_do_it(self, client: FlaskClient, ada: Principal) -> None:
        log_in(client)
        assert client.post("/logout", data={"csrf": "guessed"}).status_code == 403
        assert client.get("/api/v1/auth/me").status_code == 200

    def test_without_a_login_it_does_nothing(self, client: FlaskClient) -> None:
        assert client.post("/logout").status_code == 303

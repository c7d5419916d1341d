"""The shape of every answer: errors, headers, lists, slashes, versions."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from coordinator.store.database import Database
from shared.ids import is_id, new_id
from tests.api.probe import probe
from tests.factories.people import credentials_of, make_person


@pytest.fixture
def app(make_app: Any) -> Flask:
    made: Flask = make_app(slices=(probe,))
    return made


@pytest.fixture
def headers(app: Flask, database: Database) -> dict[str, str]:
    return credentials_of(app, make_person(database))


def error_of(response: TestResponse) -> dict[str, Any]:
    assert response.is_json
    assert response.json is not None
    assert response.json.keys() == {"error"}
    error: dict[str, Any] = response.json["error"]
    assert error.keys() == {"code", "message", "details"}
    return error


class TestErrors:
    @pytest.mark.parametrize("path", ["/", "/nope", "/api/v1/nope", "/v1/nope", "/api/v1/ships/7", "/api/v2/numbers"])
    def test_an_unknown_path_is_not_found(self, client: FlaskClient, path: str) -> None:
        response = client.get(path)
        assert (response.status_code, error_of(response)["code"]) == (404, "NOT_FOUND")

    @pytest.mark.parametrize("method", ["DELETE", "TRACE", "PROPFIND"])
    def test_a_wrong_method_names_the_right_ones(self, client: FlaskClient, method: str) -> None:
        response = client.open("/api/v1/numbers", method=method)
        assert (response.status_code, error_of(response)["code"]) == (405, "METHOD_NOT_ALLOWED")
        assert response.headers["Allow"] == "GET, HEAD, OPTIONS"

    def test_a_failure_of_ours_shows_a_request_id_and_nothing_else(self, client: FlaskClient) -> None:
        response = client.get("/api/v1/faults/unforeseen")
        assert (response.status_code, error_of(response)["code"]) == (500, "INTERNAL_ERROR")
        assert error_of(response)["details"] == {"request_id": response.headers["X-Request-ID"]}
        assert b"secret internals" not in response.data

    def test_an_answer_that_cannot_be_written_is_a_failure_of_ours(self, client: FlaskClient) -> None:
        assert client.get("/api/v1/faults/lie").status_code == 500

    def test_a_reply_that_differs_from_its_declaration_does_not_pass_in_tests(self, client: FlaskClient) -> None:
        assert client.get("/api/v1/lies").status_code == 500

    @pytest.mark.parametrize(("kind", "status", "after"), [("unavailable", 503, "7"), ("limit", 429, "1")])
    def test_what_may_be_tried_again_says_when(self, client: FlaskClient, kind: str, status: int, after: str) -> None:
        response = client.get(f"/api/v1/faults/{kind}")
        assert (response.status_code, response.headers["Retry-After"]) == (status, after)

    def test_a_body_over_the_limit_is_refused_before_it_is_read(
        self, client: FlaskClient, headers: dict[str, str]
    ) -> None:
        response = client.post(
            "/api/v1/ships",
            headers={**headers, "Content-Type": "application/json"},
            input_stream=BytesIO(),
            environ_overrides={"CONTENT_LENGTH": "99999999"},
        )
        assert (response.status_code, error_of(response)["code"]) == (413, "PAYLOAD_TOO_LARGE")

    def test_a_body_over_the_limit_is_refused_without_a_declared_length_too(
        self, client: FlaskClient, headers: dict[str, str]
    ) -> None:
        response = client.post(
            "/api/v1/ships",
            headers={**headers, "Content-Type": "application/json", "Transfer-Encoding": "chunked"},
            input_stream=BytesIO(b'{"name": "' + b"x" * 3_000_000 + b'"}'),
            environ_overrides={"wsgi.input_terminated": True},
        )
        assert response.status_code == 413

    @pytest.mark.parametrize(
        ("data", "media_type", "status", "code"),
        [
            ("{", "application/json", 400, "BAD_REQUEST"),
            ("{}", "text/plain", 415, "UNSUPPORTED_MEDIA_TYPE"),
            ("{}", "application/json", 422, "VALIDATION_ERROR"),
            ("[]", "application/json", 422, "VALIDATION_ERROR"),
            ('{"name": 1}', "application/json; charset=utf-8", 422, "VALIDATION_ERROR"),
        ],
    )
    def test_a_body_that_cannot_be_used_says_why(
        self, client: FlaskClient, headers: dict[str, str], data: str, media_type: str, status: int, code: str
    ) -> None:
        response = client.post("/api/v1/ships", data=data, headers={**headers, "Content-Type": media_type})
        assert (response.status_code, error_of(response)["code"]) == (status, code)

    def test_a_validation_error_lists_every_fault(self, client: FlaskClient, headers: dict[str, str]) -> None:
        response = client.post("/api/v1/ships", json={"crew": "x", "sails": 2}, headers=headers)
        details = error_of(response)["details"]
        assert {fault["field"] for fault in details["errors"]} == {"crew", "name", "sails"}
        assert (details["field"], details["reason"]) == (details["errors"][0]["field"], details["errors"][0]["reason"])

    def test_who_may_not_call_does_not_learn_what_is_wrong_with_the_body(self, client: FlaskClient) -> None:
        assert client.post("/api/v1/ships", data="{", content_type="application/json").status_code == 401


class TestHeaders:
    @pytest.mark.parametrize("path", ["/api/v1/faults/none", "/api/v1/faults/unforeseen", "/nope", "/api/v1/numbers"])
    def test_every_answer_carries_the_same_protection(self, client: FlaskClient, path: str) -> None:
        headers = client.get(path).headers
        assert is_id(headers["X-Request-ID"])
        assert headers["X-Response-Time"].endswith("ms")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in headers

    def test_a_sane_request_id_is_kept(self, client: FlaskClient) -> None:
        assert client.get("/nope", headers={"X-Request-ID": "abc-1_2.3"}).headers["X-Request-ID"] == "abc-1_2.3"

    @pytest.mark.parametrize("given", ["a b", "x" * 129, "<script>", "ä"])
    def test_any_other_request_id_is_replaced(self, client: FlaskClient, given: str) -> None:
        assert is_id(client.get("/nope", headers={"X-Request-ID": given}).headers["X-Request-ID"])

    def test_an_anonymous_caller_is_challenged(self, client: FlaskClient) -> None:
        assert client.get("/api/v1/numbers").headers["WWW-Authenticate"] == 'Bearer realm="longshore"'

    def test_head_answers_as_get_without_a_body(self, client: FlaskClient, headers: dict[str, str]) -> None:
        response = client.head("/api/v1/numbers", headers=headers)
        assert (response.status_code, response.data, response.headers["X-Total-Count"]) == (200, b"", "45")

    def test_options_names_the_methods(self, client: FlaskClient) -> None:
        response = client.options("/api/v1/ships")
        assert (response.status_code, set(response.headers["Allow"].split(", "))) == (200, {"POST", "OPTIONS"})


class TestPaths:
    @pytest.mark.parametrize("path", ["/api/v1/numbers", "/api/v1/numbers/", "/v1/numbers", "/v1/numbers/"])
    def test_slashes_and_the_alias_lead_to_the_same_place(
        self, client: FlaskClient, headers: dict[str, str], path: str
    ) -> None:
        assert client.get(path, headers=headers).status_code == 200

    def test_a_doubled_slash_is_no_redirect(self, client: FlaskClient, headers: dict[str, str]) -> None:
        assert client.get("/api/v1//numbers", headers=headers).status_code == 404

    def test_an_id_is_read_in_any_case(self, client: FlaskClient, headers: dict[str, str]) -> None:
        ship_id = new_id()
        response = client.get(f"/api/v1/ships/{ship_id.upper()}", headers=headers)
        assert response.json == {"id": ship_id, "version": 3}

    def test_a_static_path_wins_over_a_parameter(self, client: FlaskClient, headers: dict[str, str]) -> None:
        response = client.get("/api/v1/ships/newest", headers=headers)
        assert response.json == {"id": "newest", "version": 1}

    def test_a_name_is_handed_on_as_it_is(self, client: FlaskClient, headers: dict[str, str]) -> None:
        assert client.get("/api/v1/ships/Über%20See/log", headers=headers).text == "log of Über See"


class TestLists:
    def test_v1_pages_in_an_envelope(self, client: FlaskClient, headers: dict[str, str]) -> None:
        response = client.get("/api/v1/numbers?page=5&limit=10", headers=headers)
        assert response.json is not None
        assert [each["number"] for each in response.json["numbers"]] == [5, 4, 3, 2, 1]
        assert response.json["pagination"] == {"page": 5, "limit": 10, "offset": 40, "total": 45, "pages": 5}

    def test_v0_answers_an_array(self, client: FlaskClient, headers: dict[str, str]) -> None:
        response = client.get("/api/v0/numbers?limit=2&offset=1", headers=headers)
        assert response.json == [{"number": 44}, {"number": 43}]

    @pytest.mark.parametrize(("version", "limit"), [("v0", 100), ("v1", 20)])
    def test_both_versions_count_in_headers(
        self, client: FlaskClient, headers: dict[str, str], version: str, limit: int
    ) -> None:
        got = client.get(f"/api/{version}/numbers", headers=headers).headers
        shown = {name: got[name] for name in ("X-Total-Count", "X-Page-Offset", "X-Page-Limit")}
        assert shown == {"X-Total-Count": "45", "X-Page-Offset": "0", "X-Page-Limit": str(limit)}

    def test_a_page_past_the_end_is_empty(self, client: FlaskClient, headers: dict[str, str]) -> None:
        response = client.get("/api/v1/numbers?offset=400", headers=headers)
        assert response.json is not None
        assert (response.json["numbers"], response.json["pagination"]["total"]) == ([], 45)

    @pytest.mark.parametrize(("version", "query"), [("v1", "limit=201"), ("v0", "limit=1001"), ("v0", "offset=-1")])
    def test_a_limit_out_of_range_is_invalid(
        self, client: FlaskClient, headers: dict[str, str], version: str, query: str
    ) -> None:
        response = client.get(f"/api/{version}/numbers?{query}", headers=headers)
        assert (response.status_code, error_of(response)["code"]) == (422, "VALIDATION_ERROR")


class TestVersionsOfAResource:
    PATH = f"/api/v1/ships/{new_id()}"

    def test_a_read_shows_the_version_as_a_tag(self, client: FlaskClient, headers: dict[str, str]) -> None:
        assert client.get(self.PATH, headers=headers).headers["ETag"] == '"3"'

    def test_the_version_one_has_is_not_sent_again(self, client: FlaskClient, headers: dict[str, str]) -> None:
        response = client.get(self.PATH, headers={**headers, "If-None-Match": '"3"'})
        assert (response.status_code, response.data, response.headers["ETag"]) == (304, b"", '"3"')

    @pytest.mark.parametrize("given", [{}, {"If-Match": '"3"'}, {"If-Match": "*"}, {"If-Match": '"1", "3"'}])
    def test_a_change_of_the_version_one_read_is_made(
        self, client: FlaskClient, headers: dict[str, str], given: dict[str, str]
    ) -> None:
        response = client.patch(self.PATH, json={"name": "a"}, headers={**headers, **given})
        assert (response.status_code, response.headers["ETag"]) == (200, '"4"')

    @pytest.mark.parametrize("tag", ['"2"', 'W/"3"', ""])
    def test_a_change_of_another_version_is_refused(
        self, client: FlaskClient, headers: dict[str, str], tag: str
    ) -> None:
        response = client.patch(self.PATH, json={"name": "a"}, headers={**headers, "If-Match": tag})
        assert (response.status_code, error_of(response)["code"]) == (412, "PRECONDITION_FAILED")


class TestSpaces:
    def test_the_default_space_needs_no_header(self, client: FlaskClient) -> None:
        assert client.get("/api/v1/faults/none").json == {"space": "default"}

    def test_an_unknown_space_is_not_found(self, client: FlaskClient, headers: dict[str, str]) -> None:
        response = client.get("/api/v1/numbers", headers={**headers, "X-Space": "elsewhere"})
        assert (response.status_code, error_of(response)["code"]) == (404, "NOT_FOUND")

    def test_whoever_is_nobody_is_in_no_other_space(self, client: FlaskClient) -> None:
        assert client.get("/api/v1/faults/none", headers={"X-Space": "elsewhere"}).json == {"space": "default"}


class TestTransactions:
    def test_what_a_failing_handler_wrote_is_undone(self, client: FlaskClient, headers: dict[str, str]) -> None:
        assert client.post("/api/v1/ships", json={"name": "a", "crew": 0}, headers=headers).status_code == 409
        assert client.post("/api/v1/ships", json={"name": "a"}, headers=headers).status_code == 201

    def test_something_created_says_where_it_is(self, client: FlaskClient, headers: dict[str, str]) -> None:
        response = client.post("/api/v0/ships", json={"name": "a", "unknown": 1}, headers=headers)
        assert response.json is not None
        assert (response.status_code, response.headers["Location"]) == (201, f"/api/v0/ships/{response.json['id']}")

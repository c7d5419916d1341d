"""What becomes of a handler's result."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from flask import Flask

from coordinator.http.answering import Answer, dump, entity_tags, not_modified, render, shape
from coordinator.http.call import ListOf, Page, PageRequest, Reply
from coordinator.http.schemas import View
from coordinator.http.slice import Endpoint, Slice

app = Flask(__name__)


def endpoint(method: str = "get", path: str = "/things", **options: Any) -> Endpoint:
    one = Slice("things", "Things")
    getattr(one, method)(path, may="things:write", **options)(lambda call: None)
    return one.endpoints[0]


def answered(
    result: Any, declared: Endpoint, version: str = "v1", page: PageRequest | None = None, **args: Any
) -> Answer:
    with app.test_request_context():
        from flask import request

        request.view_args = args
        return render(shape(result, declared, version, page or PageRequest(limit=2, offset=2, page=2)), declared)


def test_times_are_rfc_3339_in_utc() -> None:
    assert dump({"at": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)}) == b'{"at":"2026-01-02T03:04:05.678Z"}'


def test_what_is_not_json_is_never_guessed() -> None:
    with pytest.raises(TypeError):
        dump({"x": object()})


def test_v1_wraps_a_page_in_an_envelope() -> None:
    answer = answered(Page([1, 2], 5), endpoint(reply=ListOf("things", View)))
    assert orjson.loads(answer.body) == {
        "things": [1, 2],
        "pagination": {"page": 2, "limit": 2, "offset": 2, "total": 5, "pages": 3},
    }


def test_v0_answers_a_bare_array() -> None:
    assert answered(Page([1, 2], 5), endpoint(reply=ListOf("things", View)), "v0").body == b"[1,2]"


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_both_tell_the_page_in_headers(version: str) -> None:
    answer = answered(Page([1, 2], 5), endpoint(reply=ListOf("things", View)), version)
    assert answer.headers == {"X-Total-Count": "5", "X-Page-Offset": "2", "X-Page-Limit": "2"}


def test_something_created_says_where_it_is() -> None:
    answer = answered({"id": "7"}, endpoint("post", status=201))
    assert (answer.status, answer.headers["Location"]) == (201, "/api/v1/things/7")


def test_the_place_may_be_another_than_the_path() -> None:
    declared = endpoint(
        "post", "/spaces/<string:space>/upload", status=201, location="/spaces/<string:space>/files/{name}"
    )
    answer = answered({"name": "a"}, declared, "v0", space="s")
    assert answer.headers["Location"] == "/api/v0/spaces/s/files/a"


def test_a_version_becomes_an_entity_tag_where_it_is_declared() -> None:
    assert answered({"version": 3}, endpoint(etag=True)).headers == {"ETag": '"3"'}
    assert answered({"version": 3}, endpoint()).headers == {}


def test_nothing_to_say_is_204() -> None:
    answer = answered(None, endpoint("delete", status=204))
    assert (answer.status, answer.body) == (204, b"")


def test_a_reply_may_set_status_and_headers() -> None:
    answer = answered(Reply({"a": 1}, status=202, headers={"X-A": "b"}), endpoint("post"))
    assert (answer.status, answer.headers) == (202, {"X-A": "b"})


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ('"3"', True),
        ('W/"3"', True),
        ('"1", "3"', True),
        ("*", True),
        ('"4"', False),
        ("3", False),
        ("", False),
        (None, False),
    ],
)
def test_if_none_match_compares_weakly(given: str | None, same: bool) -> None:
    assert not_modified(Answer(200, b"", headers={"ETag": '"3"'}), given) is same


def test_only_an_answer_with_a_tag_can_be_unmodified() -> None:
    assert not not_modified(Answer(200, b""), "*")


@pytest.mark.parametrize(
    ("header", "tags"),
    [(None, None), ('"3"', ("3",)), ('"3", "4"', ("3", "4")), ('W/"3"', ()), ("*", ("*",)), ("", ("",))],
)
def test_if_match_takes_strong_tags_alone(header: str | None, tags: tuple[str, ...] | None) -> None:
    assert entity_tags(header) == tags

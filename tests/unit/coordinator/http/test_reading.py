"""What the edge makes of bodies, queries and pages."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, request

from coordinator.http.reading import BodyReader, QueryReader, read_page
from coordinator.http.schemas import Body, Query, fields
from shared.errors import BadRequest, Invalid, LongshoreError, UnsupportedMediaType

app = Flask(__name__)


class Engine(Body):
    kind = fields.String(required=True)
    cylinders = fields.Integer(strict=True)


class Ship(Body):
    name = fields.String(required=True)
    engines = fields.List(fields.Nested(Engine))
    holds = fields.Dict(keys=fields.String(), values=fields.Nested(Engine))


class Search(Query):
    tag = fields.List(fields.String())
    size = fields.Integer()


def read(raw: bytes, version: str = "v1", media_type: str = "application/json") -> dict[str, Any]:
    return BodyReader(Ship, version=version).read(raw, media_type)


def faults_of(raw: bytes) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as caught:
        read(raw)
    return [(fault["field"], fault["reason"]) for fault in caught.value.details["errors"]]


def test_a_valid_body_becomes_its_fields() -> None:
    assert read(b'{"name": "a", "engines": [{"kind": "b"}]}') == {"name": "a", "engines": [{"kind": "b"}]}


def test_faults_are_named_by_their_path() -> None:
    body = b'{"engines": [{"kind": "b"}, {"kind": 1, "cylinders": "x"}], "holds": {"aft": {}}}'
    assert [field for field, _ in faults_of(body)] == [
        "name",
        "engines[1].kind",
        "engines[1].cylinders",
        "holds.aft.value.kind",
    ]


@pytest.mark.parametrize("body", [b'{"name": "a", "x": 1}', b'{"name": "a", "engines": [{"kind": "b", "x": 1}]}'])
def test_v1_refuses_unknown_fields_at_any_depth(body: bytes) -> None:
    assert [reason for _, reason in faults_of(body)] == ["Unknown field."]


def test_v0_ignores_unknown_fields_at_any_depth() -> None:
    body = b'{"x": 1, "name": "a", "engines": [{"kind": "b", "x": 1}], "holds": {"aft": {"kind": "c", "x": 1}}}'
    assert read(body, "v0") == {"name": "a", "engines": [{"kind": "b"}], "holds": {"aft": {"kind": "c"}}}


def test_ignoring_in_v0_leaves_v1_strict() -> None:
    BodyReader(Ship, version="v0")
    test_v1_refuses_unknown_fields_at_any_depth(b'{"name": "a", "engines": [{"kind": "b", "x": 1}]}')


@pytest.mark.parametrize("raw", [b"{", b'{"name": NaN}', b"\xff", b'{"name": "\\ud800"}'])
def test_what_is_not_json_is_a_bad_request(raw: bytes) -> None:
    with pytest.raises(BadRequest):
        read(raw)


@pytest.mark.parametrize("raw", [b"[]", b"1", b'"a"', b"null"])
def test_a_body_that_is_not_an_object_is_invalid(raw: bytes) -> None:
    with pytest.raises(Invalid, match="JSON object"):
        read(raw)


@pytest.mark.parametrize("media_type", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_another_media_type_is_refused(media_type: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        read(b'{"name": "a"}', media_type=media_type)


def test_no_body_is_an_empty_object_whatever_the_media_type() -> None:
    with pytest.raises(Invalid) as caught:
        read(b"", media_type="")
    assert caught.value.details["field"] == "name"


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b'{"name": "a\\u0000b"}', "name"),
        (b'{"name": "a", "engines": [{"kind": "\\u0000"}]}', "engines[0].kind"),
        (b'{"name": "a", "holds": {"x\\u0000": {}}}', "holds"),
    ],
)
def test_a_null_character_is_refused_where_it_is(raw: bytes, path: str) -> None:
    with pytest.raises(Invalid) as caught:
        read(raw)
    assert caught.value.details["field"] == path


def test_an_escaped_backslash_is_no_null_character() -> None:
    assert read(b'{"name": "\\\\u0000"}') == {"name": "\\u0000"}


def test_unknown_query_parameters_are_ignored_and_lists_collected() -> None:
    with app.test_request_context("/?tag=a&tag=b&size=3&nobody=knows"):
        assert QueryReader(Search).read(request) == {"tag": ["a", "b"], "size": 3}


def test_a_wrong_query_parameter_is_named() -> None:
    with app.test_request_context("/?size=big"), pytest.raises(Invalid) as caught:
        QueryReader(Search).read(request)
    assert caught.value.details["field"] == "size"


@pytest.mark.parametrize(
    ("query", "version", "expected"),
    [
        ("", "v1", (20, 0, 1)),
        ("", "v0", (100, 0, 1)),
        ("limit=1000", "v0", (1000, 0, 1)),
        ("page=3&limit=10", "v1", (10, 20, 3)),
        ("offset=25&limit=10", "v1", (10, 25, 3)),
        ("skip=25&limit=10", "v1", (10, 25, 3)),
        ("offset=5&page=9", "v1", (20, 5, 1)),
    ],
)
def test_pages_and_offsets_mean_the_same(query: str, version: str, expected: tuple[int, int, int]) -> None:
    with app.test_request_context(f"/?{query}"):
        page = read_page(request, version)
    assert (page.limit, page.offset, page.page) == expected


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=ten", "limit"),
        ("limit=1_0", "limit"),
        ("limit=", "limit"),
        ("limit=--5", "limit"),
        ("offset=-1", "offset"),
        ("offset=99999999999999999999", "offset"),
        ("page=0", "page"),
        ("page=٣", "page"),
    ],
)
def test_a_page_out_of_range_is_refused_by_name(query: str, field: str) -> None:
    with app.test_request_context(f"/?{query}"), pytest.raises(LongshoreError) as caught:
        read_page(request, "v1")
    assert (caught.value.status, caught.value.details["field"]) == (422, field)

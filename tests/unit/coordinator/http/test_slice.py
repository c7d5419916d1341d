"""Declaring endpoints."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.http.schemas import Body
from coordinator.http.slice import NODE, OPEN, Call, Endpoint, Slice


def declare(method: str, path: str = "/things", **options: Any) -> Endpoint:
    one = Slice("things", "Things")

    @getattr(one, method)(path, **options)
    def do_something(call: Call) -> None:
        """Do something.

        And say more
        about it.
        """

    return one.endpoints[0]


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete"])
def test_an_endpoint_without_a_right_cannot_be_declared(method: str) -> None:
    with pytest.raises(TypeError, match="may"):
        declare(method)


def test_the_docstring_becomes_summary_and_description() -> None:
    endpoint = declare("get", may=OPEN)
    assert (endpoint.summary, endpoint.description) == ("Do something.", "And say more about it.")


@pytest.mark.parametrize(
    ("method", "options", "transaction", "idempotent"),
    [
        ("get", {}, "read", False),
        ("post", {}, "write", True),
        ("post", {"may": OPEN}, "write", False),
        ("post", {"may": NODE, "idempotent": False}, "write", False),
        ("post", {"accepts": "multipart"}, "none", True),
        ("post", {"transaction": "none"}, "none", False),
        ("post", {"transaction": "none", "idempotent": True}, "none", True),
        ("put", {}, "write", False),
        ("delete", {}, "write", False),
    ],
)
def test_transaction_and_idempotency_follow_the_method(
    method: str, options: dict[str, Any], transaction: str, idempotent: bool
) -> None:
    endpoint = declare(method, **{"may": "things:write", **options})
    assert (endpoint.transaction, endpoint.idempotent) == (transaction, idempotent)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "get", "path": "things"},
        {"method": "get", "path": "/things/"},
        {"method": "get", "versions": ("v7",)},
        {"method": "get", "body": Body},
        {"method": "post", "transaction": "read", "idempotent": True},
        {"method": "get", "no_such_option": 1},
    ],
)
def test_contradictions_fail_at_import(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        declare(options.pop("method"), may="things:read", **options)


def test_operation_ids_tell_versions_apart() -> None:
    endpoint = declare("get", may=OPEN, versions=("root", "v0", "v1"), name="get_thing")
    assert [endpoint.operation_id(each) for each in endpoint.versions] == [
        "get_thing_root",
        "get_thing_v0",
        "get_thing",
    ]

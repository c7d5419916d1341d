"""The published document: true, stable, and changed only on purpose."""

from __future__ import annotations

import difflib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from flask import Flask
from openapi_spec_validator import OpenAPIV31SpecValidator

from coordinator.app import create_app
from coordinator.http import openapi
from coordinator.http.reading import PAGES
from coordinator.http.slice import mounted
from coordinator.resources import Resources

SNAPSHOT = Path(__file__).with_name("openapi.json")
METHODS = {"get", "post", "put", "patch", "delete"}
PUBLISHED_LIMITS = {"/api/v1/admin/audit": 100}
"""Lists whose `limit`, when none is asked for, was published as another than their version's."""

Operation = tuple[str, str, dict[str, Any]]


@pytest.fixture
def document(app: Flask) -> dict[str, Any]:
    loaded: dict[str, Any] = orjson.loads(app.extensions["longshore"].document)
    return loaded


@pytest.fixture
def operations(document: dict[str, Any]) -> list[Operation]:
    return list(_operations(document))


def _operations(document: dict[str, Any]) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method in METHODS:
                yield method, path, operation


def test_it_is_the_one_in_the_repository(app: Flask) -> None:
    """`LONGSHORE_TEST_UPDATE=1` writes the snapshot anew; the difference belongs into the review."""
    made = app.extensions["longshore"].document.decode()
    if os.environ.get("LONGSHORE_TEST_UPDATE"):
        SNAPSHOT.write_text(made)
    kept = SNAPSHOT.read_text() if SNAPSHOT.exists() else ""
    changes = "\n".join(difflib.unified_diff(kept.splitlines(), made.splitlines(), "kept", "made", lineterm="", n=2))
    assert kept == made, f"the document has changed; if that is meant, LONGSHORE_TEST_UPDATE=1:\n{changes}"


def test_it_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    OpenAPIV31SpecValidator(document).validate()


def test_another_process_writes_the_same_bytes(app: Flask) -> None:
    code = (
        "import sys; from coordinator.app import create_app; from coordinator.config import load_settings;"
        "from coordinator.resources import make_resources; import tempfile;"
        "settings = load_settings(home=tempfile.mkdtemp(), secret_key='x' * 40, admin_password='x');"
        "sys.stdout.buffer.write(create_app(make_resources(settings)).extensions['longshore'].document)"
    )
    other = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": "4711"}
    )
    assert other.stdout == app.extensions["longshore"].document


def test_two_apps_in_one_process_agree(app: Flask, resources: Resources) -> None:
    assert openapi.document(create_app(resources)) == openapi.document(app)


def test_every_documented_endpoint_is_in_it(app: Flask, operations: list[Operation]) -> None:
    declared = {
        endpoint.operation_id(version)
        for endpoint, version in mounted(app.extensions["longshore"].slices)
        if endpoint.documented
    }
    assert {operation["operationId"] for _, _, operation in operations} == declared


def test_operation_ids_are_unique(operations: list[Operation]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations]
    assert sorted(ids) == sorted(set(ids))


def test_paths_are_full_and_the_alias_is_left_out(document: dict[str, Any]) -> None:
    for path in document["paths"]:
        assert path.startswith(("/api/v0/", "/api/v1/", "/health", "/metrics", "/api-docs/", "/swagger-ui")), path
        assert not path.endswith("/")


def test_every_operation_explains_itself(document: dict[str, Any], operations: list[Operation]) -> None:
    tags = {tag["name"]: tag["description"] for tag in document["tags"]}
    assert all(tags.values())
    for method, path, operation in operations:
        assert operation.get("summary", "").endswith("."), f"{method} {path} has no summary that is a sentence"
        assert set(operation["tags"]) <= tags.keys(), f"{method} {path}"


def test_open_operations_say_so_and_the_others_name_their_right(operations: list[Operation]) -> None:
    for method, path, operation in operations:
        if operation.get("security") == []:
            assert "x-right" not in operation
        else:
            assert operation["x-right"], f"{method} {path}"
            assert {"401", "403"} <= operation["responses"].keys(), f"{method} {path}"


def test_both_ways_to_authenticate_are_described(document: dict[str, Any]) -> None:
    schemes = document["components"]["securitySchemes"]
    assert (schemes["bearer"]["scheme"], schemes["apiKey"]["name"]) == ("bearer", "X-API-Key")
    assert document["security"] == [{"bearer": []}, {"apiKey": []}]


def test_every_error_has_the_one_body(document: dict[str, Any], operations: list[Operation]) -> None:
    responses = document["components"]["responses"]
    for _, _, operation in operations:
        assert operation["responses"]["default"] == {"$ref": "#/components/responses/DEFAULT_ERROR"}
    for name, response in responses.items():
        assert response["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ErrorBody"}, name


def test_lists_describe_their_page(operations: list[Operation]) -> None:
    seen = set()
    for _, path, operation in operations:
        headers = operation["responses"].get("200", {}).get("headers", {})
        if "X-Total-Count" not in headers:
            continue
        version = path.split("/")[2]
        seen.add(version)
        parameters = {each["name"]: each["schema"] for each in operation["parameters"] if each["in"] == "query"}
        assert {"limit", "offset", "page"} <= parameters.keys(), path
        usual, greatest = PAGES[version]
        usual = PUBLISHED_LIMITS.get(path, usual)
        assert (parameters["limit"]["default"], parameters["limit"]["maximum"]) == (usual, greatest), path
    assert "v1" in seen


def test_bodies_refuse_unknown_fields_in_v1(document: dict[str, Any], operations: list[Operation]) -> None:
    schemas = document["components"]["schemas"]
    for method, path, operation in operations:
        content = operation.get("requestBody", {}).get("content", {})
        for media in content.values():
            name = media["schema"].get("$ref", "").rpartition("/")[2]
            if path.startswith("/api/v1/") and name:
                assert schemas[name].get("additionalProperties") is not True, f"{method} {path}"


def test_nothing_internal_is_in_it(app: Flask) -> None:
    text = app.extensions["longshore"].document.decode()
    for word in ("password_hash", "token_hash", str(Path.home()), str(Path.cwd())):
        assert word not in text

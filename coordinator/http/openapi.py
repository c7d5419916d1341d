"""The published OpenAPI 3.1 document: built by flask-smorest from the same declarations that are served."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import orjson
from flask import Flask
from flask_smorest import Api as SmorestApi
from flask_smorest import Blueprint
from marshmallow import Schema, fields
from werkzeug.exceptions import HTTPException

from coordinator.http import answering
from coordinator.http.call import ListOf
from coordinator.http.errors import CODE_OF_STATUS, ErrorBody
from coordinator.http.reading import PAGES
from coordinator.http.rights import describe
from coordinator.http.routing import IdConverter
from coordinator.http.schemas import View
from coordinator.http.slice import Endpoint
from shared import __version__

LIST_HEADERS = {
    "X-Total-Count": "how many items the whole list has",
    "X-Page-Offset": "how many items come before this page",
    "X-Page-Limit": "how many items a page has at most",
}
DESCRIPTION = (
    "Longshore runs AI agents and plain commands in isolated computers on a fleet of worker hosts. "
    'Every error has the body `{"error": {"code", "message", "details"}}`.'
)


class Pagination(View):
    """Where a page lies in its list."""

    page = fields.Integer()
    limit = fields.Integer()
    offset = fields.Integer()
    total = fields.Integer()
    pages = fields.Integer()


class Api(SmorestApi):
    """flask-smorest with our error body; our own handlers answer errors."""

    ERROR_SCHEMA = ErrorBody

    def _register_error_handlers(self) -> None:
        """Left out: `coordinator.http.errors` has registered its handlers."""

    def _register_etag_headers(self) -> None:
        """Left out: ours are declared below."""

    def _register_pagination_header(self) -> None:
        """Left out: our pages are told in other headers."""

    def handle_http_exception(self, error: HTTPException) -> Any:
        raise error


def make_api(app: Flask) -> Api:
    """The document's builder for this app."""
    app.config.update(
        API_TITLE="Longshore",
        API_VERSION=__version__,
        OPENAPI_VERSION="3.1.0",
        API_SPEC_OPTIONS={
            "info": {"description": DESCRIPTION, "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
            "servers": [{"url": "/"}],
            "security": [{"bearer": []}, {"apiKey": []}],
        },
    )
    api = Api(app)
    api.register_converter(IdConverter, lambda _: {"type": "string", "format": "uuid"})
    schemes = api.spec.components
    schemes.security_scheme("bearer", {"type": "http", "scheme": "bearer", "bearerFormat": "JWT or API key"})
    schemes.security_scheme("apiKey", {"type": "apiKey", "in": "header", "name": "X-API-Key"})
    for name, text in LIST_HEADERS.items():
        schemes.header(name, {"description": text, "schema": {"type": "integer"}}, lazy=True)
    for code in CODE_OF_STATUS.values():
        error = {"description": code, "content": {"application/json": {"schema": ErrorBody}}}
        schemes.response(code, error, lazy=True)
    schemes.header("ETag", {"description": "the version of the resource", "schema": {"type": "string"}}, lazy=True)
    schemes.header("Location", {"description": "where it is now", "schema": {"type": "string"}}, lazy=True)
    return api


def document(app: Flask) -> dict[str, Any]:
    """The whole document."""
    spec: dict[str, Any] = app.extensions["longshore"].api.spec.to_dict()
    return spec


def as_bytes(api: Api) -> bytes:
    """The document as it is served and kept as a snapshot."""
    return orjson.dumps(api.spec.to_dict(), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"


def documented(view: Any, endpoint: Endpoint, version: str) -> Any:
    """The view function carrying its operation."""
    return Blueprint.doc(**_operation(endpoint, version))(view)


def _operation(endpoint: Endpoint, version: str) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.operation_id(version),
        "summary": endpoint.summary,
        "tags": [endpoint.tag],
        "parameters": _parameters(endpoint, version),
        "responses": _responses(endpoint, version),
    }
    if endpoint.description:
        operation["description"] = endpoint.description
    if endpoint.is_open:
        operation["security"] = []
    else:
        operation["x-right"] = describe(endpoint.may)
    if endpoint.body is not None:
        operation["requestBody"] = _request_body(endpoint)
    return operation


def _request_body(endpoint: Endpoint) -> dict[str, Any]:
    media_type = "multipart/form-data" if endpoint.accepts == "multipart" else "application/json"
    content: dict[str, Any] = {"schema": endpoint.body}
    if endpoint.example is not None:
        content["example"] = endpoint.example
    schema = endpoint.body() if isinstance(endpoint.body, type) else endpoint.body
    return {"required": any(each.required for each in schema.fields.values()), "content": {media_type: content}}


def _parameters(endpoint: Endpoint, version: str) -> list[Any]:
    found: list[Any] = []
    if endpoint.query is not None:
        found.append({"in": "query", "schema": endpoint.query})
    if isinstance(endpoint.reply, ListOf):
        found += _page_parameters(version, endpoint.reply.usual)
    if endpoint.idempotent:
        text = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x21-\\x7e]+$"}
        found.append({"in": "header", "name": "Idempotency-Key", "schema": text})
    if endpoint.etag and endpoint.method == "GET":
        found.append({"in": "header", "name": "If-None-Match", "schema": {"type": "string"}})
    if endpoint.honours_if_match:
        found.append({"in": "header", "name": "If-Match", "schema": {"type": "string"}})
    return found


def _page_parameters(version: str, own: int | None) -> list[dict[str, Any]]:
    usual, greatest = PAGES[version]
    ranges = {
        "limit": {"type": "integer", "minimum": 1, "maximum": greatest, "default": own or usual},
        "offset": {"type": "integer", "minimum": 0, "maximum": 2**53},
        "page": {"type": "integer", "minimum": 1, "maximum": 2**53 // greatest},
    }
    return [{"in": "query", "name": name, "schema": schema} for name, schema in ranges.items()]


def _responses(endpoint: Endpoint, version: str) -> dict[str, Any]:
    found: dict[str, Any] = {str(endpoint.status): _success(endpoint, version)}
    if endpoint.etag and endpoint.method == "GET":
        found["304"] = {"description": HTTPStatus.NOT_MODIFIED.phrase}
    for status, shape in endpoint.also.items():
        content = {"application/json": {"schema": _reply_schema(shape, version)}}
        found[str(status)] = {"description": HTTPStatus(status).phrase, "content": content}
    for status in sorted(_error_statuses(endpoint)):
        found[str(status)] = CODE_OF_STATUS[status]
    return found


def _error_statuses(endpoint: Endpoint) -> set[int]:
    statuses = set(endpoint.errors)
    if not endpoint.is_open:
        statuses |= {401, 403}
    if endpoint.body is not None:
        statuses |= {400, 413, 415, 422}
    if endpoint.query is not None or isinstance(endpoint.reply, ListOf):
        statuses.add(422)
    if "<" in endpoint.path:
        statuses.add(404)
    if endpoint.idempotent:
        statuses |= {409, 422}
    if endpoint.honours_if_match:
        statuses.add(412)
    return statuses


def _success(endpoint: Endpoint, version: str) -> dict[str, Any]:
    found: dict[str, Any] = {"description": HTTPStatus(endpoint.status).phrase}
    headers = _success_headers(endpoint)
    if headers:
        found["headers"] = {name: name for name in headers}
    if endpoint.status == 204:
        return found
    content: dict[str, Any] = {"schema": _reply_schema(endpoint.reply, version)}
    if endpoint.returns == "binary":
        content = {"schema": {"type": "string", "format": "binary"}}
    elif endpoint.returns != "json":
        content = {"schema": {"type": "string"}}
    if endpoint.example_reply is not None:
        content["example"] = endpoint.example_reply
    found["content"] = {endpoint.media_type: content}
    return found


def _success_headers(endpoint: Endpoint) -> list[str]:
    names = list(LIST_HEADERS) if isinstance(endpoint.reply, ListOf) else []
    names += ["ETag"] if endpoint.etag else []
    return names + (["Location"] if endpoint.status == 201 else [])


def _reply_schema(reply: Any, version: str) -> Any:
    if reply is None:
        return {}
    if not isinstance(reply, ListOf):
        return reply
    items = {"type": "array", "items": reply.view}
    if version == "v0":
        return items
    return {
        "type": "object",
        "required": [reply.key, "pagination"],
        "properties": {reply.key: items, "pagination": Pagination},
    }


def check_reply(endpoint: Endpoint, version: str, value: Any, status: int) -> None:
    """Raise unless a reply is what its declaration says; switched on in tests, so the document cannot lie."""
    if status != endpoint.status and status not in endpoint.also and status != HTTPStatus.NO_CONTENT:
        raise AssertionError(f"{endpoint.name} answers {status}, which it does not declare")
    declared = endpoint.reply if status == endpoint.status else endpoint.also.get(status)
    if declared is None or endpoint.returns != "json":
        return
    plain = orjson.loads(answering.dump(value))
    if not isinstance(declared, ListOf):
        _require_shape(declared, plain)
        return
    for item in plain if version == "v0" else plain[declared.key]:
        _require_shape(declared.view, item)


def _require_shape(view: Any, plain: Any) -> None:
    schema: Schema = view() if isinstance(view, type) else view
    schema.load(plain, unknown="raise")

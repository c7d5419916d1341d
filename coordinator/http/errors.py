"""Every error as the one body `{"error": {"code", "message", "details"}}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import structlog
from flask import Flask, Response, request
from flask.typing import ResponseReturnValue
from marshmallow import Schema, fields
from sqlalchemy.exc import DBAPIError
from werkzeug.exceptions import HTTPException, MethodNotAllowed, RequestEntityTooLarge

from shared.errors import CODES, LongshoreError, Unauthenticated, Unavailable

RETRY_AFTER_SECONDS = 2
CODE_OF_STATUS = {status: code for code, status in reversed(CODES.items()) if code != "STALE_ATTEMPT"}
log = structlog.get_logger(__name__)


class ErrorDetail(Schema):
    """What went wrong: `code` for programs, `message` for people, `details` for both."""

    code = fields.String(required=True)
    message = fields.String(required=True)
    details = fields.Dict(required=True)


class ErrorBody(Schema):
    """The body of every error."""

    error = fields.Nested(ErrorDetail, required=True)


def answer(
    status: int,
    code: str,
    message: str,
    *,
    details: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The error body as a response."""
    body = {"error": {"code": code, "message": message, "details": details or {}}}
    return Response(orjson.dumps(body, default=str), status, headers=dict(headers or {}), mimetype="application/json")


def register_error_handlers(app: Flask) -> None:
    """Make the app answer every failure in our shape."""
    app.register_error_handler(LongshoreError, _ours)
    app.register_error_handler(HTTPException, _of_the_protocol)
    app.register_error_handler(Exception, _unforeseen)


def _ours(error: LongshoreError) -> ResponseReturnValue:
    if error.status == 500:
        return _unforeseen(error)
    headers: dict[str, str] = {}
    details = error.details
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = _challenge()
    if error.status in (429, 503):
        headers["Retry-After"] = str(max(1, round(details.get("retry_after_seconds", RETRY_AFTER_SECONDS))))
    if isinstance(error, Unavailable) and isinstance(error.__cause__, DBAPIError):
        # What a database says about itself (hosts, users, files) is for the log, not for the caller.
        log.error("database.unavailable", reason=str(details.get("reason", "")))
        details = {}
    return answer(error.status, error.code, error.message, details=details, headers=headers)


def _challenge() -> str:
    if "Authorization" in request.headers or "X-API-Key" in request.headers:
        return 'Bearer realm="longshore", error="invalid_token"'
    return 'Bearer realm="longshore"'


def _of_the_protocol(error: HTTPException) -> ResponseReturnValue:
    status = error.code or 500
    if status < 400:
        return error.get_response(request.environ)
    if status >= 500:
        return _unforeseen(error)
    headers: dict[str, str] = {}
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        headers["Allow"] = ", ".join(sorted(error.valid_methods))
    code = CODE_OF_STATUS.get(status, "BAD_REQUEST")
    return answer(status, code, _message(error), headers=headers)


def _message(error: HTTPException) -> str:
    if isinstance(error, RequestEntityTooLarge):
        return "the body is too large"
    if error.code == 404:
        return "there is nothing at this path"
    if isinstance(error, MethodNotAllowed):
        return f"{request.method} is not possible here"
    return error.name.lower()


def _unforeseen(error: Exception) -> ResponseReturnValue:
    """The caller learns a request id and nothing else; the log learns everything."""
    log.error("request.failed", method=request.method, path=request.path, exc_info=error)
    request_id = request.environ.get("longshore.request_id", "")
    return answer(500, "INTERNAL_ERROR", "something went wrong on our side", details={"request_id": request_id})

"""The outermost layer: the `/v1` alias, the request id, the clock of a request, the headers of every answer."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import structlog
from flask import Flask, Response, request

from coordinator.http.metrics import RequestMetrics
from shared.ids import new_id

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

REQUEST_ID = "longshore.request_id"
STARTED = "longshore.started"
QUIET = "longshore.quiet"
"""Set for endpoints that are asked all the time; see `quiet` of a declaration."""

_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")

API_POLICY = "default-src 'none'; frame-ancestors 'none'"
FIXED_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
)


class Outermost:
    """WSGI middleware in front of Flask."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ[STARTED] = time.perf_counter()
        given = environ.get("HTTP_X_REQUEST_ID", "")
        request_id = given if _SANE_ID.match(given) else new_id()
        environ[REQUEST_ID] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        path = environ.get("PATH_INFO", "")
        if path.startswith("/v1/"):
            environ["PATH_INFO"] = f"/api{path}"
        return self._app(environ, start_response)


def add_headers(response: Response, seconds: float) -> None:
    """Headers that belong on every answer, errors included."""
    headers = response.headers
    headers["X-Request-ID"] = request.environ[REQUEST_ID]
    headers["X-Response-Time"] = f"{seconds * 1000:.2f}ms"
    for name, value in FIXED_HEADERS:
        headers[name] = value
    if "Content-Security-Policy" not in headers:
        headers["Content-Security-Policy"] = API_POLICY
    if "Cache-Control" not in headers:
        headers["Cache-Control"] = "no-store"


def install(app: Flask, metrics: RequestMetrics) -> None:
    """Put the layer around the app."""
    app.wsgi_app = Outermost(app.wsgi_app)  # type: ignore[method-assign]

    @app.after_request
    def finish(response: Response) -> Response:
        seconds = time.perf_counter() - request.environ[STARTED]
        add_headers(response, seconds)
        route = request.url_rule.rule if request.url_rule is not None else "unmatched"
        metrics.observe(method=request.method, route=route, status=response.status_code, seconds=seconds)
        return response

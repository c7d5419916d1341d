"""The Swagger UI: our own page around the assets of the flask-swagger-ui wheel, under a strict policy."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

import flask_swagger_ui

from coordinator.http.call import Reply
from shared.errors import NotFound

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""`unsafe-inline` is for styles alone: the Swagger UI sets style attributes."""

OURS = {"index.html": "text/html; charset=utf-8", "init.js": "text/javascript; charset=utf-8"}
THEIRS = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "favicon-32x32.png": "image/png",
}
ASSET_HEADERS = {"Cache-Control": "public, max-age=3600", "Content-Security-Policy": POLICY}


def page() -> Reply:
    """The page itself."""
    return Reply(_read("index.html"), headers={"Content-Security-Policy": POLICY})


def asset(name: str) -> Reply:
    """A script, style or picture that the page asks for."""
    media_type = {**OURS, **THEIRS}.get(name)
    if media_type is None:
        raise NotFound("there is nothing at this path")
    return Reply(_read(name), headers={**ASSET_HEADERS, "Content-Type": media_type})


@lru_cache(maxsize=8)
def _read(name: str) -> bytes:
    if name in OURS:
        return resources.files("coordinator.http").joinpath("swagger", name).read_bytes()
    return resources.files(flask_swagger_ui).joinpath("dist", name).read_bytes()

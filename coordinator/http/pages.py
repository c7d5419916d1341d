"""Pages for people, each under a strict policy: the Swagger UI around the assets of its wheel, and the log-in page."""

from __future__ import annotations

import html
from functools import lru_cache
from importlib import resources
from string import Template

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


LOGIN_POLICY = (
    "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


def login_page(
    content: str, *, title: str = "Log in", fault: str = "", note: str = "", csrf: str = "", **values: str
) -> str:
    """The log-in page around one of its contents. Every value is made harmless here, and nowhere else."""
    safe = {name: html.escape(value) for name, value in values.items()} | {"csrf": html.escape(csrf)}
    told = "".join(
        f'<p class="{kind}" role="alert">{html.escape(text)}</p>\n'
        for kind, text in (("fault", fault), ("note", note))
        if text
    )
    inside = _template(f"{content}.html").substitute(safe)
    return _template("frame.html").substitute(
        title=html.escape(title), told=told, content=inside, csrf=safe["csrf"] if content == "somebody" else ""
    )


def login_style() -> Reply:
    """How the log-in page looks."""
    headers = {**ASSET_HEADERS, "Content-Type": "text/css; charset=utf-8"}
    return Reply(_text("style.css").encode(), headers=headers)


@lru_cache(maxsize=8)
def _template(name: str) -> Template:
    return Template(_text(name))


def _text(name: str) -> str:
    return resources.files("coordinator.http").joinpath("login_page", name).read_text()

"""The log-in page for browsers: works without scripts, asks nobody else, and leaves a cookie."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, current_app, request

from coordinator.domains.identity import entering, logins, sessions
from coordinator.domains.identity.logins import Entry, LoginRefused, SecondFactorNeeded
from coordinator.http import browser, pages
from coordinator.http.actor import Actor
from coordinator.http.auth import Credential
from coordinator.http.browser import FORM, SESSION, TOKEN_KIND, Browsers
from coordinator.http.slice import OPEN, Call, Reply, Slice
from shared.errors import Forbidden, Unauthenticated

log_in_page = Slice("log-in page", "Where people with a browser come in")

HOME = "/login"
"""Where to go after a login when nothing else was asked for."""
FORM_SECONDS = 3600
GREATEST_LOGIN, GREATEST_PASSWORD, GREATEST_CODE = 320, 1024, 64

WRONG = "That did not work. Check what you typed, or wait a while if you have tried often."
STALE = "This form was too old. Please try again."
RESTRICTED = "Your password has expired or a second factor has to be set up: until then, only your own account is open."


class PageRefused(Unauthenticated):
    """A refusal that is shown as a page; the trail is told like that of any other door."""

    def __init__(self, page: Response) -> None:
        super().__init__("name or password is wrong")
        self.page = page


class PageForbidden(Forbidden):
    """A form that is not of this browser, shown as a page."""

    def __init__(self) -> None:
        super().__init__("the form is not of this browser, or was too old")
        self.page = _form("password", status=403, fault=STALE)


def install(app: Flask) -> None:
    """Let the app show refusals of this page as a page."""
    app.register_error_handler(PageRefused, _shown)
    app.register_error_handler(PageForbidden, _shown)


def _shown(refusal: PageRefused | PageForbidden) -> Response:
    return refusal.page


@log_in_page.get(
    "/login", may=OPEN, door="free", transaction="none", returns="html", versions=("root",), documented=False
)
def show_log_in(call: Call) -> Response:
    """Ask for name and password; tell who it is to whoever is logged in."""
    credential, actor = _somebody(call)
    if credential is None or actor is None:
        return _form("password")
    token = _browsers().token_of(credential.claims or {})
    note = RESTRICTED if actor.limits is not None else ""
    return _page("somebody", title="Longshore", note=note, who=actor.email or actor.name, csrf=token)


@log_in_page.get(
    "/login/style.css",
    may=OPEN,
    door="free",
    transaction="none",
    returns="binary",
    versions=("root",),
    documented=False,
)
def get_log_in_style(_call: Call) -> Reply:
    """How the page looks."""
    return pages.login_style()


@log_in_page.post(
    "/login",
    may=OPEN,
    door="login",
    transaction="none",
    returns="html",
    versions=("root",),
    documented=False,
    audit="session.opened",
)
def log_in_by_page(call: Call) -> Response:
    """Log in with a form: first name and password, then a code where there is a second factor."""
    given = request.form
    if not _browsers().is_token_for("form", browser.form_cookie(request), given.get("csrf", "")):
        raise PageForbidden
    try:
        entry = _entry(call)
    except SecondFactorNeeded as needed:
        claims = logins.step_claims(needed)
        step = entering.tokens().mint("step", needed.principal.id, seconds=logins.STEP_SECONDS, claims=claims)
        with call.write() as tx:
            call.audit("session.begun", resource_id=needed.principal.id, resource_type="user", tx=tx)
        return _form("code", step=step)
    except LoginRefused:
        raise PageRefused(_form("password", status=401, fault=WRONG)) from None
    return _come_in(call, entry)


def _entry(call: Call) -> Entry:
    """Whoever the form is from; LoginRefused for everything that is wrong with it."""
    given = request.form
    if "step" in given:
        try:
            claims = entering.tokens().open(given["step"], "step")
        except Unauthenticated:
            raise LoginRefused(None, "the login that was begun is not good any more") from None
        return entering.went_on(call, claims, _field("code", GREATEST_CODE))
    return entering.logged_in(call, _field("user", GREATEST_LOGIN), _field("password", GREATEST_PASSWORD))


def _field(name: str, longest: int) -> str:
    text = request.form.get(name, "")
    if not text or len(text) > longest or "\0" in text:
        raise LoginRefused(None, f"no {name} that could be right")
    return text


def _come_in(call: Call, entry: Entry) -> Response:
    wanted = call.resources.settings.browser_session_seconds
    session = entering.opened(call, entry, seconds=wanted, refreshable=False, kind=TOKEN_KIND)
    seconds = session.seconds_of(wanted, call.resources.clock.now())
    claims = {"sid": session.id, **entry.claims}
    token = entering.tokens().mint(TOKEN_KIND, entry.principal.id, seconds=seconds, claims=claims)
    response = _redirect(browser.safe_target(request.form.get("next"), HOME))
    browser.set_cookie(response, request, SESSION, token, seconds=seconds)
    browser.clear_cookie(response, request, FORM)
    return response


@log_in_page.post(
    "/logout", may=OPEN, door="free", transaction="none", returns="html", versions=("root",), documented=False
)
def log_out_by_page(call: Call) -> Response:
    """End the login of this browser."""
    credential, actor = _somebody(call)
    if credential is not None and actor is not None:
        if not _browsers().is_token_of(credential.claims or {}, request.form.get("csrf", "")):
            raise PageForbidden
        _end(call, actor)
    response = _redirect(HOME)
    browser.clear_cookie(response, request, SESSION)
    return response


def _end(call: Call, actor: Actor) -> None:
    call.introduce(actor)
    with call.write() as tx:
        if sessions.end(tx, actor.credential_id or ""):
            call.audit("session.ended", resource_id=actor.credential_id, tx=tx)


def _somebody(call: Call) -> tuple[Credential | None, Actor | None]:
    """Whoever this browser is logged in as."""
    token = browser.session_cookie(request)
    if token is None:
        return None, None
    try:
        credential = _browsers().of_cookie(token)
        with call.read() as tx:
            return credential, current_app.extensions["longshore"].gatekeeper.admitted(tx, credential)
    except Unauthenticated:
        return None, None


def _browsers() -> Browsers:
    found: Browsers = current_app.extensions["longshore"].browsers
    return found


def _form(content: str, *, status: int = 200, **values: str) -> Response:
    """The page with a form that is good in this browser alone."""
    form = browser.form_cookie(request) or browser.new_form()
    target = browser.safe_target(request.values.get("next"), HOME)
    csrf = _browsers().token_for("form", form)
    response = _page(content, status=status, csrf=csrf, next=target, **values)
    browser.set_cookie(response, request, FORM, form, seconds=FORM_SECONDS)
    return response


def _page(content: str, *, status: int = 200, **values: Any) -> Response:
    response = Response(pages.login_page(content, **values), status, content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = pages.LOGIN_POLICY
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="longshore"'
    return response


def _redirect(target: str) -> Response:
    return Response(b"", 303, {"Location": target}, content_type="text/plain; charset=utf-8")

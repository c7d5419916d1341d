"""Logins of browsers: a cookie that scripts cannot read, and a token without which it changes nothing."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from typing import Any

from flask import Request, Response

from coordinator.http.auth import Credential, Gatekeeper, Tokens
from shared.errors import Forbidden

TOKEN_KIND = "browser"  # noqa: S105 - a kind, not a secret
SESSION, FORM = "longshore_session", "longshore_form"
CSRF_HEADER = "X-CSRF-Token"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
GREATEST_TARGET = 2048

_SAFE_TARGET = re.compile(r"/(?![/\\])[!-\[\]-~]*\Z")


class Browsers:
    """What a cookie is good for, and which token belongs to it."""

    def __init__(self, tokens: Tokens, gatekeeper: Gatekeeper, key: bytes) -> None:
        self._tokens = tokens
        self._gatekeeper = gatekeeper
        self._key = key

    def presented(self, request: Request) -> Credential:
        """What a request shows: a credential in its headers or, without one, a cookie.

        A browser sends its cookies with whatever any page makes it ask for. So what changes something has to bring the
        token of the session as well, which no other page can read.
        """
        token = session_cookie(request)
        if token is None or "Authorization" in request.headers or "X-API-Key" in request.headers:
            return self._gatekeeper.presented(request.headers)
        credential = self.of_cookie(token)
        if request.method not in SAFE_METHODS:
            given = request.headers.get(CSRF_HEADER, "")
            if not self.is_token_of(credential.claims or {}, given):
                raise Forbidden(f"send {CSRF_HEADER} with the token of this login")
        return credential

    def of_cookie(self, token: str) -> Credential:
        """The credential in a session's cookie; Unauthenticated for anything that is not in force."""
        return Credential(token, self._tokens.open(token, TOKEN_KIND))

    def token_of(self, claims: Mapping[str, Any]) -> str:
        """The token that belongs to the session of these claims."""
        return self.token_for("session", str(claims.get("sid")))

    def is_token_of(self, claims: Mapping[str, Any], given: str) -> bool:
        return self.is_token_for("session", str(claims.get("sid")), given)

    def token_for(self, purpose: str, bound_to: str) -> str:
        return hmac.new(self._key, f"{purpose}:{bound_to}".encode(), hashlib.sha256).hexdigest()

    def is_token_for(self, purpose: str, bound_to: str, given: str) -> bool:
        # As bytes: comparing texts raises for one that is not ASCII.
        return hmac.compare_digest(self.token_for(purpose, bound_to).encode(), given.encode())


def new_form() -> str:
    """What ties a form to the browser that it was shown to."""
    return secrets.token_urlsafe(24)


def session_cookie(request: Request) -> str | None:
    return request.cookies.get(cookie_name(SESSION, request)) or None


def form_cookie(request: Request) -> str:
    return request.cookies.get(cookie_name(FORM, request), "")


def cookie_name(name: str, request: Request) -> str:
    """With its prefix a browser takes a cookie only over TLS, from this very host: no neighbour can plant one."""
    return f"__Host-{name}" if request.is_secure else name


def set_cookie(response: Response, request: Request, name: str, value: str, *, seconds: int | None) -> None:
    """A cookie for this host alone, out of reach for scripts. A form's goes nowhere from another site's page."""
    response.set_cookie(
        cookie_name(name, request),
        value,
        max_age=seconds,
        path="/",
        secure=request.is_secure,
        httponly=True,
        samesite="Strict" if name == FORM else "Lax",
    )


def clear_cookie(response: Response, request: Request, name: str) -> None:
    response.delete_cookie(
        cookie_name(name, request), path="/", secure=request.is_secure, httponly=True, samesite="Lax"
    )


def safe_target(wanted: str | None, usual: str) -> str:
    """A path of this server to go to; `usual` for whatever might lead somewhere else."""
    if wanted and len(wanted) <= GREATEST_TARGET and _SAFE_TARGET.match(wanted):
        return wanted
    return usual

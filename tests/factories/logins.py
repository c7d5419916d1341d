"""Logging in over HTTP, and what an authenticator on somebody's telephone shows."""

from __future__ import annotations

from typing import Any

import pyotp
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared.clock import FrozenClock

PASSWORD = "Correct-horse-7-battery"


def tried(
    client: FlaskClient, login: str, password: str, *, address: str = "192.0.2.1", **further: Any
) -> TestResponse:
    """The answer to a login from this address."""
    return client.post(
        "/api/v1/auth/login",
        json={"email": login, "password": password, **further},
        environ_base={"REMOTE_ADDR": address},
    )


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def logged_in(client: FlaskClient, login: str, password: str = PASSWORD, **further: Any) -> dict[str, Any]:
    """The pair of tokens of a login."""
    answer = tried(client, login, password, **further)
    assert answer.status_code == 200, answer.json
    assert answer.json is not None
    found: dict[str, Any] = answer.json
    return found


def headers_of(client: FlaskClient, login: str, password: str = PASSWORD, **further: Any) -> dict[str, str]:
    """Headers of a session that was opened by a login."""
    return bearer(logged_in(client, login, password, **further)["access_token"])


def code_of(secret: str, clock: FrozenClock, *, steps: int = 0) -> str:
    """What the authenticator shows now, or some steps from now."""
    return pyotp.TOTP(secret).at(clock.now(), counter_offset=steps)


def with_second_factor(client: FlaskClient, headers: dict[str, str], clock: FrozenClock) -> dict[str, Any]:
    """What setting up a second factor showed, confirmed; the next code to use is that of a later step."""
    setup = client.post("/api/v1/auth/mfa/setup", headers=headers)
    assert setup.status_code == 200, setup.json
    assert setup.json is not None
    found: dict[str, Any] = setup.json
    code = code_of(found["secret"], clock)
    confirmed = client.post("/api/v1/auth/mfa/verify", json={"code": code}, headers=headers)
    assert confirmed.status_code == 200, confirmed.json
    return found

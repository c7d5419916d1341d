"""Endpoints of v1 for one's own account: profile, password, second factor, going out."""

from __future__ import annotations

from typing import Any

from flask import current_app, request

from coordinator.domains.identity import (
    entering,
    logins,
    password_policy,
    second_factor,
    security,
    sessions,
    store,
    users,
)
from coordinator.domains.identity.login_schemas import (
    ChangePasswordBody,
    EndedView,
    LogoutBody,
    MfaDisableBody,
    MfaSetupView,
    MfaStateView,
    ProfileBody,
    ProfileView,
    VerifyAnswer,
    VerifyBody,
    code_of,
)
from coordinator.domains.identity.password_policy import WeakPassword
from coordinator.domains.identity.store import Principal
from coordinator.domains.vault.keyring import Keyring
from coordinator.http import rights
from coordinator.http.actor import Actor, ActorKind
from coordinator.http.slice import OPEN, Call, Reply, Slice
from coordinator.store.database import Transaction
from shared.errors import BadRequest, Conflict, Forbidden, Unauthenticated

own_account = Slice("account", "One's own account")


@own_account.get("/auth/me", may="account:read", reply=ProfileView, etag=True)
def get_me(call: Call) -> dict[str, Any]:
    """Who the caller is."""
    return _profile(call.tx, _myself(call.tx, call.actor))


@own_account.put("/auth/me", may="account:write", body=ProfileBody, reply=ProfileView, etag=True, errors=(409,))
def update_me(call: Call) -> dict[str, Any]:
    """Change one's name for people or e-mail address."""
    require_login(call.actor)
    found = _held(call.tx, call.actor)
    call.require_version(found.version)
    changed = users.change(call.tx, found, call.body)
    told = {name: getattr(found, name) for name in call.body}
    call.audit("user.changed", resource_id=found.id, before=told, after=call.body)
    return _profile(call.tx, changed)


@own_account.post(
    "/auth/change-password",
    may="account:write",
    body=ChangePasswordBody,
    reply=EndedView,
    transaction="none",
    audit="user.password_changed",
    errors=(400,),
)
def change_password(call: Call) -> dict[str, Any]:
    """Choose another password. All other sessions end; a token that was restricted for it is renewed by a refresh."""
    require_login(call.actor)
    with call.read() as tx:
        me = _myself(tx, call.actor)
    _require_proof(call, me, password=call.body["current_password"])
    try:
        chosen = password_policy.choose(
            call.resources,
            call.body["new_password"],
            names=(me.name, me.email),
            principal=me,
            field="new_password",
        )
    except WeakPassword as weak:
        raise BadRequest(weak.message, **weak.details) from weak
    with call.write() as tx:
        held = _held(tx, call.actor)
        if held.password_hash != me.password_hash:
            raise Conflict("the password was changed by somebody else meanwhile")
        ended = password_policy.set_password(tx, held, chosen, keep_session=call.actor.credential_id)
        call.audit("user.password_changed", resource_id=me.id, after={"ended_sessions": len(ended)}, tx=tx)
    return {"message": "the password was changed", "ended_sessions": len(ended)}


@own_account.post(
    "/auth/logout", may="account:write", body=LogoutBody, reply=EndedView, audit="session.ended", idempotent=False
)
def log_out(call: Call) -> dict[str, Any]:
    """End this session and, if its refresh token is sent along, another one of one's own."""
    require_login(call.actor)
    wanted = [call.actor.credential_id or "", *_other_session(call)]
    ended = [each for each in dict.fromkeys(wanted) if sessions.end(call.tx, each)]
    for each in ended:
        call.audit("session.ended", resource_id=each)
    return {"message": "logged out", "ended_sessions": len(ended)}


def _other_session(call: Call) -> list[str]:
    """The session of the refresh token in the body, if it is one of the caller's."""
    token = call.body.get("refresh_token")
    claims = None if token is None else entering.tokens().claimed(token)
    if claims is None or claims.get("type") != "refresh" or claims["sub"] != call.actor.id:
        return []
    found = sessions.find(call.tx, str(claims.get("sid")))
    return [found.id] if found is not None and found.principal_id == call.actor.id else []


# ---- the second factor


@own_account.post(
    "/auth/mfa/setup",
    may="account:write",
    reply=MfaSetupView,
    audit="user.mfa_started",
    idempotent=False,
    errors=(409,),
)
def set_up_mfa(call: Call) -> Reply:
    """Begin to set up a second factor. Secret and recovery codes are shown this once.

    Nothing is asked for at login before POST /auth/mfa/verify has confirmed it with a code.
    """
    require_login(call.actor)
    me = _held(call.tx, call.actor)
    if not security.current(call.tx).mfa.enabled:
        raise Conflict("an admin has switched second factors off")
    if second_factor.is_confirmed(call.tx, me.id):
        raise Conflict("there is a second factor already: disable it first")
    setup = second_factor.begin(call.tx, Keyring.of(call.resources), me)
    call.audit("user.mfa_started", resource_id=me.id)
    value = {
        "secret": setup.secret,
        "otpauth_uri": setup.otpauth_uri,
        "qr_code": setup.qr_code,
        "recovery_codes": list(setup.recovery_codes),
    }
    return Reply(value, secret_fields=tuple(value))


@own_account.post(
    "/auth/mfa/verify",
    may=OPEN,
    body=VerifyBody,
    reply=VerifyAnswer,
    transaction="none",
    audit=("session.opened", "user.mfa_enabled"),
    door="login",
    errors=(400, 401, 409, 429),
    name="verify_mfa",
)
def verify_mfa(call: Call) -> dict[str, Any]:
    """Finish a login with a code (`temp_token`), or confirm with one that a second factor is set up (Bearer)."""
    code = code_of(call.body) or ""
    token = call.body.get("temp_token")
    if token is None:
        return _confirmed(call, code)
    claims = entering.tokens().open(token, "step")
    return entering.let_in(call, entering.went_on(call, claims, code))


def _confirmed(call: Call, code: str) -> dict[str, Any]:
    gatekeeper = current_app.extensions["longshore"].gatekeeper
    credential = gatekeeper.presented(request.headers)
    wrong = False
    with call.write() as tx:
        actor: Actor = gatekeeper.admitted(tx, credential)
        call.introduce(actor)
        rights.require(("account:update",), actor, {})
        require_login(actor)
        me = _held(tx, actor)
        wrong = not _accepted(call, tx, me, code)
        if not wrong:
            second_factor.confirm(tx, me.id)
            call.audit("user.mfa_enabled", resource_id=me.id, tx=tx)
    if wrong:
        raise BadRequest("the code is wrong", field="code", reason="wrong")
    return {"mfa_required": False, "mfa_enabled": True}


def _accepted(call: Call, tx: Transaction, me: Principal, code: str) -> bool:
    if second_factor.is_confirmed(tx, me.id):
        raise Conflict("the second factor is set up already")
    if not second_factor.is_begun(tx, me.id):
        raise Conflict("begin with POST /auth/mfa/setup")
    return second_factor.accept(tx, Keyring.of(call.resources), me.id, code) is not None


@own_account.post(
    "/auth/mfa/disable",
    may="account:write",
    body=MfaDisableBody,
    reply=MfaStateView,
    transaction="none",
    audit="user.mfa_disabled",
    errors=(400,),
)
def disable_mfa(call: Call) -> dict[str, Any]:
    """Take the second factor away, with the password or a code."""
    require_login(call.actor)
    with call.read() as tx:
        me = _myself(tx, call.actor)
    _require_proof(call, me, password=call.body.get("password"), code=code_of(call.body))
    with call.write() as tx:
        had = second_factor.remove(tx, me.id)
        call.audit("user.mfa_disabled", resource_id=me.id, before={"mfa_enabled": had}, tx=tx)
    return {"mfa_enabled": False}


# ---- who is asking


def require_login(actor: Actor) -> None:
    """Whoever found a key must not be able to make more of it than it is."""
    if actor.kind == ActorKind.API_KEY:
        raise Forbidden("an API key cannot do this: log in", reason="login_needed")


def _require_proof(call: Call, me: Principal, *, password: str | None = None, code: str | None = None) -> None:
    if me.password_hash is None and password is not None:
        raise BadRequest("there is no password: whoever logs you in keeps it", reason="no_password")
    proved = logins.proves_again(call.resources, me, password=password, code=code, address=call.witness.address)
    if not proved:
        wrong = "current_password" if "current_password" in call.body else "password" if password else "code"
        raise BadRequest(f"{wrong}: is wrong", field=wrong, reason="is wrong")


def _myself(tx: Transaction, actor: Actor) -> Principal:
    found = store.find(tx, actor.id)
    if found is None:
        raise Unauthenticated("the credential is not valid")
    return found


def _held(tx: Transaction, actor: Actor) -> Principal:
    """The caller, whom nobody else changes until the transaction ends."""
    found = store.lock(tx, actor.id)
    if found is None:
        raise Unauthenticated("the credential is not valid")
    return found


def _profile(tx: Transaction, me: Principal) -> dict[str, Any]:
    return entering.person(me) | {
        "mfa_enabled": second_factor.is_confirmed(tx, me.id),
        "password_changed_at": me.password_changed_at,
        "version": me.version,
    }

"""Shapes of logging in, registering and looking after one's own account."""

from __future__ import annotations

import re
from typing import Any

from marshmallow import ValidationError, pre_load

from coordinator.domains.identity.schemas import LoginBody, UserView
from coordinator.http.schemas import Body, Moment, View, fields, name_field, validate

_CODE_SPELLINGS = ("code", "totp_code", "token", "recovery_code")
_SECRET: dict[str, Any] = {"secret": True}
_OPTIONAL: dict[str, Any] = {"optional": True}
_ADDRESS = re.compile(r"[^\s@,;<>\"']+@[^\s@,;<>\"']+\Z")


def email_field(**options: Any) -> fields.String:
    """An e-mail address. Whether anybody reads it, only sending tells; the host may be a name without a dot."""
    rules = [validate.Length(3, 320), validate.Regexp(_ADDRESS, error="must be an e-mail address")]
    return fields.String(validate=rules, **options)


def password_field(**options: Any) -> fields.String:
    return fields.String(validate=validate.Length(1, 1024), metadata=_SECRET, **options)


def code_field() -> fields.String:
    return fields.String(validate=validate.Length(1, 64), metadata=_SECRET)


class CodeBody(Body):
    """A code of the second factor, whatever its spelling."""

    code = code_field()
    totp_code = code_field()
    token = code_field()


def code_of(body: dict[str, Any]) -> str | None:
    """The code, whatever its spelling."""
    return next((body[each] for each in _CODE_SPELLINGS if each in body), None)


class V1LoginBody(LoginBody):
    """Who one is and the proof. With a second factor the code may come at once, or in a second step."""

    code = code_field()
    totp_code = code_field()


class VerifyBody(CodeBody):
    """A code, which finishes a login (`temp_token`) or the set-up of a second factor."""

    temp_token = fields.String(validate=validate.Length(1, 4096), metadata=_SECRET)
    recovery_code = code_field()

    @pre_load
    def _require_a_code(self, data: Any, **_: Any) -> Any:
        if not any(data.get(each) for each in _CODE_SPELLINGS):
            raise ValidationError({"code": ["Missing data for required field."]})
        return data


class Standing(View):
    """What one has to do before the tokens are good for everything."""

    restricted = fields.Boolean(metadata={"description": "the access token is good for one's own account alone"})
    password_expired = fields.Boolean()
    mfa_setup_required = fields.Boolean()
    mfa_grace_ends_at = Moment(allow_none=True)


class TokenPair(Standing):
    """An access token to call with, a refresh token to get the next pair."""

    access_token = fields.String()
    refresh_token = fields.String()
    token_type = fields.String()
    expires_in = fields.Integer(metadata={"description": "seconds that the access token is good for"})
    expires_at = Moment()
    mfa_required = fields.Boolean()
    user = fields.Nested(UserView)


class LoginAnswer(View):
    """A pair of tokens or, where a second factor is asked for, a token for the second step."""

    mfa_required = fields.Boolean()
    temp_token = fields.String(metadata={**_OPTIONAL, "description": "for POST /auth/mfa/verify, with a code"})
    expires_in = fields.Integer(metadata={"description": "seconds that the access or temporary token is good for"})
    expires_at = Moment()
    access_token = fields.String(metadata=_OPTIONAL)
    refresh_token = fields.String(metadata=_OPTIONAL)
    token_type = fields.String(metadata=_OPTIONAL)
    user = fields.Nested(UserView, metadata=_OPTIONAL)
    restricted = fields.Boolean(metadata=_OPTIONAL)
    password_expired = fields.Boolean(metadata=_OPTIONAL)
    mfa_setup_required = fields.Boolean(metadata=_OPTIONAL)
    mfa_grace_ends_at = Moment(allow_none=True, metadata=_OPTIONAL)


class VerifyAnswer(LoginAnswer):
    """The pair of tokens of a finished login, or that the second factor is set up."""

    mfa_enabled = fields.Boolean(metadata=_OPTIONAL)
    expires_in = fields.Integer(metadata=_OPTIONAL)
    expires_at = Moment(metadata=_OPTIONAL)


class RegisterBody(Body):
    """A new account. The name is the e-mail address unless it is given."""

    email = email_field(required=True)
    password = password_field(required=True)
    full_name = name_field(allow_none=True)
    name = name_field()


class ProfileBody(Body):
    """What one may change about oneself."""

    full_name = name_field(allow_none=True)
    email = email_field()


class ProfileView(UserView):
    """A principal as it sees itself."""

    mfa_enabled = fields.Boolean()
    password_changed_at = Moment(allow_none=True)
    version = fields.Integer()


class ChangePasswordBody(Body):
    """The password until now and the next one."""

    current_password = password_field(required=True)
    new_password = password_field(required=True)


class EndedView(View):
    """What became of sessions."""

    message = fields.String()
    ended_sessions = fields.Integer()


class LogoutBody(Body):
    """Nothing, or the refresh token of another session that is to end as well."""

    refresh_token = fields.String(validate=validate.Length(1, 4096), metadata=_SECRET)


class MfaSetupView(View):
    """What an authenticator needs, and the codes for when it is lost. Shown once."""

    secret = fields.String()
    otpauth_uri = fields.String()
    qr_code = fields.String(metadata={"description": "a picture as a data URI"})
    recovery_codes = fields.List(fields.String())


class MfaDisableBody(CodeBody):
    """The password, or a code."""

    password = password_field()
    recovery_code = code_field()

    @pre_load
    def _require_a_proof(self, data: Any, **_: Any) -> Any:
        if not any(data.get(each) for each in (*_CODE_SPELLINGS, "password")):
            raise ValidationError({"password": ["Send the password or a code."]})
        return data


class MfaStateView(View):
    """Whether there is a second factor."""

    mfa_enabled = fields.Boolean()

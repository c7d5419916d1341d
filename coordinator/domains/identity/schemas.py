"""Shapes of the identity domain on the wire."""

from __future__ import annotations

from typing import Any, ClassVar

from marshmallow import ValidationError, pre_load

from coordinator.http.schemas import Body, IdField, Moment, View, fields, validate

_LOGIN_SPELLINGS = ("email", "username", "user", "name")
_PASSWORD_SPELLINGS = ("password", "pass")


class LoginBody(Body):
    """Who one is and the proof. `email` also takes the name."""

    email = fields.String(validate=validate.Length(1, 320))
    username = fields.String(validate=validate.Length(1, 320))
    user = fields.String(validate=validate.Length(1, 320))
    name = fields.String(validate=validate.Length(1, 320))
    password = fields.String(validate=validate.Length(1, 1024))

    class Meta(Body.Meta):
        include: ClassVar[dict[str, Any]] = {"pass": fields.String(validate=validate.Length(1, 1024))}

    @pre_load
    def _require_both(self, data: Any, **_: Any) -> Any:
        missing: dict[str, list[str]] = {}
        if not any(data.get(each) for each in _LOGIN_SPELLINGS):
            missing["email"] = ["Missing data for required field."]
        if not any(data.get(each) for each in _PASSWORD_SPELLINGS):
            missing["password"] = ["Missing data for required field."]
        if missing:
            raise ValidationError(missing)
        return data


def login_and_password(body: dict[str, Any]) -> tuple[str, str]:
    """The two values, whatever their spelling."""
    login = next(body[each] for each in _LOGIN_SPELLINGS if each in body)
    password = next(body[each] for each in _PASSWORD_SPELLINGS if each in body)
    return login, password


class RefreshBody(Body):
    """A refresh token, to be exchanged for a new pair."""

    refresh_token = fields.String(required=True, validate=validate.Length(1, 4096))


class UserView(View):
    """A principal as it sees itself."""

    id = IdField()
    kind = fields.String()
    name = fields.String()
    email = fields.String(allow_none=True)
    full_name = fields.String(allow_none=True)
    role = fields.String()
    is_active = fields.Boolean()
    created_at = Moment()
    updated_at = Moment()
    last_login_at = Moment(allow_none=True)


class V0Token(View):
    """A token to call with."""

    token = fields.String()
    token_type = fields.String()
    expires_at = Moment()
    user = fields.String()
    role = fields.String()


class V0Me(View):
    """Who the caller is."""

    user = fields.String()
    namespace = fields.String(allow_none=True)
    type = fields.String()

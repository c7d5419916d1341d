"""Shapes of logging in by name."""

from __future__ import annotations

from typing import Any, ClassVar

from marshmallow import ValidationError, pre_load

from coordinator.domains.identity.login_schemas import code_field
from coordinator.domains.identity.roles_schemas import plain_name
from coordinator.domains.identity.v0_logins import TYPES
from coordinator.http.schemas import Body, fields, validate

_SECRET: dict[str, Any] = {"secret": True}


def _pass() -> fields.String:
    return fields.String(required=True, validate=validate.Length(1, 1024), metadata=_SECRET)


class V0LoginBody(Body):
    """Name and password, and a code (`code` or `totp_code`) where a second factor is set up."""

    user = fields.String(required=True, validate=validate.Length(1, 320))
    code = code_field()
    totp_code = code_field()

    class Meta(Body.Meta):
        include: ClassVar[dict[str, Any]] = {"pass": _pass()}


class OperatorLoginBody(V0LoginBody):
    """A password; the name is in the path and may come along."""

    user = fields.String(validate=validate.Length(1, 320), allow_none=True)


class TokenForBody(Body):
    """For whom a token is to be. `principal_type` is another spelling of `type`."""

    principal = fields.String(
        required=True,
        validate=[
            validate.Regexp(
                r"^[A-Za-z0-9_.@+-]{1,255}\Z", error="must be 1 to 255 letters, digits and any of . - _ @ +"
            ),
            plain_name,
        ],
    )
    type = fields.String(required=True, validate=validate.OneOf(TYPES))

    @pre_load
    def _one_spelling(self, data: Any, **_: Any) -> Any:
        if not isinstance(data, dict) or data.get("principal_type") is None:
            return data
        if data.get("type") not in (None, data["principal_type"]):
            raise ValidationError({"type": ["type and principal_type differ"]})
        rest = {name: value for name, value in data.items() if name != "principal_type"}
        return {**rest, "type": data["principal_type"]}

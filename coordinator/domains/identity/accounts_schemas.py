"""Shapes of service accounts and operators on the wire."""

from __future__ import annotations

from typing import Any, ClassVar

from coordinator.domains.identity.roles_schemas import plain_name
from coordinator.http.schemas import Body, Moment, View, fields, validate

_SECRET: dict[str, Any] = {"secret": True}
NAME = validate.Regexp(r"^[A-Za-z0-9_.-]{1,255}\Z", error="must be 1 to 255 letters, digits, dots, dashes, underscores")


def _password(**options: Any) -> fields.String:
    return fields.String(validate=validate.Length(1, 1024), metadata=_SECRET, **options)


class AccountBody(Body):
    """A new account, which holds no role yet. `namespace`, `space` and `scope` are taken and mean nothing."""

    user = fields.String(required=True, validate=[NAME, plain_name])
    description = fields.String(allow_none=True, validate=validate.Length(max=1000))

    class Meta(Body.Meta):
        include: ClassVar[dict[str, Any]] = {"pass": _password(required=True)}


class AccountChanges(Body):
    """What may be changed about an account; what is left out stays."""

    description = fields.String(allow_none=True, validate=validate.Length(max=1000))
    active = fields.Boolean(truthy={True}, falsy={False})


class AccountPasswordBody(Body):
    """The next password and, from its owner, the one until now. Who sets it for somebody else may leave that out."""

    current_password = _password(allow_none=True)
    new_password = _password(required=True)


class AccountView(View):
    """An account. It belongs to no space: what it may do in which is in its role bindings."""

    id = fields.String()
    user = fields.String()
    namespace = fields.String(allow_none=True)
    space = fields.String(allow_none=True)
    scope = fields.String(allow_none=True)
    description = fields.String(allow_none=True)
    active = fields.Boolean()
    created_at = Moment()
    updated_at = Moment()
    last_login_at = Moment(allow_none=True)

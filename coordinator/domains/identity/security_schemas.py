"""Shapes of the security settings, and of sessions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from coordinator.domains.identity.rights import Role
from coordinator.http.schemas import Body, IdField, Moment, View, fields, validate


def _whole(low: int, high: int) -> fields.Integer:
    return fields.Integer(strict=True, validate=validate.Range(low, high))


_PASSWORDS: Mapping[str, fields.Field[Any]] = {
    "min_length": _whole(8, 128),
    "require_uppercase": fields.Boolean(),
    "require_lowercase": fields.Boolean(),
    "require_digit": fields.Boolean(),
    "require_special": fields.Boolean(),
    "history_count": _whole(0, 24),
    "max_age_days": _whole(0, 3650),
}
_MFA: Mapping[str, fields.Field[Any]] = {
    "enabled": fields.Boolean(),
    "required": fields.Boolean(),
    "methods": fields.List(fields.String(validate=validate.OneOf(["totp"])), validate=validate.Length(1, 1)),
    "grace_period_hours": _whole(0, 24 * 90),
}
_SESSION: Mapping[str, fields.Field[Any]] = {
    "max_duration_hours": _whole(1, 24 * 365),
    "idle_timeout_minutes": _whole(1, 60 * 24 * 365),
    "max_concurrent_sessions": _whole(0, 10_000),
}
_LOCKOUT: Mapping[str, fields.Field[Any]] = {
    "max_failures": _whole(1, 100),
    "max_failures_elsewhere": _whole(1, 10_000),
    "lockout_minutes": _whole(1, 60 * 24),
}
_REGISTRATION: Mapping[str, fields.Field[Any]] = {
    "allow_registration": fields.Boolean(allow_none=True),
    # Whoever registers is nobody yet: that there is an admin more is for admins to decide one by one.
    "default_role": fields.String(
        allow_none=True, validate=validate.OneOf([role.value for role in Role if role is not Role.ADMIN])
    ),
}


class PasswordPolicyBody(Body):
    """What a password must be like; what is not named stays as it is. 0 switches age or history off."""

    class Meta(Body.Meta):
        include: ClassVar[dict[str, Any]] = dict(_PASSWORDS)


class MfaBody(Body):
    """Whether a second factor may, or must, be set up."""

    class Meta(Body.Meta):
        include: ClassVar[dict[str, Any]] = dict(_MFA)


class SessionBody(Body):
    """How long a login lasts; 0 sessions at a time are as many as one likes."""

    class Meta(Body.Meta):
        include: ClassVar[dict[str, Any]] = dict(_SESSION)


class LockoutBody(Body):
    """After how many failures nothing is accepted for a while."""

    class Meta(Body.Meta):
        include: ClassVar[dict[str, Any]] = dict(_LOCKOUT)


class RegistrationBody(Body):
    """Whether people may make accounts for themselves; null leaves it to where the server listens."""

    class Meta(Body.Meta):
        include: ClassVar[dict[str, Any]] = dict(_REGISTRATION)


class SecurityBody(Body):
    """Any of the sections, and in them any of the fields."""

    password_policy = fields.Nested(PasswordPolicyBody)
    mfa = fields.Nested(MfaBody)
    session = fields.Nested(SessionBody)
    lockout = fields.Nested(LockoutBody)
    registration = fields.Nested(RegistrationBody)


class PasswordPolicyView(View):
    """What a password must be like."""

    class Meta(View.Meta):
        include: ClassVar[dict[str, Any]] = dict(_PASSWORDS)


class MfaView(View):
    """Whether a second factor may, or must, be set up, and since when it must."""

    required_since = fields.String(allow_none=True)

    class Meta(View.Meta):
        include: ClassVar[dict[str, Any]] = dict(_MFA)


class SessionPolicyView(View):
    """How long a login lasts."""

    class Meta(View.Meta):
        include: ClassVar[dict[str, Any]] = dict(_SESSION)


class LockoutView(View):
    """After how many failures nothing is accepted for a while."""

    class Meta(View.Meta):
        include: ClassVar[dict[str, Any]] = dict(_LOCKOUT)


class RegistrationView(View):
    """Whether people may make accounts for themselves, and with which role; what holds where nothing was decided."""

    allow_registration = fields.Boolean()
    default_role = fields.String()
    is_decided = fields.Boolean(metadata={"description": "an admin said so; otherwise it follows from the address"})


class SecurityView(View):
    """What is in force."""

    password_policy = fields.Nested(PasswordPolicyView)
    mfa = fields.Nested(MfaView)
    session = fields.Nested(SessionPolicyView)
    lockout = fields.Nested(LockoutView)
    registration = fields.Nested(RegistrationView)


class SessionView(View):
    """A login that is not over."""

    id = IdField()
    user_id = IdField()
    kind = fields.String()
    ip_address = fields.String(allow_none=True)
    user_agent = fields.String(allow_none=True)
    created_at = Moment()
    last_used_at = Moment()
    expires_at = Moment()
    is_current = fields.Boolean()

"""Shapes of users as admins see and change them."""

from __future__ import annotations

from coordinator.domains.identity.keys import PLANS
from coordinator.domains.identity.login_schemas import email_field, password_field
from coordinator.domains.identity.rights import Role
from coordinator.domains.identity.schemas import UserView
from coordinator.http.schemas import Body, IdField, Moment, fields, name_field, validate


def role_field(**options: object) -> fields.String:
    return fields.String(validate=validate.OneOf([role.value for role in Role]), **options)  # type: ignore[arg-type]


def plan_field() -> fields.String:
    return fields.String(validate=validate.OneOf(PLANS))


class NewUserBody(Body):
    """A new user. The name is the e-mail address unless it is given."""

    email = email_field(required=True)
    password = password_field(required=True)
    full_name = name_field(allow_none=True)
    name = name_field()
    role = role_field(load_default=Role.VIEWER.value)
    plan = plan_field()
    is_active = fields.Boolean()


class ChangeUserBody(Body):
    """What an admin may change about somebody; what is not named stays as it is."""

    email = email_field()
    full_name = name_field(allow_none=True)
    role = role_field()
    plan = plan_field()
    is_active = fields.Boolean()
    password = password_field()
    reset_mfa = fields.Boolean(metadata={"description": "forget the second factor of somebody who lost it"})
    unlock = fields.Boolean(metadata={"description": "let somebody try again who was locked out"})


class AdminUserView(UserView):
    """A user as an admin sees it."""

    plan = fields.String()
    mfa_enabled = fields.Boolean()
    created_by = IdField(allow_none=True)
    password_changed_at = Moment(allow_none=True)
    version = fields.Integer()

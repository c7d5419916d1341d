"""Shapes of API keys."""

from __future__ import annotations

from coordinator.domains.identity import scopes
from coordinator.domains.identity.user_schemas import plan_field
from coordinator.http.schemas import Body, IdField, Moment, ValidationError, View, fields, name_field, validate


def _known(scope: str) -> None:
    if not scopes.is_known(scope):
        raise ValidationError("must be read, write, admin, or noun:verb like tasks:create")


class KeyBody(Body):
    """A new key. Without scopes it reads."""

    name = name_field(required=True)
    scopes = fields.List(
        fields.String(validate=_known), load_default=list(scopes.DEFAULT), validate=validate.Length(1, 50)
    )
    expires_at = Moment(allow_none=True)
    plan = plan_field()


class KeyView(View):
    """A key, without what makes it one."""

    id = IdField()
    name = fields.String()
    prefix = fields.String(metadata={"description": "what the key begins with"})
    scopes = fields.List(fields.String())
    plan = fields.String(allow_none=True)
    created_at = Moment()
    expires_at = Moment(allow_none=True)
    last_used_at = Moment(allow_none=True)
    last_used_address = fields.String(allow_none=True)


class NewKeyView(KeyView):
    """A new key. `key` is shown this once."""

    key = fields.String(metadata={"optional": True})

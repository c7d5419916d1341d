"""Shapes of roles on the wire."""

from __future__ import annotations

from typing import Any

from marshmallow import ValidationError, pre_load

from coordinator.domains.identity.rule_words import ALIASES
from coordinator.http.schemas import Body, Moment, View, fields, validate
from shared.ids import is_id

MAX_RULES = 100
MAX_WORDS = 200
SCOPES = ("global", "space")


def plain_name(text: str) -> None:
    """Refuse names that could be taken for ids: paths take either."""
    if is_id(text.lower()):
        raise ValidationError("must not look like an id")


PLAIN = validate.Regexp(r"^[A-Za-z0-9_.:-]{1,255}\Z", error="must be 1 to 255 letters, digits and any of . - _ :")


def _words(*, required: bool = False, least: int = 0) -> fields.List[str]:
    each = fields.String(validate=validate.Length(0, 255))
    return fields.List(each, required=required, validate=validate.Length(least, MAX_WORDS))


class RoleRuleBody(Body):
    """What a role lets its holders do: any of the verbs on any of the resources; `*` is all of them.

    `apiGroups` and `resourceNames` are taken too. `read` is `get`; without API groups all are meant.
    """

    api_groups = _words()
    resources = _words(required=True, least=1)
    verbs = _words(required=True, least=1)
    resource_names = _words()
    scope = fields.String(
        allow_none=True,
        validate=validate.OneOf(SCOPES),
        metadata={"description": "`space`: it counts only where the role is held in a space"},
    )

    @pre_load
    def _one_spelling(self, data: Any, **_: Any) -> Any:
        if not isinstance(data, dict):
            return data
        named = {ALIASES.get(key, key): value for key, value in data.items() if value is not None}
        return {key: value for key, value in named.items() if key in self.fields}


class RoleBody(Body):
    """A new role. The name may come as `id`."""

    name = fields.String(required=True, validate=[PLAIN, plain_name])
    description = fields.String(allow_none=True, validate=validate.Length(max=1000))
    rules = fields.List(fields.Nested(RoleRuleBody), required=True, validate=validate.Length(1, MAX_RULES))

    @pre_load
    def _name_as_id(self, data: Any, **_: Any) -> Any:
        if isinstance(data, dict) and data.get("name") is None and "id" in data:
            return {**data, "name": data["id"]}
        return data


class RoleRuleView(View):
    """One rule, in the one spelling that is kept."""

    api_groups = fields.List(fields.String())
    resources = fields.List(fields.String())
    verbs = fields.List(fields.String())
    resource_names = fields.List(fields.String(), metadata={"optional": True})
    scope = fields.String(metadata={"optional": True})


class RoleView(View):
    """A role. Built-in ones cannot be deleted; their rules tell what this release grants them."""

    id = fields.String()
    name = fields.String()
    description = fields.String(allow_none=True)
    rules = fields.List(fields.Nested(RoleRuleView))
    built_in = fields.Boolean()
    created_by = fields.String(allow_none=True)
    created_at = Moment()

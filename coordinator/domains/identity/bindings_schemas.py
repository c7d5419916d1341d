"""Shapes of role bindings on the wire."""

from __future__ import annotations

from typing import Any

from marshmallow import ValidationError, pre_load

from coordinator.domains.identity.bindings import TYPES
from coordinator.domains.identity.space_words import EVERYWHERE, TwoSpaces, take_space
from coordinator.http.schemas import Body, Moment, View, fields, validate

ROLE = ("role_name", "role_ref", "role", "role_id")
PRINCIPAL = ("principal", "principal_name", "subject", "principal_id")


class BindingBody(Body):
    """Who is to hold which role, and where; without a space, or with `*`, everywhere.

    Further spellings: `role_ref`, `role`, `role_id`; `principal_name`, `subject`, `principal_id`; `namespace`,
    `workspace` and the like. Role and principal go by name or id.
    """

    role_name = fields.String(required=True, validate=validate.Length(1, 255))
    principal = fields.String(required=True, validate=validate.Length(1, 255))
    principal_type = fields.String(
        allow_none=True,
        validate=validate.OneOf(list(TYPES)),
        metadata={"description": "must fit the principal when it is given; admins fit every type"},
    )
    space = fields.String(validate=validate.Length(1, 255), metadata={"description": "everywhere when left out"})

    @pre_load
    def _one_spelling(self, data: Any, **_: Any) -> Any:
        if not isinstance(data, dict):
            return data
        try:
            given = take_space(data)
        except TwoSpaces as error:
            raise ValidationError({"space": [f"two spaces are named: {error}"]}) from None
        if given.get("space") == EVERYWHERE:
            del given["space"]
        for canonical, spellings in (("role_name", ROLE), ("principal", PRINCIPAL)):
            given = _taken(given, canonical, spellings)
        return given


def _taken(given: dict[str, Any], canonical: str, spellings: tuple[str, ...]) -> dict[str, Any]:
    named = {word: given[word] for word in spellings if given.get(word) is not None}
    if len({str(value) for value in named.values()}) > 1:
        raise ValidationError({canonical: [f"two are named: {', '.join(named)}"]})
    rest = {word: value for word, value in given.items() if word not in spellings}
    return rest | {canonical: next(iter(named.values()))} if named else rest


class BindingView(View):
    """Who holds which role where, in all published spellings; `space` null is everywhere."""

    id = fields.String()
    role_id = fields.String()
    role_name = fields.String()
    role_ref = fields.String()
    principal_id = fields.String()
    principal = fields.String()
    principal_name = fields.String()
    subject = fields.String()
    principal_type = fields.String()
    space = fields.String(allow_none=True)
    namespace = fields.String(allow_none=True)
    created_by = fields.String(allow_none=True)
    created_at = Moment()

"""Shapes of spaces on the wire."""

from __future__ import annotations

from coordinator.http.schemas import Body, Moment, Query, View, fields, validate

NAME = validate.Regexp(r"^[A-Za-z0-9_.-]{1,255}\Z", error="must be 1 to 255 letters, digits, dots, dashes, underscores")


def _settings() -> fields.Dict:
    return fields.Dict(keys=fields.String(), metadata={"description": "whatever its members want to keep with it"})


class SpaceBody(Body):
    """A new space. Only the name is needed."""

    name = fields.String(required=True, validate=NAME)
    description = fields.String(allow_none=True, validate=validate.Length(max=1000))
    settings = _settings()
    active = fields.Boolean(truthy={True}, falsy={False})


class SpaceChanges(Body):
    """What may be changed about a space; what is left out stays."""

    name = fields.String(metadata={"description": "as it is: a space cannot be renamed"})
    description = fields.String(allow_none=True, validate=validate.Length(max=1000))
    settings = _settings()
    active = fields.Boolean(
        truthy={True}, falsy={False}, metadata={"description": "false: it can be read and takes no new work"}
    )


class SpaceQuery(Query):
    """How a list of spaces is narrowed."""

    active = fields.Boolean()


class SpaceView(View):
    """A space."""

    name = fields.String()
    description = fields.String(allow_none=True)
    settings = fields.Dict(keys=fields.String())
    active = fields.Boolean()
    created_by = fields.String(allow_none=True)
    created_at = Moment()
    updated_at = Moment()
    version = fields.Integer()

"""Shapes of the audit trail on the wire."""

from __future__ import annotations

from coordinator.http.schemas import Anything, IdField, Moment, Query, View, fields, validate


class TrailQuery(Query):
    """Which rows are wanted; conditions add up."""

    actor = fields.String(
        validate=validate.Length(1, 255), metadata={"description": "the id of whoever acted, or the name"}
    )
    action = fields.String(
        validate=validate.Regexp(r"^[a-z][a-z_.]*\*?$|^\*$", error="must be noun.verb, or the beginning of one and *"),
        metadata={"description": "an action, or the beginning of some: `worker.*`", "example": "worker.*"},
    )
    resource_type = fields.String(validate=validate.Length(1, 64))
    resource_id = fields.String(validate=validate.Length(1, 255))
    outcome = fields.String(validate=validate.OneOf(["done", "refused", "failed"]))
    since = Moment(metadata={"description": "from this moment on"})
    until = Moment(metadata={"description": "before this moment"})


class RowView(View):
    """One row: who did what to what, from where, and how it ended."""

    id = IdField()
    sequence = fields.Integer(
        allow_none=True, metadata={"description": "its place in the chain; null for the moment until it is sealed"}
    )
    hash = fields.String(allow_none=True)
    created_at = Moment()
    action = fields.String()
    outcome = fields.String()
    actor_type = fields.String(metadata={"description": "user, operator, service_account, node, …; system; anonymous"})
    actor_id = fields.String(allow_none=True)
    actor_name = fields.String(allow_none=True)
    credential_id = fields.String(allow_none=True)
    address = fields.String(allow_none=True)
    request_id = fields.String(allow_none=True)
    space = fields.String(allow_none=True)
    resource_type = fields.String(allow_none=True)
    resource_id = fields.String(allow_none=True)
    message = fields.String(allow_none=True)
    unrecorded = fields.Integer(
        metadata={"description": "refusals and failures from this address that got no row of their own"}
    )
    details = fields.Dict(
        keys=fields.String(), values=Anything(allow_none=True), metadata={"description": "`before` and `after`"}
    )

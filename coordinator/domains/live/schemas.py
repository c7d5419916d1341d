"""What the sockets' addresses may carry."""

from __future__ import annotations

from marshmallow import validate

from coordinator.http.schemas import Query, fields


class StreamQuery(Query):
    """Where to go on."""

    after_seq = fields.Integer(load_default=0, validate=validate.Range(0, 2**53))

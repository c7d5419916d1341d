"""Shapes of circuit breakers on the wire."""

from __future__ import annotations

from marshmallow import validates_schema

from coordinator.http.schemas import Anything, Body, Moment, ValidationError, View, fields, name_field, validate

WEEK_SECONDS = 7 * 86400


def _seconds() -> fields.Float:
    return fields.Float(validate=validate.Range(0, WEEK_SECONDS, min_inclusive=False))


class BreakerBody(Body):
    """The numbers that a breaker decides by; those left out stay as they are, or are the usual ones."""

    name = name_field()
    service = name_field(metadata={"description": "another spelling of name"})
    failure_threshold = fields.Integer(strict=True, validate=validate.Range(1, 100_000))
    window_seconds = _seconds()
    recovery_timeout_seconds = _seconds()
    success_threshold = fields.Integer(strict=True, validate=validate.Range(1, 1000))

    @validates_schema
    def _has_one_name(self, data: dict[str, str], **_: object) -> None:
        given = {data[key] for key in ("name", "service") if key in data}
        if not given:
            raise ValidationError("is required", "name")
        if len(given) > 1:
            raise ValidationError("differs from name", "service")


class ReasonBody(Body):
    """Why somebody does it, for those who read the history."""

    reason = fields.String(validate=validate.Length(max=1000), allow_none=True)


class BreakerChangeView(View):
    """One line of a breaker's history. A line whose states are the same tells what else was changed."""

    at = Moment()
    previous_state = fields.String()
    state = fields.String()
    cause = fields.String()
    changed_by = fields.String(allow_none=True)


class BreakerConfigView(View):
    """The numbers that a breaker decides by."""

    failure_threshold = fields.Integer()
    window_seconds = fields.Float()
    recovery_timeout_seconds = fields.Float()
    success_threshold = fields.Integer()


class BreakerView(View):
    """How a breaker stands. `failure_count` are the failures within its window."""

    name = fields.String()
    service = fields.String()
    state = fields.String(validate=validate.OneOf(["closed", "open", "half_open"]))
    forced = fields.Boolean()
    cause = fields.String(allow_none=True)
    failure_count = fields.Integer()
    total_successes = fields.Integer()
    total_failures = fields.Integer()
    success_rate = fields.Float(metadata={"description": "percent"})
    last_failure = Anything(
        allow_none=True, metadata={"description": "{reason_code, message, job_id, attempt_id, node_id}, or null"}
    )
    last_failure_at = Moment(allow_none=True)
    opened_at = Moment(allow_none=True)
    next_probe_at = Moment(allow_none=True)
    probe_attempt_id = fields.String(allow_none=True)
    probes_succeeded = fields.Integer()
    times_reopened = fields.Integer()
    config = fields.Nested(BreakerConfigView)
    history = fields.List(fields.Nested(BreakerChangeView))
    created_at = Moment(allow_none=True)
    updated_at = Moment(allow_none=True)


class BreakerForcedView(View):
    """What was done to a breaker."""

    service = fields.String()
    state = fields.String()
    message = fields.String()

"""Shapes of the dead letter queue on the wire."""

from __future__ import annotations

from coordinator.domains.queue.service import PRIORITIES
from coordinator.domains.tasks.schemas import AttemptView
from coordinator.http.schemas import Anything, Body, IdField, Moment, Query, View, fields, validate

KINDS = ("task", "execution")
LONGEST_AGE_SECONDS = 100 * 365 * 86400


def _age(what: str) -> fields.Float:
    about = {"description": f"only what has been there {what} than so many seconds"}
    return fields.Float(validate=validate.Range(0, LONGEST_AGE_SECONDS), metadata=about)


class _Filters:
    """Which dead letters are meant; what is left out does not matter."""

    reason = fields.String(validate=validate.Length(1, 64), metadata={"description": "the reason_code of its death"})
    agent_id = IdField()
    kind = fields.String(validate=validate.OneOf(KINDS))
    priority = fields.String(validate=validate.OneOf(list(PRIORITIES)))
    older_than_seconds = _age("longer")
    newer_than_seconds = _age("shorter")


class DeadLetterQuery(_Filters, Query):
    """How the dead letter queue is narrowed."""


class RetryAllBody(_Filters, Body):
    """Which dead letters to send round again; without any filter all of them."""


class DeadLetterBody(Body):
    """What to put into the dead letter queue, and why."""

    task_id = IdField()
    execution_id = IdField()
    reason = fields.String(validate=validate.Length(1, 2000))
    error = fields.String(validate=validate.Length(1, 2000), metadata={"description": "another spelling of reason"})


class DeadLetterView(View):
    """A task or an execution that failed for good, with all that is known about why.

    `dead_since` is null while its computer is still being stopped.
    """

    id = fields.String()
    kind = fields.String()
    title = fields.String()
    status = fields.String()
    reason_code = fields.String(allow_none=True)
    error = fields.String(allow_none=True)
    error_details = Anything(allow_none=True)
    trace = fields.String(allow_none=True)
    retry_count = fields.Integer()
    max_retries = fields.Integer()
    agent_id = fields.String(allow_none=True)
    priority = fields.String()
    attempts = fields.List(fields.Nested(AttemptView))
    generation = fields.Integer()
    note = fields.String(allow_none=True)
    added_by = fields.String(allow_none=True)
    metadata = fields.Dict(keys=fields.String())
    dead_since = Moment(allow_none=True)
    created_at = Moment()
    updated_at = Moment()


class DeadLetterStatsView(View):
    """The dead letter queue in numbers. `retryable` leaves out those whose agent was deleted."""

    total = fields.Integer()
    retryable = fields.Integer()
    by_priority = fields.Dict(keys=fields.String(), values=fields.Integer())
    by_reason = fields.Dict(keys=fields.String(), values=fields.Integer())
    by_agent = fields.Dict(keys=fields.String(), values=fields.Integer())
    oldest_entry = Moment(allow_none=True)


class RetriedView(View):
    """How many were sent round again."""

    retried_count = fields.Integer()
    message = fields.String()

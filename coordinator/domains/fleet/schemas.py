"""Shapes of the fleet on the wire."""

from __future__ import annotations

from typing import Any

from marshmallow import EXCLUDE, fields, validate

from coordinator.http.schemas import Body, Moment, Query, View

PERCENT = validate.Range(0, 100)
NAME = validate.Length(1, 255)


class Labels(fields.Field[dict[str, str]]):
    """A map of label → value, or a list such as ["gpu", "zone=eu"] (a bare name means "true")."""

    default_error_messages = {  # noqa: RUF012 - marshmallow's own way
        "invalid": 'must be a map of strings or a list such as ["gpu", "zone=eu"]'
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[str, str]:
        try:
            return read_labels(value)
        except ValueError:
            raise self.make_error("invalid") from None


def read_labels(value: Any) -> dict[str, str]:
    """The canonical map of labels from either spelling; ValueError when it is neither."""
    if isinstance(value, list):
        pairs = [str(item).partition("=") for item in value if isinstance(item, str) and item]
        if len(pairs) != len(value):
            raise ValueError("labels are strings")
        return {name: content if sign else "true" for name, sign, content in pairs}
    if not isinstance(value, dict) or not all(isinstance(key, str) and key for key in value):
        raise ValueError("labels are a map or a list")
    if any(isinstance(content, dict | list) for content in value.values()):
        raise ValueError("a label's value is a string")
    return {key: _label_text(content) for key, content in value.items()}


def _label_text(value: Any) -> str:
    if value is None or value is True:
        return "true"
    return "false" if value is False else str(value)


class EnrolBody(Body):
    """What a machine says of itself when it enrols."""

    class Meta:
        # A newer node may say more than we know; refusing it would make upgrades an ordering problem.
        unknown = EXCLUDE

    name = fields.String(required=True, validate=NAME)
    hostname = fields.String(required=True, validate=NAME)
    ip_address = fields.String(required=True, validate=validate.Length(1, 64))
    slots = fields.Integer(validate=validate.Range(1, 1024), load_default=4)
    light_slots = fields.Integer(validate=validate.Range(1, 4096), load_default=32)
    max_agents = fields.Integer(validate=validate.Range(1, 10000), load_default=5)
    cpu_cores = fields.Integer(allow_none=True, validate=validate.Range(1, 100000), load_default=None)
    memory_total_mb = fields.Integer(allow_none=True, validate=validate.Range(1, 2**31 - 1), load_default=None)
    group = fields.String(allow_none=True, validate=NAME, load_default=None)
    labels = Labels(load_default=dict)
    os_info = fields.Dict(load_default=dict)
    software = fields.Dict(keys=fields.String(), values=fields.String(), load_default=dict)
    computers = fields.Dict(load_default=dict)


class EnrolledView(View):
    """The new node; `credential` is shown this once."""

    id = fields.String()
    status = fields.String()
    is_approved = fields.Boolean()
    credential = fields.String(metadata={"optional": True})
    heartbeat_seconds = fields.Float()


class HeldBody(Body):
    """An attempt that the node holds."""

    class Meta:
        unknown = EXCLUDE

    attempt_id = fields.String(required=True, validate=validate.Length(1, 64))
    token = fields.String(required=True, validate=validate.Length(1, 128))
    phase = fields.String(load_default="running")


class HeartbeatBody(Body):
    """A node's pulse. The three percentages are the published contract; a daemon of ours sends all of it."""

    class Meta:
        unknown = EXCLUDE

    epoch = fields.String(validate=validate.Length(max=64), load_default="")
    protocol = fields.Integer(load_default=1, validate=validate.Range(1, 1000))
    cpu_usage_percent = fields.Float(allow_none=True, validate=PERCENT, load_default=None)
    memory_usage_percent = fields.Float(allow_none=True, validate=PERCENT, load_default=None)
    disk_usage_percent = fields.Float(allow_none=True, validate=PERCENT, load_default=None)
    vitals = fields.Dict(load_default=dict)
    docker_ok = fields.Boolean(allow_none=True, load_default=None)
    queue_ok = fields.Boolean(allow_none=True, load_default=None)
    slots = fields.Integer(allow_none=True, validate=validate.Range(1, 1024), load_default=None)
    slots_used = fields.Integer(validate=validate.Range(0, 1024), load_default=0)
    light_slots = fields.Integer(allow_none=True, validate=validate.Range(1, 4096), load_default=None)
    draining = fields.Boolean(load_default=False)
    attempts = fields.List(fields.Nested(HeldBody), load_default=list, validate=validate.Length(max=5000))
    computers = fields.Dict(allow_none=True, load_default=None)
    present = fields.List(
        fields.String(validate=validate.Length(1, 64)),
        allow_none=True,
        validate=validate.Length(max=5000),
        load_default=None,
    )
    software = fields.Dict(keys=fields.String(), values=fields.String(), allow_none=True, load_default=None)


class HeartbeatView(View):
    """What is wanted of the node. `broker` and `queue` are null until an admin approved it."""

    status = fields.String()
    is_approved = fields.Boolean()
    heartbeat_seconds = fields.Float()
    lease_seconds = fields.Float()
    broker = fields.String(allow_none=True)
    queue = fields.String(allow_none=True)
    drain = fields.Boolean()
    drain_in_seconds = fields.Float(allow_none=True)
    restart_consumer = fields.Boolean()
    attempts = fields.Dict(keys=fields.String(), values=fields.String())
    limits = fields.Dict()


class ClaimBody(Body):
    """One claim; the same nonce gets the same answer."""

    class Meta:
        unknown = EXCLUDE

    attempt_id = fields.String(required=True, validate=validate.Length(1, 64))
    nonce = fields.String(required=True, validate=validate.Length(8, 128))


class ReportBody(Body):
    """How an attempt ended."""

    class Meta:
        unknown = EXCLUDE

    attempt_id = fields.String(required=True, validate=validate.Length(1, 64))
    token = fields.String(required=True, validate=validate.Length(1, 128))
    outcome = fields.String(
        required=True, validate=validate.OneOf(["succeeded", "failed", "lost", "cancelled", "returned"])
    )
    exit_code = fields.Integer(allow_none=True, load_default=None)
    reason_code = fields.String(allow_none=True, validate=validate.Length(max=64), load_default=None)
    error = fields.Dict(allow_none=True, load_default=None)
    result = fields.Raw(allow_none=True, load_default=None)
    usage = fields.Dict(allow_none=True, load_default=None)
    computer = fields.Dict(allow_none=True, load_default=None)
    charges = fields.Dict(keys=fields.String(), allow_none=True, load_default=None)
    digest = fields.String(allow_none=True, validate=validate.Length(max=64), load_default=None)


class SyncBody(Body):
    """Claims and reports in one request."""

    class Meta:
        unknown = EXCLUDE

    epoch = fields.String(required=True, validate=validate.Length(1, 64))
    claims = fields.List(fields.Nested(ClaimBody), load_default=list, validate=validate.Length(max=500))
    reports = fields.List(fields.Nested(ReportBody), load_default=list, validate=validate.Length(max=500))


class SyncView(View):
    """`grants` in the order of the claims; `reports` maps attempt id → accepted | stale."""

    grants = fields.List(fields.Dict())
    reports = fields.Dict(keys=fields.String(), values=fields.String())


class LineBody(Body):
    """One log line; `offset` counts the lines of its attempt."""

    class Meta:
        unknown = EXCLUDE

    attempt_id = fields.String(required=True, validate=validate.Length(1, 64))
    token = fields.String(required=True, validate=validate.Length(1, 128))
    offset = fields.Integer(required=True, validate=validate.Range(0, 2**31 - 1))
    stream = fields.String(required=True, validate=validate.OneOf(["stdout", "stderr", "system"]))
    level = fields.String(load_default="info", validate=validate.OneOf(["debug", "info", "warning", "error"]))
    message = fields.String(required=True, validate=validate.Length(max=65536))
    age_ms = fields.Integer(load_default=0, validate=validate.Range(0, 2**31 - 1))


class LogsBody(Body):
    """A batch of log lines."""

    lines = fields.List(fields.Nested(LineBody), required=True, validate=validate.Length(max=2000))


class LogsView(View):
    """How much was new, and which attempts may no longer speak."""

    stored = fields.Integer()
    stale = fields.List(fields.String())


class DrainBody(Body):
    """How long what runs on a draining worker may still take; as long as it likes when nothing is said."""

    within_seconds = fields.Float(allow_none=True, validate=validate.Range(0, 30 * 24 * 3600), load_default=None)


class PauseBody(Body):
    """Why something is paused; those who wait are told."""

    reason = fields.String(allow_none=True, validate=validate.Length(1, 500), load_default=None)


class PauseView(View):
    """A pause: of the fleet, of a group (`subject` is its name) or of a worker (its id)."""

    scope = fields.String()
    subject = fields.String(allow_none=True)
    reason = fields.String(allow_none=True)
    paused_by = fields.String(allow_none=True)
    paused_by_name = fields.String(allow_none=True)
    paused_at = Moment(allow_none=True)


class PausedView(PauseView):
    """How it stands with the pause of something, and how many workers it concerns."""

    is_paused = fields.Boolean()
    workers = fields.Integer()


class NodeView(View):
    """A worker, with the published White-Ops names and ours."""

    id = fields.String()
    name = fields.String()
    hostname = fields.String()
    ip_address = fields.String()
    status = fields.String()
    status_reason = fields.String(allow_none=True)
    is_approved = fields.Boolean()
    is_draining = fields.Boolean()
    drain_by = Moment(allow_none=True)
    is_paused = fields.Boolean()
    pauses = fields.List(fields.Nested(PauseView))
    group = fields.String(allow_none=True)
    labels = fields.Dict(keys=fields.String(), values=fields.String())
    slots = fields.Integer()
    slots_used = fields.Integer()
    light_slots = fields.Integer()
    max_agents = fields.Integer()
    cpu_cores = fields.Integer(allow_none=True)
    memory_total_mb = fields.Integer(allow_none=True)
    cpu_usage_percent = fields.Float(allow_none=True)
    memory_usage_percent = fields.Float(allow_none=True)
    disk_usage_percent = fields.Float(allow_none=True)
    os_info = fields.Dict()
    software = fields.Dict()
    computers = fields.Dict()
    vitals = fields.Dict(allow_none=True)
    docker_ok = fields.Boolean(allow_none=True)
    queue_ok = fields.Boolean(allow_none=True)
    broker_login = fields.String(allow_none=True, validate=validate.OneOf(["own", "shared", "refused"]))
    last_seen_at = Moment(allow_none=True)
    last_heartbeat = Moment(allow_none=True)
    approved_at = Moment(allow_none=True)
    created_at = Moment()
    updated_at = Moment()
    version = fields.Integer()


class NodesQuery(Query):
    """Filters of the list."""

    status = fields.String(validate=validate.OneOf(["pending", "online", "offline", "maintenance", "error"]))
    group = fields.String(validate=NAME)


class ApproveBody(Body):
    """Let a node in (true) or cut it off (false)."""

    is_approved = fields.Boolean(required=True)
    group = fields.String(allow_none=True, validate=NAME)
    labels = Labels()
    slots = fields.Integer(validate=validate.Range(1, 1024))


class OverviewView(View):
    """The fleet in numbers."""

    total_workers = fields.Integer()
    online_workers = fields.Integer()
    pending_workers = fields.Integer()
    by_status = fields.Dict(keys=fields.String(), values=fields.Integer())
    total_cpu_cores = fields.Integer()
    total_memory_mb = fields.Integer()
    total_active_agents = fields.Integer()
    total_slots = fields.Integer()
    slots_used = fields.Integer()


class WorkView(View):
    """Work that a node has, or that waits for it alone."""

    id = fields.String()
    kind = fields.String()
    agent_id = fields.String(allow_none=True)
    state = fields.String()
    priority = fields.String()
    attempt_number = fields.Integer(allow_none=True)
    started_at = Moment(allow_none=True)
    created_at = Moment()


class VitalsQuery(Query):
    """How far back, and how many points at the most."""

    hours = fields.Float(load_default=1.0, validate=validate.Range(min=0, min_inclusive=False, max=24 * 31))
    points = fields.Integer(load_default=120, validate=validate.Range(2, 1000))


class VitalsView(View):
    """The history of a node, thinned for a chart."""

    points = fields.List(fields.Dict())


class TokenBody(Body):
    """A new enrolment token."""

    note = fields.String(validate=NAME, load_default=None)
    group = fields.String(validate=NAME, load_default=None)
    expires_in_seconds = fields.Integer(validate=validate.Range(60, 30 * 86400), load_default=None)


class TokenView(View):
    """An enrolment token; `token` itself is shown once, when it is made."""

    id = fields.String()
    token = fields.String(metadata={"optional": True})
    note = fields.String(allow_none=True)
    group = fields.String(allow_none=True)
    created_at = Moment()
    expires_at = Moment()
    used_at = Moment(allow_none=True)
    used_by = fields.String(allow_none=True)

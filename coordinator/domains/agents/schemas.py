"""Shapes of agents on the wire; tasks and executions borrow `RetryBody` and `PlacementBody`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import INCLUDE

from coordinator.domains.agents.states import AgentState, AgentStatus, Runtime, statuses_meant
from coordinator.http.schemas import (
    Anything,
    Body,
    IdField,
    InSpace,
    Moment,
    Query,
    ValidationError,
    View,
    fields,
    name_field,
    validate,
)
from shared.policy.charging import tidy
from shared.policy.placement import ISOLATION
from shared.policy.retry import RETRYABLE

WEEK_SECONDS = 7 * 86400
MAX_LABELS = 50
MAX_TAGS = 50
MAX_TOOLS = 200
MAX_BREAKERS = 20
DRIVERS = ("docker", "process")
NETWORKS = ("none", "open")


def count(low: int, high: int, **options: Any) -> fields.Integer:
    """A whole number between two limits."""
    return fields.Integer(strict=True, validate=validate.Range(low, high), **options)


def amount(low: float, high: float, **options: Any) -> fields.Float:
    """A number between two limits."""
    return fields.Float(validate=validate.Range(low, high), **options)


def words(longest: int, **options: Any) -> fields.String:
    """A text of limited length, possibly empty."""
    return fields.String(validate=validate.Length(max=longest), **options)


class Labels(fields.Field[dict[str, str | None]]):
    """Labels that a node must have: `["gpu", "zone=eu"]` or `{"gpu": null, "zone": "eu"}`; null asks for any value."""

    def __init__(self, **options: Any) -> None:
        forms = [
            {"type": "array", "items": {"type": "string"}},
            {"type": "object", "additionalProperties": {"type": ["string", "null"]}},
        ]
        super().__init__(metadata={"oneOf": forms}, **options)

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> dict[str, str | None]:
        pairs = self._pairs(value)
        if len(pairs) > MAX_LABELS:
            raise ValidationError(f"at most {MAX_LABELS} labels")
        for name, wanted in pairs.items():
            if not 1 <= len(name) <= 64 or not self._is_value(wanted):
                raise ValidationError("a label needs a name of 1 to 64 characters and a value of at most 255")
        return pairs

    def _is_value(self, wanted: Any) -> bool:
        return wanted is None or (isinstance(wanted, str) and len(wanted) <= 255)

    def _pairs(self, value: Any) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ValidationError('must be a list like ["gpu", "zone=eu"] or an object like {"zone": "eu"}')
        split = (item.partition("=") for item in value)
        return {name: wanted if sign else None for name, sign, wanted in split}


class Tools(fields.Field[dict[str, bool]]):
    """Tools by name: `["browser"]` or `{"browser": true, "mail": false}`."""

    def __init__(self, **options: Any) -> None:
        forms = [
            {"type": "array", "items": {"type": "string"}},
            {"type": "object", "additionalProperties": {"type": "boolean"}},
        ]
        super().__init__(metadata={"oneOf": forms}, **options)

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> dict[str, bool]:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            tools = dict.fromkeys(value, True)
        elif isinstance(value, dict) and all(isinstance(on, bool) for on in value.values()):
            tools = value
        else:
            raise ValidationError('must be a list of names or an object like {"browser": true}')
        if len(tools) > MAX_TOOLS:
            raise ValidationError(f"at most {MAX_TOOLS} tools")
        if not all(1 <= len(name) <= 128 for name in tools):
            raise ValidationError("a tool needs a name of 1 to 128 characters")
        return tools


def exclusive_word(**options: Any) -> fields.Boolean:
    """Whether work may only be begun again when its old computer is known to be gone."""
    about = {"description": "begin it again only when the computer of a lost try is known to be gone"}
    return fields.Boolean(truthy={True}, falsy={False}, metadata=about, **options)


class RetryBody(Body):
    """How often failed work is tried again, after what, and how long to wait between; seconds may be fractions."""

    max_attempts = count(1, 100, allow_none=True)
    base_seconds = amount(0, 86400, allow_none=True)
    cap_seconds = amount(0, WEEK_SECONDS, allow_none=True)
    on = fields.List(
        fields.String(validate=validate.OneOf(list(RETRYABLE), error="must be one of: {choices}")),
        allow_none=True,
        validate=validate.Length(min=1, error="must name at least one reason; max_attempts 1 tries nothing again"),
        metadata={"description": "the reasons of a failure that are worth another try; null for all that may pass"},
    )


class BreakerName(fields.String):
    """The name of a circuit breaker, as it is kept."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        text: str = super()._deserialize(value, attr, data, **kwargs)
        try:
            return tidy(text)
        except ValueError as error:
            raise ValidationError(str(error)) from None


def breaker_names() -> fields.List[str]:
    """What the work depends on besides its image and its agent, by names of circuit breakers."""
    about = {
        "description": "circuit breakers that hold this work while they are open: `llm:…`, or any made by an admin"
    }
    return fields.List(BreakerName(), allow_none=True, validate=validate.Length(max=MAX_BREAKERS), metadata=about)


class PlacementBody(Body):
    """Which nodes may run the work."""

    worker_id = IdField(allow_none=True)
    group = name_field(allow_none=True)
    labels = Labels(allow_none=True)


class ComputerBody(Body):
    """The computer that an agent's work runs in."""

    driver = fields.String(validate=validate.OneOf(DRIVERS), allow_none=True)
    image = fields.String(
        validate=validate.Regexp(r"^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}$", error="is not the name of an image"),
        allow_none=True,
    )
    min_isolation = fields.String(validate=validate.OneOf(ISOLATION), allow_none=True)
    cpus = amount(0.05, 256, allow_none=True)
    memory_mb = count(16, 4 * 1024 * 1024, allow_none=True)
    pids = count(8, 65536, allow_none=True)
    disk_mb = count(16, 16 * 1024 * 1024, allow_none=True)
    network = fields.String(validate=validate.OneOf(NETWORKS), allow_none=True)
    timeout_seconds = count(1, WEEK_SECONDS, allow_none=True)


class FlowNode(Body):
    """One step of a flow; what else it carries is its type's affair."""

    class Meta:
        unknown = INCLUDE

    id = fields.String(required=True, validate=validate.Length(1, 255))
    type = fields.String(required=True, validate=validate.Length(1, 64))
    config = fields.Dict(keys=fields.String())


class FlowEdge(Body):
    """From one step to the next."""

    class Meta:
        unknown = INCLUDE

    source = fields.String(required=True, validate=validate.Length(1, 255))
    target = fields.String(required=True, validate=validate.Length(1, 255))


class FlowBody(Body):
    """A flow: steps, and what follows what."""

    class Meta:
        unknown = INCLUDE

    nodes = fields.List(fields.Nested(FlowNode), validate=validate.Length(max=1000))
    edges = fields.List(fields.Nested(FlowEdge), validate=validate.Length(max=5000))


def _tags() -> fields.List[str]:
    return fields.List(fields.String(validate=validate.Length(1, 64)), validate=validate.Length(max=MAX_TAGS))


class AgentMetadataBody(Body):
    """What people note about an agent: its version, its author, its tags and whatever else they like."""

    class Meta:
        unknown = INCLUDE

    version = words(64)
    author = words(255)
    tags = _tags()


def _system_prompt() -> fields.String:
    return words(100_000, allow_none=True)


class AgentChanges(Body):
    """What may be changed about an agent. What is left out stays; null clears what may be empty."""

    name = name_field()
    description = words(10_000)
    role = name_field()
    runtime = fields.String(validate=validate.OneOf([str(runtime) for runtime in Runtime]))
    status = fields.String(
        validate=validate.OneOf([AgentStatus.idle, AgentStatus.offline, AgentStatus.paused, AgentStatus.maintenance])
    )
    is_active = fields.Boolean(truthy={True}, falsy={False})
    computer = fields.Nested(ComputerBody)
    placement = fields.Nested(PlacementBody)
    worker_id = IdField(allow_none=True)
    retry = fields.Nested(RetryBody)
    breakers = breaker_names()
    exclusive = exclusive_word()
    max_concurrent_tasks = count(1, 10_000, allow_none=True)
    llm_provider = name_field(allow_none=True)
    llm_model = name_field(allow_none=True)
    system_prompt = _system_prompt()
    temperature = amount(0, 2, allow_none=True)
    max_tokens = count(1, 10_000_000, allow_none=True)
    enabled_tools = Tools()
    flow = fields.Nested(FlowBody, allow_none=True)
    tags = _tags()
    metadata = fields.Nested(AgentMetadataBody)


class AgentBody(InSpace, AgentChanges):
    """A new agent. Only the name is needed."""

    class Meta:
        exclude = ("status", "is_active")

    name = name_field(required=True)


def _known_status(word: str) -> None:
    if not statuses_meant(word):
        known = ", ".join([*AgentStatus, *(state for state in AgentState if state != AgentState.error)])
        raise ValidationError(f"must be one of: {known}")


class AgentQuery(Query):
    """How a list of agents is narrowed."""

    status = fields.String(validate=_known_status)
    status_filter = fields.String(validate=_known_status)
    role = fields.String(validate=validate.Length(max=255))
    search = fields.String(validate=validate.Length(max=255))


class DeleteAgentQuery(Query):
    """How an agent is deleted."""

    force = fields.Boolean(load_default=False, metadata={"description": "cancel its unfinished work too"})


class RetryView(View):
    """The whole retry policy."""

    max_attempts = fields.Integer()
    base_seconds = fields.Float()
    cap_seconds = fields.Float()
    on = fields.List(fields.String(), allow_none=True)


class PlacementView(View):
    """Which nodes may run the work; a label with null asks for any value."""

    worker_id = fields.String(allow_none=True)
    group = fields.String(allow_none=True)
    labels = fields.Dict(keys=fields.String(), values=fields.String(allow_none=True))


class ComputerView(View):
    """The computer with all its limits, given or not."""

    driver = fields.String(allow_none=True)
    image = fields.String(allow_none=True)
    min_isolation = fields.String()
    cpus = fields.Float()
    memory_mb = fields.Integer()
    pids = fields.Integer()
    disk_mb = fields.Integer()
    network = fields.String()
    timeout_seconds = fields.Integer()


class AgentMetadataView(View):
    """What people noted about the agent."""

    class Meta:
        unknown = INCLUDE

    version = fields.String()
    author = fields.String(allow_none=True)
    tags = fields.List(fields.String())


class AgentView(View):
    """An agent. `status` is how it stands, `state` the coarser word that follows from it."""

    id = fields.String()
    space = fields.String()
    name = fields.String()
    description = fields.String()
    role = fields.String()
    runtime = fields.String()
    status = fields.String()
    state = fields.String()
    is_active = fields.Boolean()
    computer = fields.Nested(ComputerView)
    placement = fields.Nested(PlacementView)
    worker_id = fields.String(allow_none=True)
    retry = fields.Nested(RetryView)
    breakers = fields.List(fields.String())
    exclusive = fields.Boolean()
    max_concurrent_tasks = fields.Integer(allow_none=True)
    llm_provider = fields.String(allow_none=True)
    llm_model = fields.String(allow_none=True)
    system_prompt = fields.String(allow_none=True)
    temperature = fields.Float(allow_none=True)
    max_tokens = fields.Integer(allow_none=True)
    enabled_tools = fields.Dict(keys=fields.String(), values=fields.Boolean())
    flow = Anything(allow_none=True)
    tags = fields.List(fields.String())
    author = fields.String(allow_none=True)
    metadata = fields.Nested(AgentMetadataView)
    execution_count = fields.Integer()
    success_rate = fields.Float(allow_none=True)
    tasks_active = fields.Integer()
    tasks_waiting = fields.Integer()
    tasks_completed = fields.Integer()
    tasks_failed = fields.Integer()
    created_by = fields.String(allow_none=True)
    created_at = Moment()
    updated_at = Moment()
    version = fields.Integer()

"""Shapes of tasks, executions and files on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coordinator.domains.agents.schemas import (
    PlacementBody,
    PlacementView,
    RetryBody,
    RetryView,
    breaker_names,
    exclusive_word,
    words,
)
from coordinator.domains.queue.service import PRIORITIES
from coordinator.domains.tasks.states import ExecutionStatus, TaskStatus
from coordinator.http.schemas import Anything, Body, IdField, InSpace, Moment, Query, View, fields, validate

MAX_BULK = 1000
MAX_INPUT_FILES = 100
MAX_REQUIRED_TOOLS = 100
LONGEST_WAIT_SECONDS = 30
LONGEST_SCRIPT = 1_000_000


def _priority(**options: Any) -> fields.String:
    return fields.String(validate=validate.OneOf(list(PRIORITIES)), **options)


def _input_files() -> fields.List[str]:
    return fields.List(IdField(), validate=validate.Length(max=MAX_INPUT_FILES))


def _word(words_known: type[TaskStatus] | type[ExecutionStatus]) -> fields.String:
    return fields.String(validate=validate.OneOf([str(word) for word in words_known]))


class TaskBody(InSpace):
    """A new task. Only the title is needed; without `agent_id` an agent is picked."""

    title = fields.String(required=True, validate=validate.Length(1, 500))
    description = words(100_000)
    instructions = words(LONGEST_SCRIPT)
    priority = _priority()
    agent_id = IdField(allow_none=True)
    deadline = Moment(allow_none=True)
    required_tools = fields.List(
        fields.String(validate=validate.Length(1, 128)), validate=validate.Length(max=MAX_REQUIRED_TOOLS)
    )
    input_files = _input_files()
    retry = fields.Nested(RetryBody, allow_none=True)
    placement = fields.Nested(PlacementBody, allow_none=True)
    breakers = breaker_names()
    exclusive = exclusive_word(allow_none=True)
    metadata = fields.Dict(keys=fields.String())


class TaskError(Body):
    """An error as somebody who closes a task by hand tells it."""

    code = words(64)
    message = words(10_000)
    retryable = fields.Boolean()


class ErrorByHand(fields.Nested):
    """A text, or an object with `code` and `message`."""

    def deserialize(
        self, value: Any, attr: str | None = None, data: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        given = {"message": value} if isinstance(value, str) else value
        return super().deserialize(given, attr, data, **kwargs)


class TaskChanges(Body):
    """What may be changed about a task; what is left out stays."""

    title = fields.String(validate=validate.Length(1, 500))
    description = words(100_000)
    instructions = words(LONGEST_SCRIPT)
    priority = _priority()
    agent_id = IdField(allow_none=True)
    deadline = Moment(allow_none=True)
    required_tools = fields.List(
        fields.String(validate=validate.Length(1, 128)), validate=validate.Length(max=MAX_REQUIRED_TOOLS)
    )
    retry = fields.Nested(RetryBody, allow_none=True)
    placement = fields.Nested(PlacementBody, allow_none=True)
    breakers = breaker_names()
    exclusive = exclusive_word(allow_none=True)
    progress_percent = fields.Integer(strict=True, validate=validate.Range(0, 100))
    metadata = fields.Dict(keys=fields.String())
    status = fields.String(
        validate=validate.OneOf(
            [TaskStatus.completed, TaskStatus.failed, TaskStatus.cancelled],
            error="only completed, failed and cancelled can be set; the others follow from what happens",
        )
    )
    result = Anything(allow_none=True)
    error = ErrorByHand(TaskError)


class Unread(fields.List[Any]):
    """A list whose items are documented by a schema but read one by one later, each with its own faults."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> list[Any]:
        if not isinstance(value, list):
            raise self.make_error("invalid")
        return value


class BulkBody(InSpace):
    """Many new tasks at once."""

    tasks = Unread(fields.Nested(TaskBody), required=True, validate=validate.Length(1, MAX_BULK))


class TaskQuery(Query):
    """How a list of tasks is narrowed."""

    status = _word(TaskStatus)
    status_filter = _word(TaskStatus)
    priority = _priority()
    agent_id = IdField()


class OptionsBody(Body):
    """Limits of one execution."""

    timeout = fields.Integer(
        strict=True,
        allow_none=True,
        validate=validate.Range(1, 7 * 86_400_000),
        metadata={"description": "milliseconds; the agent's own timeout is not exceeded"},
    )
    max_tokens = fields.Integer(strict=True, allow_none=True, validate=validate.Range(1, 10_000_000))


class ExecuteBody(InSpace):
    """What an agent is run on."""

    input = Anything(allow_none=True)
    input_data = Anything(allow_none=True, metadata={"description": "another spelling of input"})
    options = fields.Nested(OptionsBody, allow_none=True)
    input_files = _input_files()
    priority = _priority()
    retry = fields.Nested(RetryBody, allow_none=True)
    placement = fields.Nested(PlacementBody, allow_none=True)
    breakers = breaker_names()
    exclusive = exclusive_word(allow_none=True)


class ExecutionQuery(Query):
    """How a list of executions is narrowed."""

    status = _word(ExecutionStatus)
    agent_id = IdField()


class EventsQuery(Query):
    """From where, how many, and how long to wait for the next when there is none."""

    after = fields.Integer(load_default=0, validate=validate.Range(0, 2**53))
    wait = fields.Float(
        load_default=0.0,
        validate=validate.Range(0, LONGEST_WAIT_SECONDS),
        metadata={"description": "seconds to wait for an event when there is none yet"},
    )
    limit = fields.Integer(load_default=500, validate=validate.Range(1, 5000))


class FileQuery(Query):
    """How a list of files is narrowed."""

    task_id = IdField()
    execution_id = IdField()


class UploadQuery(Query):
    """What an upload belongs to."""

    task_id = IdField()


class ContentQuery(Query):
    """What a signed address carries."""

    expires = fields.Integer(required=True, validate=validate.Range(0, 2**53))
    signature = fields.String(required=True, validate=validate.Length(1, 128))


class UploadBody(Body):
    """A file as multipart/form-data."""

    file = fields.Raw(required=True, metadata={"type": "string", "format": "binary"})


class ArtifactBody(UploadBody):
    """A file that an attempt brings out."""

    name = fields.String(metadata={"description": "its path below /work/artifacts; else the file name is taken"})
    sha256 = fields.String(metadata={"description": "hex digest that the content must have"})


class FileView(View):
    """A file without its content."""

    id = fields.String()
    space = fields.String()
    filename = fields.String()
    content_type = fields.String()
    size = fields.Integer()
    sha256 = fields.String()
    task_id = fields.String(allow_none=True)
    execution_id = fields.String(allow_none=True)
    attempt_id = fields.String(allow_none=True)
    created_by = fields.String(allow_none=True)
    created_at = Moment()


class FileUrlView(View):
    """An address that downloads a file without a login, for a while."""

    url = fields.String()
    filename = fields.String()
    expires_in = fields.Integer()


class OutputFileView(View):
    """A file that came out of the computer."""

    id = fields.String()
    filename = fields.String()
    size = fields.Integer()
    sha256 = fields.String()


class ErrorView(View):
    """Why something failed."""

    code = fields.String()
    message = fields.String()
    retryable = fields.Boolean()


class UsageView(View):
    """What the work used; null where the computer could not tell."""

    wall_ms = fields.Integer(allow_none=True)
    cpu_ms = fields.Integer(allow_none=True)
    peak_memory_bytes = fields.Integer(allow_none=True)
    bytes_in = fields.Integer(allow_none=True)
    bytes_out = fields.Integer(allow_none=True)
    log_bytes = fields.Integer(allow_none=True)


class AttemptView(View):
    """One try on one node."""

    id = fields.String()
    number = fields.Integer()
    generation = fields.Integer()
    node_id = fields.String()
    node_name = fields.String(allow_none=True)
    state = fields.String()
    reason_code = fields.String(allow_none=True)
    exit_code = fields.Integer(allow_none=True)
    started_at = Moment(allow_none=True)
    ended_at = Moment(allow_none=True)
    error = Anything(allow_none=True)
    computer = Anything(allow_none=True)


class LogView(View):
    """One line of output."""

    seq = fields.Integer()
    timestamp = Moment()
    level = fields.String()
    stream = fields.String(allow_none=True)
    message = fields.String()
    attempt = fields.Integer(allow_none=True)
    node_id = fields.String(allow_none=True)


class _WorkView(View):
    """What tasks and executions answer alike."""

    id = fields.String()
    space = fields.String()
    status = fields.String()
    hold_reason = fields.String(allow_none=True)
    reason_code = fields.String(allow_none=True)
    priority = fields.String()
    agent_id = fields.String(allow_none=True)
    error = fields.Nested(ErrorView, allow_none=True)
    input_files = fields.List(fields.String())
    output_files = fields.List(fields.Nested(OutputFileView))
    usage = fields.Nested(UsageView, allow_none=True)
    attempts = fields.List(fields.Nested(AttemptView))
    retry = fields.Nested(RetryView)
    next_retry_at = Moment(allow_none=True)
    placement = fields.Nested(PlacementView)
    breakers = fields.List(fields.String())
    exclusive = fields.Boolean()
    created_by = fields.String(allow_none=True)
    created_at = Moment()
    updated_at = Moment()
    started_at = Moment(allow_none=True)
    completed_at = Moment(allow_none=True)
    duration_ms = fields.Integer(allow_none=True)
    version = fields.Integer()


class TaskSummary(_WorkView):
    """A task as lists show it: without result and log."""

    title = fields.String()
    description = fields.String()
    instructions = fields.String()
    assigned_by = fields.String(allow_none=True)
    workflow_id = fields.String(allow_none=True)
    parent_task_id = fields.String(allow_none=True)
    deadline = Moment(allow_none=True)
    required_tools = fields.List(fields.String())
    progress_percent = fields.Integer()
    retry_count = fields.Integer()
    max_retries = fields.Integer()
    metadata = fields.Dict(keys=fields.String())


class TaskView(TaskSummary):
    """A task with everything about it. `logs` are its first lines; the rest is at `/tasks/{id}/events`."""

    result = Anything(allow_none=True)
    logs = fields.List(fields.Nested(LogView))
    logs_truncated = fields.Boolean()


class BulkFault(View):
    """Why one of the tasks was not accepted."""

    code = fields.String()
    message = fields.String()
    details = fields.Dict(keys=fields.String())


class BulkResult(View):
    """What became of one of the tasks: `task` when it was created, `error` when not."""

    index = fields.Integer()
    status = fields.String(validate=validate.OneOf(["created", "error"]))
    task = fields.Nested(TaskSummary, metadata={"optional": True})
    error = fields.Nested(BulkFault, metadata={"optional": True})


class BulkView(View):
    """What became of each task, in the order given."""

    results = fields.List(fields.Nested(BulkResult))
    created = fields.Integer()
    failed = fields.Integer()


class TaskStatsView(View):
    """How many tasks there are."""

    total = fields.Integer()
    by_status = fields.Dict(keys=fields.String(), values=fields.Integer())
    by_priority = fields.Dict(keys=fields.String(), values=fields.Integer())


class OptionsView(View):
    """The limits that were asked for."""

    timeout = fields.Integer(allow_none=True)
    max_tokens = fields.Integer(allow_none=True)


class ExecutionResult(View):
    """What an execution answered."""

    output = Anything(allow_none=True)
    tokens_used = fields.Integer()
    cost = fields.Float()


class ExecutionSummary(_WorkView):
    """An execution as lists show it: without result and log."""

    agent_id = fields.String()
    input = Anything(allow_none=True)
    options = fields.Nested(OptionsView)


class ExecutionView(ExecutionSummary):
    """An execution with everything about it. `logs` are its first lines; the rest is at `/executions/{id}/events`."""

    result = fields.Nested(ExecutionResult, allow_none=True)
    logs = fields.List(fields.Nested(LogView))
    logs_truncated = fields.Boolean()


class ExecutionAccepted(View):
    """An execution that was accepted and goes on."""

    id = fields.String()
    execution_id = fields.String()
    agent_id = fields.String()
    status = fields.String()
    created_at = Moment()


class EventView(View):
    """One step or log line of a task or an execution."""

    seq = fields.Integer()
    timestamp = Moment()
    type = fields.String()
    level = fields.String()
    stream = fields.String(allow_none=True)
    message = fields.String()
    data = Anything(allow_none=True)
    attempt = fields.Integer(allow_none=True)


class EventsView(View):
    """Events in order. Ask again with `after` = `next_after` until `done`."""

    events = fields.List(fields.Nested(EventView))
    next_after = fields.Integer()
    done = fields.Boolean()

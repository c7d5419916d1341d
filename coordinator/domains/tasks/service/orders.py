"""From an agent and what a client asks for to what the queue is given. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from coordinator.config import Settings
from coordinator.domains.agents import service as agents
from coordinator.domains.agents.service import Agent, Runtime
from coordinator.domains.queue.service import JobState, JobView, NewJob
from coordinator.domains.tasks.store.files import StoredFile
from shared.contracts.node import InputFile, JobSpec
from shared.errors import Invalid
from shared.policy import charging
from shared.policy.retry import RetryPolicy

SCRIPT_FIELDS: Mapping[Runtime, tuple[str, ...]] = {Runtime.command: ("command",), Runtime.python: ("code", "script")}
"""Where an execution's input has the script, by runtime; the first name is the one we tell people."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a job is made with."""

    spec: Mapping[str, Any]
    retry: Mapping[str, Any]
    needs: Mapping[str, Any]
    takes_slot: bool


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """The part of a task that its job is made from."""

    title: str
    instructions: str
    requested: Mapping[str, Any]


REQUESTED = ("retry", "placement", "breakers", "exclusive")
"""What a client may ask for itself and else follows from the agent."""


def requested_in(body: Mapping[str, Any]) -> dict[str, Any]:
    """What a body asks for itself. Empty is not asked for; `exclusive: false` is."""
    return {name: body[name] for name in REQUESTED if name in body and body[name] not in (None, {}, [])}


def fault(field: str, reason: str) -> Invalid:
    """A rule of ours that one field of the body breaks, told the way the schemas tell theirs."""
    return Invalid(f"{field}: {reason}", field=field, reason=reason, errors=[{"field": field, "reason": reason}])


def require_runnable(agent: Agent) -> None:
    """Refuse work for an agent whose runtime no node has yet."""
    if agent.runtime not in agents.RUNNABLE:
        raise fault("agent_id", f"agent {agent.name} has the runtime {agent.runtime}, which cannot run work yet")


class Recipe:
    """How one agent's work becomes jobs. What is the same for all of it is put together once."""

    def __init__(self, agent: Agent, settings: Settings) -> None:
        require_runnable(agent)
        self.agent = agent
        self.has_computer = agent.runtime in agents.NEEDS_COMPUTER
        computer = agents.whole_computer(agent, settings)
        self._timeout = float(computer.pop("timeout_seconds"))
        self._settings = settings
        self._retry = _retry(agent.retry, {}, settings)
        self._needs = needs_of(agent, {})
        self._spec = JobSpec(
            kind="",
            agent=agent.name,
            runtime=str(agent.runtime),
            computer={name: value for name, value in computer.items() if value is not None}
            if self.has_computer
            else {},
            timeout_seconds=self._timeout,
            cancel_grace_seconds=settings.cancel_grace_seconds,
            is_exclusive=agent.is_exclusive,
        ).to_json()

    def task(self, task: TaskFacts, inputs: Sequence[Mapping[str, Any]]) -> Order:
        """A task's job: the instructions are the script; an echo agent answers them."""
        spec = respelled(self._spec, task)
        return self._order(task.requested, spec, kind="task", input_files=list(inputs))

    def execution(
        self,
        given: Any,
        options: Mapping[str, Any],
        requested: Mapping[str, Any],
        inputs: Sequence[Mapping[str, Any]],
    ) -> Order:
        """An execution's job: the input has the script and perhaps more; an echo agent answers the input as it is."""
        script, rest = _script_in(self.agent, given) if self.has_computer else (None, given)
        asked = options.get("timeout")
        timeout = self._timeout if asked is None else min(asked / 1000, self._timeout)
        return self._order(
            requested,
            self._spec,
            kind="execution",
            script=script,
            input=rest,
            input_files=list(inputs),
            timeout_seconds=timeout,
        )

    def _order(self, requested: Mapping[str, Any], base: Mapping[str, Any], **spec: Any) -> Order:
        has_retry, has_needs = requested.get("retry"), requested.get("placement") or requested.get("breakers")
        asked = requested.get("exclusive")
        return Order(
            spec={**base, **spec} if asked is None else {**base, **spec, "is_exclusive": asked},
            retry=_retry(self.agent.retry, requested, self._settings) if has_retry else self._retry,
            needs=needs_of(self.agent, requested) if has_needs else self._needs,
            takes_slot=self.has_computer,
        )


def respelled(spec: Mapping[str, Any], task: TaskFacts) -> Mapping[str, Any]:
    """A task's spec with its title and instructions as they are now; without an agent there is nothing to spell."""
    runtime = spec.get("runtime")
    if runtime is None:
        return spec
    if runtime not in agents.NEEDS_COMPUTER:
        return {**spec, "input": {"title": task.title, "instructions": task.instructions}}
    if not task.instructions.strip():
        reason = f"must not be empty: agent {spec['agent']} runs them as a {runtime} script"
        raise fault("instructions", reason)
    return {**spec, "script": task.instructions}


def for_nobody(
    kind: str, requested: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]], settings: Settings
) -> Order:
    """A job that has no agent yet: what is known without one."""
    spec = {"kind": kind, "input_files": list(inputs), "is_exclusive": bool(requested.get("exclusive"))}
    return Order(spec, _retry({}, requested, settings), {}, takes_slot=True)


def needs_of(agent: Agent, requested: Mapping[str, Any]) -> dict[str, Any]:
    """The kind of node that this agent's work with this placement asks for, and which breakers may hold it."""
    needs = agents.merged_placement(agent.placement, requested.get("placement"))
    if agent.runtime in agents.NEEDS_COMPUTER:
        needs |= {name: agent.computer[name] for name in ("driver", "min_isolation") if agent.computer.get(name)}
    names = {*agent.breakers, *(requested.get("breakers") or ()), *_services_of(agent)}
    return needs | {"breakers": sorted(names)} if names else needs


def _services_of(agent: Agent) -> Iterator[str]:
    """The breakers of what this agent uses because of what it is."""
    if agent.runtime in agents.NEEDS_COMPUTER and agent.computer.get("image"):
        yield charging.image(agent.computer["image"])
    if agent.runtime is Runtime.llm and agent.llm_provider and agent.llm_model:
        yield charging.llm(agent.llm_provider, agent.llm_model)


def input_of(file: StoredFile) -> dict[str, Any]:
    """A file as a node is told of it."""
    return InputFile(id=file.id, filename=file.filename, size=file.size, sha256=file.sha256).to_json()


def fresh_view(job: NewJob, now: datetime) -> JobView:
    """The job as it is right after it was accepted, without reading it back."""
    return JobView(
        id=job.id,
        space=job.space,
        kind=job.kind,
        agent_id=job.agent_id,
        priority=job.priority,
        state=JobState.queued,
        hold_reason=None,
        reason_code=None,
        error=None,
        generation=1,
        spec=job.spec,
        retry=job.retry,
        deadline_at=job.deadline_at,
        not_before=None,
        created_by=job.created_by,
        created_at=now,
        updated_at=now,
        started_at=None,
        finished_at=None,
        version=1,
        current_attempt_id=None,
    )


def _retry(of_agent: Mapping[str, Any], requested: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    usual = RetryPolicy(settings.retry_max_attempts, settings.retry_base_seconds, settings.retry_cap_seconds)
    return usual.merged(of_agent).merged(requested.get("retry")).to_json()


def _script_in(agent: Agent, given: Any) -> tuple[str, Any]:
    names = SCRIPT_FIELDS[agent.runtime]
    found = given if isinstance(given, dict) else {}
    name = next((name for name in names if name in found), names[0])
    script = found.get(name)
    if not isinstance(script, str) or not script.strip():
        raise fault(f"input.{names[0]}", f"must be the {agent.runtime} script that agent {agent.name} is to run")
    rest = {key: value for key, value in found.items() if key != name}
    return script, rest or None

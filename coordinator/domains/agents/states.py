"""The words for how an agent stands, and what each of them means for its work."""

from __future__ import annotations

from enum import StrEnum


class AgentStatus(StrEnum):
    """How an agent stands. All but `busy` are stored; `busy` is an idle agent whose work is running now."""

    idle = "idle"
    """Started: takes work at once. Every new agent is."""
    busy = "busy"
    """Never stored: an idle agent is shown as busy while the queue runs something for it."""
    error = "error"
    """Set aside because something is wrong with it; its work waits."""
    offline = "offline"
    """Stopped by somebody; its work waits."""
    paused = "paused"
    """Held back for a while; its work waits."""
    maintenance = "maintenance"
    """Held back while somebody works on it; its work waits."""


class AgentState(StrEnum):
    """The coarser word that follows from the status."""

    active = "active"
    inactive = "inactive"
    error = "error"


class Runtime(StrEnum):
    """What runs when an agent is given work."""

    command = "command"
    """A shell script, in a computer."""
    python = "python"
    """A Python script, in a computer."""
    echo = "echo"
    """Answers its input, without a computer."""
    llm = "llm"
    flow = "flow"


STORED = frozenset(AgentStatus) - {AgentStatus.busy}
STATE_OF: dict[AgentStatus, AgentState] = {
    AgentStatus.idle: AgentState.active,
    AgentStatus.busy: AgentState.active,
    AgentStatus.offline: AgentState.inactive,
    AgentStatus.paused: AgentState.inactive,
    AgentStatus.maintenance: AgentState.inactive,
    AgentStatus.error: AgentState.error,
}
RUNNABLE = frozenset({Runtime.command, Runtime.python, Runtime.echo})
"""Runtimes that a node can run today; agents with another one keep their fields and refuse work."""
NEEDS_COMPUTER = RUNNABLE - {Runtime.echo}

_WHY_HELD = {
    AgentStatus.offline: "is stopped; start it to run its work",
    AgentStatus.paused: "is paused; resume it to run its work",
    AgentStatus.maintenance: "is in maintenance; start it to run its work",
    AgentStatus.error: "is in error; start it to try again",
}


def shown_status(stored: AgentStatus, active: int) -> AgentStatus:
    """The status people see: an idle agent with running work is busy."""
    return AgentStatus.busy if stored is AgentStatus.idle and active else stored


def hold_reason(status: AgentStatus, name: str) -> str | None:
    """Why work for this agent waits, as a code and words; None when it does not."""
    why = _WHY_HELD.get(status)
    return None if why is None else f"agent_{status}: agent {name} {why}"


def statuses_meant(word: str) -> frozenset[AgentStatus]:
    """The statuses that a filter word of either vocabulary selects; empty for a word of neither.

    `error` is in both vocabularies and means the same in both.
    """
    if word in AgentStatus.__members__:
        return frozenset({AgentStatus(word)})
    return frozenset(status for status, state in STATE_OF.items() if state == word)

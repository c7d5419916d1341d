"""One row of the plan of faults: what is done, how often, and what must hold beside the invariants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from tests.faults.stack import Plan

if TYPE_CHECKING:
    from tests.faults.lab import Lab


@dataclass
class Tally:
    """What a row did and found while it was at it."""

    count: int = 0
    """Faults really injected."""
    wrong: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    """Figures for the report."""
    jobs: set[str] = field(default_factory=set)
    """Accepted jobs beside those of the load."""
    doomed: set[str] = field(default_factory=set)
    """Those of them that may die."""
    stall_seconds: float | None = None
    """The longest that a row measured itself."""

    def stalled(self, seconds: float) -> None:
        self.stall_seconds = max(seconds, self.stall_seconds or 0.0)


Try = Callable[["Row"], None]
Inject = Callable[["Lab", Random, int], Tally]


@dataclass(frozen=True)
class Row:
    """`number` is the row's in the plan; `name` says which of its variants."""

    number: int
    name: str
    fault: str
    mechanism: str
    """What makes it harmless."""
    criterion: str
    inject: Inject
    plan: Plan
    aim: int
    """How often in a run with time."""
    few: int
    """How often in continuous integration."""
    chunk: int = 10
    """How often between two times that everything is healed and checked."""
    limit_seconds: float | None = None
    """The longest, in real seconds, that a job may wait to run or to run again; None where the row says it itself."""
    rate: float = 4.0
    """Jobs a second meanwhile; 0 for none."""
    places: int = 1
    """At how many places each time: a count of ten at three places is thirty faults."""

    @property
    def key(self) -> str:
        return f"{self.number:02}-{self.name}"

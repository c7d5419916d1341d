"""What really ran, written down by the containers themselves: nothing here comes from the code under test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum


class Ran(StrEnum):
    """How a container stands, or ended."""

    running = "running"
    succeeded = "succeeded"
    """It did its work to the end: whatever it does to the outside world is done."""
    failed = "failed"
    broke = "broke"
    """The ground broke under it."""
    stopped = "stopped"
    """Somebody ended it."""


@dataclass(slots=True, eq=False)
class Container:
    """One start of one attempt."""

    attempt: str
    job: str
    node: str
    will: Ran
    seconds: float
    """how much work is left"""
    is_exclusive: bool = False
    state: Ran = Ran.running
    is_there: bool = True
    """False once it is removed."""
    was_unwatched: bool = False
    """Whether its daemon was dead or paused at any time while it ran: then nobody could end it in time."""

    @property
    def is_running(self) -> bool:
        return self.state is Ran.running and self.is_there

    def work(self, seconds: float) -> None:
        """Let time pass in it."""
        if not self.is_running:
            return
        self.seconds -= seconds
        if self.seconds <= 0:
            self.state = self.will

    def remove(self) -> None:
        """End it and clear it away."""
        if self.state is Ran.running:
            self.state = Ran.stopped
        self.is_there = False


@dataclass(slots=True)
class Ledger:
    """All containers that ever were, oldest first."""

    containers: list[Container] = field(default_factory=list)

    def start(self, container: Container) -> Container:
        self.containers.append(container)
        return container

    def running(self) -> Iterator[Container]:
        return (each for each in self.containers if each.is_running)

"""One form for every state machine: an enum of states and a table of allowed moves."""

from __future__ import annotations

from collections.abc import Mapping, Set
from enum import StrEnum
from typing import Generic, TypeVar

from shared.errors import StateConflict

S = TypeVar("S", bound=StrEnum)


class Lifecycle(Generic[S]):
    """The allowed moves of one kind of thing. A state without moves out is terminal."""

    def __init__(self, name: str, moves: Mapping[S, Set[S]]) -> None:
        self.name = name
        self.moves: dict[S, frozenset[S]] = {state: frozenset(targets) for state, targets in moves.items()}
        self.terminal: frozenset[S] = frozenset(state for state, targets in self.moves.items() if not targets)
        self.live: frozenset[S] = frozenset(self.moves) - self.terminal

    def allows(self, source: S, target: S) -> bool:
        return target in self.moves[source]

    def require(self, source: S, target: S) -> None:
        """Raise StateConflict unless `source` may become `target`."""
        if not self.allows(source, target):
            raise StateConflict(f"a {self.name} that is {source} cannot become {target}", state=str(source))

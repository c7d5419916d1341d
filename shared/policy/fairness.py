"""Who goes next: the order inside one agent's work, and turns between agents that want the same places."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")
HIGHEST_PRIORITY = 3


def rank_of(*, created_ms: int, priority: int, aging_seconds: float) -> int:
    """The place in line, lower first: each step of priority below the highest counts like this much later arrival.

    Work of low priority so waits at most three steps longer than critical work that keeps coming, never for ever.
    """
    return created_ms + round((HIGHEST_PRIORITY - priority) * aging_seconds * 1000)


@dataclass(slots=True)
class Sharing:
    """How agents and spaces share the fleet, and what the placing process remembers from round to round.

    `fairness_seconds` is how much further back an agent stands that has all places than one that has none.
    `space_max_active` 0 means no limit. `served_ms` is when each agent last got a place: forgetting it, as a new leader
    does, costs one place out of turn.
    """

    fairness_seconds: float = 1800.0
    space_max_active: int = 0
    served_ms: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """One waiting job."""

    rank: int
    id: str
    created_ms: int
    item: T

    @property
    def behind_ms(self) -> int:
        """How far its priority puts it behind critical work."""
        return max(0, self.rank - self.created_ms)


class Line(Generic[T]):
    """Waiting jobs of one agent that ask for the same kind of node, in the order of their ranks."""

    def __init__(self, agent_id: str, entries: Sequence[Entry[T]], *, takes_slot: bool = True) -> None:
        self.agent_id = agent_id
        self.takes_slot = takes_slot
        self.is_open = True
        self._entries = entries
        self._taken = 0
        self._least_behind = _least_to_come(entries)

    @property
    def head(self) -> Entry[T]:
        return self._entries[self._taken]

    @property
    def least_behind_ms(self) -> int:
        """The `behind_ms` of the most urgent job that still stands in the line."""
        return self._least_behind[self._taken]

    @property
    def is_empty(self) -> bool:
        return self._taken >= len(self._entries)

    def advance(self) -> None:
        self._taken += 1


def _least_to_come(entries: Sequence[Entry[Any]]) -> list[int]:
    least: list[int] = []
    for entry in reversed(entries):
        least.append(min(entry.behind_ms, least[-1]) if least else entry.behind_ms)
    return least[::-1]


class Turns(Generic[T]):
    """One round of giving out places: `next` names the line whose head goes next, until nothing is left.

    Inside an agent ranks decide. Between agents what counts is how long one was passed over, the priority of what it
    has to offer, and the share of the places it has already. How old its backlog is does not count: whoever handed in
    a hundred thousand jobs yesterday takes turns with whoever hands in ten now.
    """

    def __init__(
        self,
        lines: Iterable[Line[T]],
        sharing: Sharing,
        *,
        now_ms: int,
        places: Mapping[bool, int],
        busy: Mapping[tuple[str, bool], int],
    ) -> None:
        self._sharing = sharing
        self._now_ms = now_ms
        self._places = places
        self._busy = dict(busy)
        self._lines: dict[tuple[str, bool], list[Line[T]]] = {}
        for line in lines:
            self._lines.setdefault((line.agent_id, line.takes_slot), []).append(line)
        self._heap: list[tuple[float, int, str, tuple[str, bool]]] = []
        for asker in self._lines:
            self._queue_up(asker)

    def next(self) -> Line[T] | None:
        """The line whose turn it is; say `took` or `close` before asking again."""
        return self._first(self._heap[0][-1]) if self._heap else None

    def took(self, line: Line[T]) -> None:
        """Its head got a place."""
        asker = (line.agent_id, line.takes_slot)
        line.advance()
        self._busy[asker] = self._busy.get(asker, 0) + 1
        self._sharing.served_ms[line.agent_id] = self._now_ms
        self._move_on(asker)

    def close(self, line: Line[T]) -> None:
        """Nothing more of it fits in this round."""
        line.is_open = False
        self._move_on((line.agent_id, line.takes_slot))

    def _move_on(self, asker: tuple[str, bool]) -> None:
        heapq.heappop(self._heap)
        self._queue_up(asker)

    def _queue_up(self, asker: tuple[str, bool]) -> None:
        self._lines[asker] = [line for line in self._lines[asker] if line.is_open and not line.is_empty]
        if self._lines[asker]:
            head = self._first(asker).head
            heapq.heappush(self._heap, (self._standing(asker), head.rank, head.id, asker))

    def _first(self, asker: tuple[str, bool]) -> Line[T]:
        return min(self._lines[asker], key=lambda line: (line.head.rank, line.head.id))

    def _standing(self, asker: tuple[str, bool]) -> float:
        agent_id, takes_slot = asker
        # The agent speaks for the most urgent job it has, and then serves its own line in order: else a job that has
        # waited long, and so stands first, would hold back the urgent one behind it.
        behind = min(line.least_behind_ms for line in self._lines[asker])
        passed_over_since = max(self._first(asker).head.created_ms, self._sharing.served_ms.get(agent_id, 0))
        share = self._busy.get(asker, 0) / max(1, self._places.get(takes_slot, 0))
        return passed_over_since + behind + share * self._sharing.fairness_seconds * 1000

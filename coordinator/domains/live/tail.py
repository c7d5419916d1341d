"""The end of a table whose ids may become visible out of order, and the gaps that may still fill."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

PATIENCE_SECONDS = 30.0
"""How long a missing id may belong to a transaction that has not committed; later it was rolled back."""
MOST_GAPS = 500


@dataclass(frozen=True, slots=True)
class Gap:
    """Ids that were passed over, ends included."""

    low: int
    high: int
    noticed_at: float


class Tail:
    """Where reading goes on: behind the cursor, and inside the gaps.

    Ids are drawn before commit, so on PostgreSQL a smaller one may appear after a greater one was read. Each id that
    was passed over is remembered for a while and asked for again; no id is ever taken twice.
    """

    def __init__(self, newest: Sequence[int], now: float) -> None:
        self.cursor = newest[0] - 1 if newest else 0
        self._gaps: list[Gap] = []
        self.advance(newest, now)

    @property
    def gaps(self) -> list[tuple[int, int]]:
        return [(gap.low, gap.high) for gap in self._gaps]

    def advance(self, ids: Iterable[int], now: float) -> None:
        """Ascending ids behind the cursor were read."""
        for number in ids:
            if number > self.cursor + 1:
                self._gaps.append(Gap(self.cursor + 1, number - 1, now))
            self.cursor = number
        self._gaps = [gap for gap in self._gaps if now - gap.noticed_at < PATIENCE_SECONDS][-MOST_GAPS:]

    def fill(self, ids: Iterable[int]) -> None:
        """Ids inside gaps were read."""
        for number in ids:
            self._gaps = [rest for gap in self._gaps for rest in _without(gap, number)]


def _without(gap: Gap, number: int) -> list[Gap]:
    if not gap.low <= number <= gap.high:
        return [gap]
    sides = [Gap(gap.low, number - 1, gap.noticed_at), Gap(number + 1, gap.high, gap.noticed_at)]
    return [side for side in sides if side.low <= side.high]

"""What a schedule looks at most: chance stays what decides, with other odds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Focus:
    """How much more often than otherwise some steps are taken, and which calls hang while others go on."""

    odds: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """A word of a step's name → the factor of its weight."""
    hanging: str = ""
    """A pattern of the names of the calls that hang; any may, when it is empty."""

    def factor(self, step: str) -> float:
        found = 1.0
        for word, factor in self.odds.items():
            if word in step:
                found *= factor
        return found


EVEN = Focus()

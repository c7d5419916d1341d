"""One number that scales all of Longshore's timings down, so that an outage of a minute takes seconds to try."""

from __future__ import annotations

import os
from dataclasses import dataclass

FACTOR = 6.0
SLACK_SECONDS = 8.0
"""What does not scale: starting a process, fixed timeouts and back-offs. More where more than one wants each core."""

_SECONDS = {
    "heartbeat_seconds": 10.0,
    "lease_seconds": 30.0,
    "leader_seconds": 10.0,
    "sweep_seconds": 2.0,
    "republish_seconds": 15.0,
    "unpublished_seconds": 1.0,
    "cancel_grace_seconds": 5.0,
    "retry_base_seconds": 5.0,
    "retry_cap_seconds": 30.0,
    "reap_seconds": 60.0,
    "stop_grace_seconds": 5.0,
    "canary_seconds": 30.0,
    "breaker_window_seconds": 120.0,
    "breaker_recovery_seconds": 60.0,
    "breaker_recovery_cap_seconds": 600.0,
}
"""The defaults, in real seconds."""


def slowness() -> float:
    """How many want each core of this machine; 1 on one that is quiet."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@dataclass(frozen=True, slots=True)
class Tempo:
    """How much faster than life everything goes."""

    factor: float = FACTOR

    def scaled(self, seconds: float) -> float:
        """A duration of real life, in this run."""
        return seconds / self.factor

    def within(self, seconds: float) -> float:
        """How long something may take here that may take so long in real life."""
        return self.scaled(seconds) + SLACK_SECONDS * slowness()

    def variables(self) -> dict[str, str]:
        """The settings of coordinator and node, scaled."""
        return {f"LONGSHORE_{name.upper()}": f"{self.scaled(value):.3f}" for name, value in _SECONDS.items()}

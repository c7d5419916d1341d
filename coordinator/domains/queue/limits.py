"""The numbers the queue layer decides by, taken from the settings once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from coordinator.config import Settings
from shared.policy.retry import PoisonRule, RetryPolicy


@dataclass(frozen=True, slots=True)
class Limits:
    """All of them in seconds or counts; tests scale them down together."""

    lease_seconds: float
    republish_seconds: float
    unpublished_seconds: float
    max_publishes: int
    infra_max_attempts: int
    retry_after_cap_seconds: float
    poison: PoisonRule
    leader_grace_seconds: float
    retry: RetryPolicy

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(
            lease_seconds=settings.lease_seconds,
            republish_seconds=settings.republish_seconds,
            unpublished_seconds=settings.unpublished_seconds,
            max_publishes=settings.max_publishes,
            infra_max_attempts=settings.infra_max_attempts,
            retry_after_cap_seconds=settings.retry_after_cap_seconds,
            poison=PoisonRule(settings.poison_losses, settings.poison_nodes, settings.poison_hours),
            leader_grace_seconds=settings.lease_seconds,
            retry=RetryPolicy(settings.retry_max_attempts, settings.retry_base_seconds, settings.retry_cap_seconds),
        )

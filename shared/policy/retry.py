"""Whether a failed job is tried again, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most `max_attempts` failures of the job's own; between them full jitter over base·2ⁿ, capped."""

    max_attempts: int
    base_seconds: float
    cap_seconds: float

    def merged(self, partial: Mapping[str, Any] | None) -> Self:
        """This policy with what `partial` says instead."""
        given = partial or {}
        return type(self)(
            max_attempts=int(given.get("max_attempts") or self.max_attempts),
            base_seconds=float(self.base_seconds if given.get("base_seconds") is None else given["base_seconds"]),
            cap_seconds=float(self.cap_seconds if given.get("cap_seconds") is None else given["cap_seconds"]),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "max_attempts": self.max_attempts,
            "base_seconds": self.base_seconds,
            "cap_seconds": self.cap_seconds,
        }


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Queue it again, not before this many seconds have passed."""

    after_seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No further try, for this reason."""

    reason_code: str


Verdict = TryAgain | GiveUp


def after_failure(
    policy: RetryPolicy, *, failures: int, retryable: bool, draw: float, retry_after_seconds: float | None = None
) -> Verdict:
    """The job itself failed for the `failures`-th time. `draw` is uniform in [0, 1)."""
    if not retryable:
        return GiveUp("not_retryable")
    if failures >= policy.max_attempts:
        return GiveUp("attempts_exhausted")
    return TryAgain(max(backoff(policy, failures, draw), retry_after_seconds or 0.0))


def after_loss(policy: RetryPolicy, *, losses: int, max_losses: int, draw: float) -> Verdict:
    """The ground under the job broke for the `losses`-th time; its own failures are not counted here."""
    if losses >= max_losses:
        return GiveUp("infrastructure_exhausted")
    return TryAgain(0.0 if losses == 1 else backoff(policy, losses - 1, draw))


def backoff(policy: RetryPolicy, tries: int, draw: float) -> float:
    """Full jitter: uniform between nothing and base·2^(tries-1), at most the cap (AWS Architecture Blog, 2015)."""
    ceiling: float = min(policy.cap_seconds, policy.base_seconds * 2 ** min(tries - 1, 32))
    return draw * ceiling

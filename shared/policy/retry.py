"""Whether work that failed or was lost is tried again, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

RETRYABLE: Mapping[str, str] = {
    "exit_nonzero": "the command ended with an exit code other than 0",
    "timeout": "it ran longer than its time limit",
    "out_of_memory": "it used more than its memory limit",
    "result_invalid": "it wrote a result that cannot be read",
    "rate_limit_error": "a service it depends on had too much to do",
}
"""The reasons a job itself can fail for that another try may help against. Other failures are final by their nature."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most `max_attempts` failures of the job's own; between them full jitter over base·2ⁿ, capped.

    `on` names the reasons that are worth another try; None: all that another try may help against.
    """

    max_attempts: int
    base_seconds: float
    cap_seconds: float
    on: tuple[str, ...] | None = None

    def merged(self, partial: Mapping[str, Any] | None) -> Self:
        """This policy with what `partial` says instead."""
        given = partial or {}
        return type(self)(
            max_attempts=int(given.get("max_attempts") or self.max_attempts),
            base_seconds=float(self.base_seconds if given.get("base_seconds") is None else given["base_seconds"]),
            cap_seconds=float(self.cap_seconds if given.get("cap_seconds") is None else given["cap_seconds"]),
            on=self.on if given.get("on") is None else tuple(given["on"]),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "max_attempts": self.max_attempts,
            "base_seconds": self.base_seconds,
            "cap_seconds": self.cap_seconds,
            "on": None if self.on is None else list(self.on),
        }


@dataclass(frozen=True, slots=True)
class Failure:
    """How the job itself failed, for the `number`-th time since it was accepted or sent round again."""

    number: int
    reason_code: str | None
    retryable: bool
    retry_after_seconds: float = 0.0
    """What the service that refused asked for."""


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Queue it again, not before this many seconds have passed."""

    after_seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No further try, for this reason."""

    reason_code: str


Verdict = TryAgain | GiveUp


def after_failure(policy: RetryPolicy, failure: Failure, *, draw: float) -> Verdict:
    """The job itself failed. `draw` is uniform in [0, 1)."""
    if not failure.retryable:
        return GiveUp("not_retryable")
    if policy.on is not None and failure.reason_code not in policy.on:
        return GiveUp("not_worth_a_retry")
    if failure.number >= policy.max_attempts:
        return GiveUp("attempts_exhausted")
    return TryAgain(max(backoff(policy, failure.number, draw), failure.retry_after_seconds))


def after_loss(policy: RetryPolicy, *, losses: int, max_losses: int, draw: float) -> Verdict:
    """The ground under the job broke for the `losses`-th time; its own failures are not counted here."""
    if losses >= max_losses:
        return GiveUp("infrastructure_exhausted")
    return TryAgain(0.0 if losses == 1 else backoff(policy, losses - 1, draw))


def backoff(policy: RetryPolicy, tries: int, draw: float) -> float:
    """Full jitter: uniform between nothing and base·2^(tries-1), at most the cap (AWS Architecture Blog, 2015)."""
    ceiling: float = min(policy.cap_seconds, policy.base_seconds * 2 ** min(tries - 1, 32))
    return draw * ceiling


@dataclass(frozen=True, slots=True)
class Loss:
    """An attempt that was lost, where and when."""

    node_id: str
    node_name: str
    at: datetime
    reason_code: str | None = None


@dataclass(frozen=True, slots=True)
class PoisonRule:
    """Work that was lost this often, on this many different nodes, within this time is thought to break them."""

    losses: int
    nodes: int
    hours: float

    def may_apply(self, losses: int) -> bool:
        """Whether as many losses could be enough: nobody needs to look at where they were before that."""
        return losses >= self.losses

    def suspects(self, losses: Sequence[Loss], *, now: datetime) -> tuple[str, ...]:
        """The names of the nodes that this work seems to have broken; none while it is not suspected."""
        since = now - timedelta(hours=self.hours)
        counted = [loss for loss in losses if loss.at >= since and loss.reason_code not in NOT_THE_WORKS_DOING]
        nodes = {loss.node_id: loss.node_name for loss in counted}
        if len(counted) < self.losses or len(nodes) < self.nodes:
            return ()
        return tuple(sorted(nodes.values()))


NOT_THE_WORKS_DOING = frozenset({"image_missing", "driver_unavailable", "node_rejected", "node_removed"})
"""Losses that say nothing about the work: it had not begun, or an admin took the node away."""

"""The canary's runtime: answers its input, without a computer."""

from __future__ import annotations

from shared.contracts.node import Outcome
from worker.attempts import Attempt
from worker.jobs.ending import Ending


class Echo:
    """Takes no slot and no time."""

    is_instant = True

    def run(self, attempt: Attempt) -> Ending:
        return Ending(Outcome.succeeded, result=attempt.spec.input, usage={"wall_ms": 0})

    def clear(self, attempt: Attempt) -> None:
        """It leaves nothing."""

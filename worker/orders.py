"""What a heartbeat's reply asks for, done: start and stop listening, stop attempts, keep the limits."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from shared.contracts.node import HeartbeatReply, Want
from worker.attempts import Attempts, Stop
from worker.consumer import Ear
from worker.fence import Fence
from worker.jobs.computers import Computers
from worker.jobs.script import Limits
from worker.lastcall import LastCall

log = structlog.get_logger(__name__)


class Orders:
    """Obeys the coordinator, reply by reply."""

    def __init__(
        self,
        *,
        attempts: Attempts,
        computers: Computers,
        ear: Ear,
        fence: Fence,
        last_call: LastCall,
        say: Callable[[str], None],
    ):
        self._last_call = last_call
        self._attempts = attempts
        self._computers = computers
        self._ear = ear
        self._fence = fence
        self._say = say
        self._was_approved: bool | None = None
        self._drains = False
        self.limits = Limits()

    def obey(self, reply: HeartbeatReply, sent_at: float) -> None:
        self._fence.acknowledged(sent_at=sent_at, lease_seconds=reply.lease_seconds)
        self._tell_approval(is_approved=reply.is_approved)
        if not reply.is_approved:
            self.cut_off()
            return
        self.limits = Limits.of(reply.limits)
        if reply.drain != self._drains:
            self._drains = reply.drain
            log.info("drain_asked" if reply.drain else "drain_over", within=reply.drain_in_seconds)
            if not reply.drain:
                self._last_call.set(None)
        if reply.drain and reply.drain_in_seconds is not None:
            self._last_call.set(reply.drain_in_seconds)
        self._ear.want(reply.broker, restart=reply.restart_consumer)
        for attempt_id, want in reply.attempts.items():
            self._want(attempt_id, want)

    def cut_off(self) -> None:
        """We are nobody to the coordinator: hear nothing, run nothing."""
        self._ear.want(None)
        self.stop_all(Stop.kill, grace_seconds=0)

    def stale(self, attempt_id: str) -> None:
        """The coordinator takes nothing of this attempt any more."""
        self._want(attempt_id, Want.kill)

    def stop_all(self, reason: Stop, *, grace_seconds: float) -> None:
        for attempt in self._attempts.all():
            attempt.stop(reason, grace_seconds=min(grace_seconds, attempt.spec.cancel_grace_seconds))
        self._computers.wake()

    def _want(self, attempt_id: str, want: str) -> None:
        attempt = self._attempts.find(attempt_id)
        if attempt is None or want == Want.keep:
            return
        if want == Want.stop:
            attempt.stop(Stop.cancel, grace_seconds=attempt.spec.cancel_grace_seconds)
        else:
            attempt.stop(Stop.kill, grace_seconds=0)
        self._computers.wake()

    def _tell_approval(self, *, is_approved: bool) -> None:
        if is_approved == self._was_approved:
            return
        if is_approved:
            self._say("approved: this node takes work now")
        elif self._was_approved:
            self._say("no longer approved: everything that ran here is stopped")
        else:
            self._say("waiting for an admin to approve this node; until then it gets no work")
        self._was_approved = is_approved

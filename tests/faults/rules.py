"""Rules of the queue layer that can be turned off in a started program: a test that stays green then is no test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Change = Callable[[Any], Any]


def _does_nothing(_original: Any) -> Any:
    return lambda *_args, **_options: 0


def _grants_again(original: Any) -> Any:
    """Whoever asks for an attempt that was claimed before gets it once more."""

    def claim(attempt: Any, job: Any, by: Any, **options: Any) -> Any:
        from coordinator.domains.queue.decisions import Granted, Refused

        verdict = original(attempt, job, by, **options)
        is_repeat = isinstance(verdict, Refused) and attempt.node_id == by.node_id
        return Granted(None) if is_repeat else verdict

    return claim


def _forgets_nothing(_original: Any) -> Any:
    return lambda *_args, **_options: None


WITHOUT: Mapping[str, Mapping[str, Change]] = {
    "reconcile": {
        "coordinator.domains.queue.relay:Relay.sweep": _does_nothing,
        "coordinator.dispatcher:expire_unclaimed": _does_nothing,
    },
    "claim-guard": {"coordinator.domains.queue.decisions:claim": _grants_again},
    "leases": {
        "coordinator.dispatcher:lose_expired": _does_nothing,
        "coordinator.domains.queue.nodes:_lose_forgotten": _forgets_nothing,
    },
    "recovery": {"worker.recovery:Recovery.run": _forgets_nothing},
    "self-fence": {"worker.daemon:Daemon._on_silence": _forgets_nothing},
}
"""Rule → what stands in its place, by module:name."""

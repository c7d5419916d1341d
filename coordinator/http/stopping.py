"""What a web process does first when it is told to stop: end what would otherwise go on for long."""

from __future__ import annotations

import threading
from collections.abc import Callable

_actions: list[Callable[[], None]] = []
_lock = threading.Lock()


def when_stopping(action: Callable[[], None]) -> None:
    """Call `action` when the process is told to stop. It must be quick, and harmless when called again."""
    if action not in _actions:
        _actions.append(action)


def stop() -> None:
    """Do everything that was asked for; returns when it is done."""
    with _lock:
        for action in _actions:
            action()

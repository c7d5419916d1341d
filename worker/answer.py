"""One value that one thread hands to another, once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Answer(Generic[T]):
    """A future of two locks less: half of a node's time under load went into waiting for answers.

    `on_set`, if given, is called with the value by the thread that sets it; it must be quick and must not raise.
    """

    __slots__ = ("_gate", "_on_set", "_value")

    def __init__(self, on_set: Callable[[T], None] | None = None) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()
        self._on_set = on_set
        self._value: T

    def set(self, value: T) -> None:
        self._value = value
        self._gate.release()
        if self._on_set is not None:
            self._on_set(value)

    def result(self, timeout: float | None = None) -> T:
        """The value, once it is there; TimeoutError when it is not there in time."""
        if not self._gate.acquire(timeout=-1 if timeout is None else timeout):
            raise TimeoutError
        self._gate.release()
        return self._value

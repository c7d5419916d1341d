"""What waits to be sent to one socket: filled by the follower's thread, emptied on the event loop, never too full."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Outbox(Generic[T]):
    """At most `most` items. Whoever offers one too many empties it: `take` then says that something was lost."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._items: list[T] = []
        self._overflowed = False
        self._news: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def offer(self, items: Sequence[T]) -> None:
        """Add items. Callable from any thread; never blocks."""
        with self._lock:
            if self._overflowed:
                return
            if len(self._items) + len(items) > self._most:
                self._items, self._overflowed = [], True
            else:
                self._items += items
            loop, news = self._loop, self._news
        if loop is not None and news is not None and not news.is_set():
            loop.call_soon_threadsafe(news.set)

    async def take(self) -> list[T] | None:
        """Everything there is, as soon as there is something; None when items were lost since the last time."""
        if self._news is None:
            with self._lock:
                self._news, self._loop = asyncio.Event(), asyncio.get_running_loop()
        while True:
            self._news.clear()
            with self._lock:
                items, self._items = self._items, []
                lost, self._overflowed = self._overflowed, False
            if lost:
                return None
            if items:
                return items
            await self._news.wait()

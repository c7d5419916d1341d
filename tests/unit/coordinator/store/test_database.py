"""What a transaction knows of the time."""

from __future__ import annotations

import threading
from pathlib import Path

from sqlalchemy import event

from coordinator.store.database import Database
from shared.clock import FrozenClock

SECONDS = 10.0


def test_what_waited_for_another_writer_is_later_than_what_that_one_wrote(tmp_path: Path) -> None:
    clock = FrozenClock()
    url = f"sqlite:///{tmp_path / 'one.db'}"
    # Two of them, as two processes have: nothing but the file's own lock is between them.
    first, second = Database(url, clock=clock), Database(url, clock=clock)
    with second.write():
        pass  # Connected: only the lock is to be waited for.
    asks, seen = threading.Event(), []
    event.listen(second.engine, "before_cursor_execute", lambda *_: asks.set())

    def wait_and_look() -> None:
        with second.write() as tx:
            seen.append(tx.now)

    waiting = threading.Thread(target=wait_and_look)
    with first.write():
        waiting.start()
        assert asks.wait(SECONDS)
        clock.advance(5)
    waiting.join(SECONDS)
    assert seen == [clock.now()]
    first.dispose()
    second.dispose()

"""Ids sort by when they were made."""

from __future__ import annotations

import threading
import uuid

from shared.ids import is_id, new_id, new_ids


def test_ids_are_version_7_and_grow() -> None:
    made = new_ids(5000)
    assert made == sorted(made)
    assert len(set(made)) == 5000
    assert {uuid.UUID(item).version for item in made} == {7}


def test_ids_of_a_stopped_or_backward_clock_still_grow() -> None:
    made = [new_id(now_ms=moment) for moment in (2_000_000_000_000, 1_000_000_000_000, 2_000_000_000_000)]
    assert made == sorted(made)


def test_threads_never_share_an_id() -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.extend(new_ids(2000))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 8000


def test_only_ids_look_like_ids() -> None:
    assert is_id(new_id())
    assert not any(is_id(text) for text in ("", "agent_abc", "123", new_id().replace("-", "")))

"""Identifiers: UUID version 7 (RFC 9562), so that ids made later sort later."""

from __future__ import annotations

import os
import threading
import time
import uuid
from datetime import datetime

_lock = threading.Lock()
_last = 0


def new_id(now_ms: int | None = None) -> str:
    """A new UUIDv7 as text; within one process strictly increasing, also inside a millisecond."""
    global _last
    stamp = ((now_ms if now_ms is not None else time.time_ns() // 1_000_000) & 0xFFFF_FFFF_FFFF) << 12
    with _lock:
        # The 12 bits after the timestamp count up inside a millisecond (RFC 9562, method 1) and
        # borrow from the next millisecond when they overflow, so order never depends on luck.
        _last = stamp if stamp > _last else _last + 1
        ordered = _last
    tail = int.from_bytes(os.urandom(8), "big") & 0x3FFF_FFFF_FFFF_FFFF
    value = (ordered >> 12) << 80 | 0x7 << 76 | (ordered & 0xFFF) << 64 | 0x2 << 62 | tail
    return str(uuid.UUID(int=value))


def new_ids(count: int) -> list[str]:
    """`count` increasing ids."""
    return [new_id() for _ in range(count)]


def first_id_at(moment: datetime) -> str:
    """The smallest id that could have been made at `moment`: a range of ids is a range of time."""
    value = int(moment.timestamp() * 1000) << 80 | 0x7 << 76 | 0x2 << 62
    return str(uuid.UUID(int=value))


def is_id(text: str) -> bool:
    """Whether `text` has the form of an id."""
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False

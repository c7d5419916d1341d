"""How the broker should be set up, beside how it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import redis

_WANTED = {
    "maxmemory-policy": ("noeviction", "a full Redis would throw tickets away in silence"),
    "appendonly": ("yes", "a restart would forget the tickets under way, until they are sent again"),
}


@dataclass(frozen=True, slots=True)
class Advice:
    """One setting of the broker. `is_right` is None when it may not be asked."""

    name: str
    is_right: bool | None
    message: str


def advise(client: redis.Redis) -> Iterator[Advice]:
    """Each setting that matters. Raises what redis raises when the broker is away."""
    for name, (value, otherwise) in _WANTED.items():
        try:
            found = client.config_get(name).get(name)
        except redis.ResponseError:
            yield Advice(name, None, f"may not be asked here; it should be {value}")
            continue
        is_right = found == value
        yield Advice(name, is_right, str(found) if is_right else f"{found}, should be {value}: {otherwise}")

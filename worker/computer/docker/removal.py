"""Removing containers and volumes so that they are gone when the call returns."""

from __future__ import annotations

import time
from urllib.parse import quote

from worker.computer.docker.engine import Engine, EngineError, container_path

_NOT_FOUND = 404
_CONFLICT = 409
_TRIES = 8
_PAUSE_SECONDS = 0.01


def remove_container(engine: Engine, container: str) -> None:
    """Also when somebody else is removing it at the same time; with its anonymous volumes."""
    for tries_left in reversed(range(_TRIES)):
        try:
            engine.delete(container_path(container), {"force": 1, "v": 1})
            return
        except EngineError as error:
            if error.status_code == _NOT_FOUND:
                return
            if not tries_left:
                raise
            # 409: a removal is under way; 5xx: the file system is busy for a moment.
            time.sleep(_PAUSE_SECONDS * 2 ** (_TRIES - tries_left))


def remove_volume(engine: Engine, volume: str) -> None:
    """A volume that a container still uses stays: the container's own removal comes first."""
    try:
        engine.delete(f"/volumes/{quote(volume, safe='')}")
    except EngineError as error:
        if error.status_code not in (_NOT_FOUND, _CONFLICT):
            raise

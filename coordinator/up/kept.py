"""What a home keeps between two starts, readable by its owner alone."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def url_file(home: Path) -> Path:
    """Where the embedded Redis' address is kept, its password included."""
    return home / "redis" / "url"


def kept_url(home: Path) -> str | None:
    """The address of the Redis that `coordinator up` keeps in this home; None when it never did."""
    try:
        return url_file(home).read_text().strip() or None
    except OSError:
        return None


def write_secret(path: Path, text: str) -> None:
    """Whole or not at all, and readable by its owner alone from the first byte."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as target:
        target.write(text)
    draft.replace(path)

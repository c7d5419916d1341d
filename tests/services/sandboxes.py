"""Processes of sandboxes, found by what is mounted in them: whoever made them need not be alive or know of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

_WORK = re.compile(r"/computers/([^/\s]+)/work\S* ")


def inhabitants() -> Iterator[tuple[str, psutil.Process]]:
    """Each process of this machine that has the work directory of a computer among its mounts, with its computer."""
    for folder in Path("/proc").iterdir():
        # A process may end while we look at it.
        with suppress(OSError, psutil.Error):
            if folder.name.isdigit() and (found := _WORK.search((folder / "mountinfo").read_text())):
                yield found[1], psutil.Process(int(folder.name))


def of(computer: str) -> list[psutil.Process]:
    return [process for name, process in inhabitants() if name == computer]

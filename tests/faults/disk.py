"""A small file system that can be filled up, gone when the tests are gone."""

from __future__ import annotations

import os
import shutil
import subprocess
from io import FileIO
from pathlib import Path
from typing import IO

_FILLER = "filler"
_BLOCK = b"\0" * 65536


class DiskMissing(RuntimeError):
    """This machine lets us mount nothing."""


class SmallDisk:
    """A tmpfs at `path`. A process of its own takes it away when ours is gone, however it goes."""

    def __init__(self, path: Path, size: int) -> None:
        if os.geteuid() != 0 or shutil.which("mount") is None:
            raise DiskMissing("mounting a small file system needs root")
        self._path = path
        path.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], check=True)
        self._cleaner = subprocess.Popen(
            ["sh", "-c", 'read -r line; exec umount -l "$1"', "sh", str(path)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def fill(self) -> None:
        """Leave no byte."""
        with (self._path / _FILLER).open("ab", buffering=0) as file:
            for size in (len(_BLOCK), 4096, 1):
                _write_until_full(file, _BLOCK[:size])

    def empty(self) -> None:
        """Give the space back."""
        (self._path / _FILLER).unlink(missing_ok=True)

    def close(self) -> None:
        if self._cleaner.stdin is not None:
            self._cleaner.stdin.close()
        self._cleaner.wait(30)


def _write_until_full(file: IO[bytes] | FileIO, block: bytes) -> None:
    try:
        while file.write(block):
            pass
    except OSError:
        return  # full

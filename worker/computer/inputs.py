"""The content of a file that is put into a computer: how long it is, and its bytes in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from shared.errors import Invalid
from worker.computer.contract import InputFile

_CHUNK_BYTES = 1024 * 1024


def chunks_of(file: InputFile, size: int) -> Iterator[bytes]:
    if isinstance(file.source, bytes):
        yield file.source
        return
    left = size
    while left:
        chunk = file.source.read(min(left, _CHUNK_BYTES))
        if not chunk:
            raise Invalid(f"{file.path!r} ended {left} bytes early", field="source", reason="shorter than its size")
        left -= len(chunk)
        yield chunk


def size_of(file: InputFile) -> int:
    if isinstance(file.source, bytes):
        return len(file.source)
    return file.size if file.size is not None else _rest_of(file.source, file.path)


def _rest_of(source: BinaryIO, path: str) -> int:
    if not source.seekable():
        raise Invalid(f"the size of {path!r} must be given", field="size", reason="its source cannot seek")
    at = source.tell()
    end = source.seek(0, 2)
    source.seek(at)
    return end - at

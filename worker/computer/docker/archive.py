"""Files in and out of a container as tar streams, made and read bit by bit."""

from __future__ import annotations

import tarfile
import time
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from typing import IO, Protocol, cast

from worker.computer.collecting import Harvest, Read
from worker.computer.contract import InputFile
from worker.computer.inputs import chunks_of, size_of
from worker.computer.names import inside_path

_USER = 1000
_BLOCK = 512
_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.FIFOTYPE: "a FIFO",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
}


class Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


# -- in


def tar_of(files: Sequence[InputFile]) -> Iterator[bytes]:
    """A tar of the files and their parent directories, all owned by the job's user."""
    now = int(time.time())
    made: set[str] = set()
    for file in files:
        path = inside_path(file.path)
        for parent in _parents(path):
            if parent not in made:
                made.add(parent)
                yield _head(parent, now, kind=tarfile.DIRTYPE, mode=0o755)
        yield from _regular(path, file, now)
    yield bytes(2 * _BLOCK)


def _parents(path: str) -> Iterator[str]:
    parts = path.split("/")
    for count in range(1, len(parts)):
        yield "/".join(parts[:count])


def _head(path: str, now: int, *, kind: bytes, mode: int, size: int = 0) -> bytes:
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.size, info.mtime = kind, mode & 0o777, size, now
    info.uid = info.gid = _USER
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _regular(path: str, file: InputFile, now: int) -> Iterator[bytes]:
    size = size_of(file)
    yield _head(path, now, kind=tarfile.REGTYPE, mode=file.mode, size=size)
    yield from chunks_of(file, size)
    yield bytes(-size % _BLOCK)


# -- out


def harvest_result(stream: Readable, harvest: Harvest) -> None:
    """Takes the one file of a tar that was asked for by its path."""
    for tar, member in _members(stream, harvest, "result.json"):
        if member.isreg():
            harvest.take_result(member.name, member.size, _reader(tar, member))
        else:
            harvest.refuse(member.name, _kind(member))
        return


def harvest_artifacts(stream: Readable, harvest: Harvest, *, skip_bytes: int) -> None:
    """Takes the regular files of a tar of the artifacts directory.

    A refused file's content still comes through the stream; after `skip_bytes` of it the rest is given up.
    """
    for tar, member in _members(stream, harvest, "artifacts"):
        name = member.name.partition("/")[2]
        if member.isdir():
            continue
        if not member.isreg() or not name:
            harvest.refuse(name or member.name, _kind(member))
        elif harvest.wants(name, member.size):
            harvest.take(name, member.size, _reader(tar, member))
        else:
            skip_bytes -= member.size
        if skip_bytes < 0:
            harvest.refuse(
                "artifacts", "what came after the last refused file was not looked at: too much to pass over"
            )
            return


def _members(stream: Readable, harvest: Harvest, name: str) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """A tree that changes while it is read breaks the tar off; what came until then is kept."""
    try:
        with tarfile.TarFile.open(fileobj=cast("IO[bytes]", stream), mode="r|") as tar:
            while (member := tar.next()) is not None:
                yield tar, member
                # tarfile remembers every member; a job could make us hold millions.
                tar.members = []  # type: ignore[attr-defined]
    except (tarfile.TarError, EOFError, OSError, HTTPException) as error:
        harvest.refuse(name, f"reading broke off: {error}")


def _reader(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Read:
    file = tar.extractfile(member)
    if file is None:
        raise tarfile.ReadError(f"no content for {member.name!r}")
    return file.read


def _kind(member: tarfile.TarInfo) -> str:
    return f"it is {_KINDS.get(member.type, 'not a regular file')}"

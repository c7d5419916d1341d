"""Files of a work directory that a hostile job may have prepared: every step opens one name and follows no link."""

from __future__ import annotations

import os
import secrets
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from shared.errors import Invalid
from worker.computer.collecting import Harvest
from worker.computer.contract import ARTIFACTS, RESULT, ComputerError, InputFile
from worker.computer.inputs import chunks_of, size_of
from worker.computer.names import inside_path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST = 64
_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


# -- in


def put_files(work: Path, files: Sequence[InputFile], *, owner: int | None) -> None:
    """Writes each beside its place and renames it there, so a job never sees half a file."""
    with _opened(str(work), None) as root:
        for file in files:
            *parents, name = inside_path(file.path).split("/")
            with ExitStack() as stack:
                folder = root
                for part in parents:
                    folder = stack.enter_context(_made(part, folder, owner))
                _write(file, name, folder, owner)


@contextmanager
def _opened(name: str, parent: int | None) -> Iterator[int]:
    fd = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _made(name: str, parent: int, owner: int | None) -> Iterator[int]:
    with suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=parent)
        if owner is not None:
            os.chown(name, owner, owner, dir_fd=parent, follow_symlinks=False)
    try:
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
    except NotADirectoryError as error:
        raise Invalid(f"{name!r} is in the way", field="path", reason="not a directory") from error
    try:
        yield fd
    finally:
        os.close(fd)


def _write(file: InputFile, name: str, folder: int, owner: int | None) -> None:
    part = f".put-{secrets.token_hex(8)}"
    fd = os.open(part, _NEW, 0o600, dir_fd=folder)
    try:
        with os.fdopen(fd, "wb") as target:
            for chunk in chunks_of(file, size_of(file)):
                target.write(chunk)
            if owner is not None:
                os.fchown(fd, owner, owner)
            os.fchmod(fd, file.mode & 0o777)
        os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(part, dir_fd=folder)
        raise


# -- out


def harvest(work: Path, taken: Harvest) -> None:
    with _opened(str(work), None) as root:
        with suppress(FileNotFoundError):
            _harvest_file(RESULT, root, RESULT, taken, result=True)
        try:
            with _opened(ARTIFACTS, root) as artifacts:
                _harvest_folder(artifacts, "", taken, 0)
        except FileNotFoundError:
            return
        except OSError as error:
            taken.refuse(ARTIFACTS, f"it is not a directory ({error.strerror})")


def _harvest_folder(folder: int, prefix: str, taken: Harvest, depth: int) -> None:
    if depth > _DEEPEST:
        taken.refuse(prefix, f"it lies more than {_DEEPEST} directories deep")
        return
    for name in sorted(os.listdir(folder)):
        try:
            _harvest_entry(name, folder, f"{prefix}{name}", taken, depth)
        except FileNotFoundError:
            # It went away while we looked; what is there counts.
            continue
        except OSError as error:
            taken.refuse(f"{prefix}{name}", f"it cannot be read ({error.strerror})")


def _harvest_entry(name: str, folder: int, full: str, taken: Harvest, depth: int) -> None:
    mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    if stat.S_ISDIR(mode):
        with _opened(name, folder) as inner:
            _harvest_folder(inner, f"{full}/", taken, depth + 1)
        return
    _harvest_file(name, folder, full, taken, result=False)


def _harvest_file(name: str, folder: int, full: str, taken: Harvest, *, result: bool) -> None:
    before = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISREG(before.st_mode):
        taken.refuse(full, f"it is {_kind(before.st_mode)}")
        return
    fd = os.open(name, _READ, dir_fd=folder)
    with os.fdopen(fd, "rb", buffering=0) as file:
        # What was opened decides, not what was looked at before: the name may have changed hands between.
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            taken.refuse(full, f"it is {_kind(status.st_mode)}")
        elif status.st_nlink > 1:
            taken.refuse(full, "it is a hard link")
        elif result:
            taken.take_result(full, status.st_size, lambda size: file.read(size) or b"")
        elif taken.wants(full, status.st_size):
            taken.take(full, status.st_size, lambda size: file.read(size) or b"")


def _kind(mode: int) -> str:
    return next((words for test, words in _KINDS if test(mode)), "not a regular file")


# -- away


def remove(folder: Path) -> None:
    """Whatever the job made of it: any depth, any mode. `rm` copes with trees that Python's own walk would not."""
    if _rm(folder):
        return
    subprocess.run(["chmod", "-R", "u+rwX", "--", str(folder)], stderr=subprocess.DEVNULL, check=False)
    if not _rm(folder):
        raise ComputerError(f"the directory of a computer could not be removed: {folder.name}")


def _rm(folder: Path) -> bool:
    subprocess.run(["rm", "-rf", "--one-file-system", "--", str(folder)], stderr=subprocess.DEVNULL, check=False)
    return not folder.exists()

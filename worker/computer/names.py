"""Which ids, paths and file names are accepted: pure rules, applied before anything is touched."""

from __future__ import annotations

import re

from shared.errors import Invalid

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_MAX_PATH_BYTES = 1024
_MAX_PART_BYTES = 255


def check_id(computer_id: str) -> str:
    """The id becomes a container name and a directory name, so it may hold nothing that either reads specially."""
    if not _ID.fullmatch(computer_id):
        raise Invalid("a computer id is 1-100 letters, digits, '.', '_' or '-'", field="id", reason="bad characters")
    return computer_id


def inside_path(path: str) -> str:
    """`path` as a normal relative path below the work directory, or Invalid."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    reason = _path_fault(path, parts)
    if reason:
        raise Invalid(f"cannot place a file at {path[:200]!r}: {reason}", field="path", reason=reason)
    return "/".join(parts)


def _path_fault(path: str, parts: list[str]) -> str | None:
    if path.startswith("/"):
        return "it must be relative to the work directory"
    if not parts:
        return "it names no file"
    if ".." in parts:
        return "it may not contain '..'"
    if "\0" in path:
        return "it contains a NUL"
    if len(path.encode("utf-8", "surrogateescape")) > _MAX_PATH_BYTES:
        return f"it is longer than {_MAX_PATH_BYTES} bytes"
    if any(len(part.encode("utf-8", "surrogateescape")) > _MAX_PART_BYTES for part in parts):
        return f"a part of it is longer than {_MAX_PART_BYTES} bytes"
    return None


def artifact_name_fault(name: str) -> str | None:
    """Why a file found in a computer cannot be taken under this name, or None when it can."""
    parts = name.split("/")
    if not name or "" in parts or "." in parts or ".." in parts:
        return "its name is not a plain relative path"
    try:
        encoded = name.encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if any(_is_control(char) for char in name):
        return "its name has control characters"
    if len(encoded) > _MAX_PATH_BYTES:
        return f"its name is longer than {_MAX_PATH_BYTES} bytes"
    return None


def printable(name: str) -> str:
    """A name from inside a computer in a form that is safe in a message."""
    shown = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_control(char) else char for char in shown)[:200]


def _is_control(char: str) -> bool:
    return ord(char) < 32 or ord(char) == 127

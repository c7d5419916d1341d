"""Names and media types of files that strangers hand us, made harmless."""

from __future__ import annotations

import mimetypes
import re
import unicodedata
from urllib.parse import quote

NAMELESS = "file"
BINARY = "application/octet-stream"
LONGEST_BYTES = 255
"""What file systems allow for one name; also the width of the column."""
DEEPEST = 8
"""How many folders the name of an artifact may go down."""

_MEDIA_TYPE = re.compile(r"^[a-z0-9][a-z0-9!#$&^_.+-]{0,100}/[a-z0-9][a-z0-9!#$&^_.+-]{0,100}$")
_ACTIVE = re.compile(r"html|[/+]xml$|svg|script|java|wasm|/css$|flash|^multipart/|^message/")
"""Media types that a browser would run, or look inside for something to run."""


def safe_name(given: str | None) -> str:
    """The last part of a path as a name that is safe in a folder, a header and a shell's listing."""
    return _safe_part(re.split(r"[/\\]", given or "")[-1])


def safe_relative_name(given: str | None) -> str:
    """Like `safe_name`, but folders inside stay: `plots/a.png`. Nothing leads out of where it is put."""
    parts = [part for part in re.split(r"[/\\]", given or "") if part not in ("", ".", "..")][-DEEPEST:]
    safe = [_safe_part(part) for part in parts] or [NAMELESS]
    while len(safe) > 1 and len("/".join(safe).encode()) > LONGEST_BYTES:
        safe.pop(0)
    return "/".join(safe)


def safe_media_type(given: str | None, filename: str) -> str:
    """A media type that no browser acts upon; what could be active is plain bytes."""
    told = (given or "").partition(";")[0].strip().lower()
    if told in ("", BINARY):
        told = mimetypes.guess_type(filename, strict=False)[0] or BINARY
    return told if _MEDIA_TYPE.match(told) and not _ACTIVE.search(told) else BINARY


def attachment(filename: str) -> str:
    """A Content-Disposition that makes every client save, under this name, whatever its letters (RFC 6266)."""
    name = safe_name(filename)
    plain = re.sub(r'[^ -~]|["\\%;]', "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _safe_part(part: str) -> str:
    # Control and format characters (line breaks, right-to-left marks) can make a name read as another one. They go
    # first: what they kept apart may be one letter without them.
    shown = "".join(each for each in part if unicodedata.category(each)[0] != "C")
    return _trimmed(_shortened(_trimmed(unicodedata.normalize("NFC", shown)))) or NAMELESS


def _trimmed(name: str) -> str:
    """Without what some file systems drop, or nobody sees, at the ends of a name."""
    return re.sub(r"^\s+|[\s.]+$", "", name)


def _shortened(name: str) -> str:
    if len(name.encode()) <= LONGEST_BYTES:
        return name
    stem, dot, suffix = name.rpartition(".")
    tail = f"{dot}{suffix}" if stem and len(suffix.encode()) <= 16 else ""
    head = name.removesuffix(tail).encode()[: LONGEST_BYTES - len(tail.encode())]
    return head.decode(errors="ignore") + tail

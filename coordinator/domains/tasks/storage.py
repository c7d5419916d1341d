"""Where the bytes of files lie: a local directory, or a bucket of anything that speaks S3."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from coordinator.config import Settings
from coordinator.domains.tasks.filenames import attachment
from shared.errors import NotFound, Unavailable
from shared.settings import SettingsError

CHUNK_BYTES = 1024 * 1024
PART_BYTES = 8 * 1024 * 1024
_KEY = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")


class ContentMissing(NotFound):
    """The storage has nothing under this key."""


@dataclass(frozen=True, slots=True)
class Label:
    """How the content is to be called and typed when the storage itself hands it out."""

    filename: str
    content_type: str


class Storage(Protocol):
    """Bytes by key. A key is letters, digits, `-` and `_`, in folders by `/`; it is written once."""

    def put(self, key: str, chunks: Iterable[bytes], label: Label) -> None:
        """Store everything `chunks` yields. When it raises, nothing is stored and its error goes on to the caller."""

    def open(self, key: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to (not with) `end`, in pieces; ContentMissing comes before the first."""

    def delete(self, key: str) -> None:
        """Remove it. Removing what is not there is fine."""

    def signed_url(self, key: str, *, seconds: int) -> str | None:
        """An address that hands out the content to anybody for so long; None when this storage cannot."""

    def check(self) -> None:
        """Raise Unavailable unless the storage takes and gives bytes now."""


def make_storage(settings: Settings) -> Storage:
    """The storage that `storage_url` names: `file:///path` or `s3://bucket/prefix?endpoint=…&virtual_hosted=true`."""
    url = urlsplit(settings.storage_url)
    if url.scheme == "file" and url.netloc in ("", "localhost") and url.path:
        return LocalStorage(Path(unquote(url.path)))
    if url.scheme == "s3" and url.netloc:
        return ObjectStorage(_s3_store(settings))
    raise SettingsError(
        f"LONGSHORE_STORAGE_URL: {settings.storage_url!r} is neither file:///PATH nor s3://BUCKET/PREFIX"
    )


class LocalStorage:
    """A directory. A file appears under its key only when all of it is on the disk."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, key: str, chunks: Iterable[bytes], label: Label) -> None:
        path = self._path(key)
        with _failures_named():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=".part-")
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as out:
                for chunk in chunks:
                    with _failures_named():
                        out.write(chunk)
                with _failures_named():
                    out.flush()
                    os.fsync(out.fileno())
            with _failures_named():
                part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def open(self, key: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        with _failures_named(), _absence_named():
            source = self._path(key).open("rb")
        source.seek(start)
        return self._pieces(source, None if end is None else end - start)

    def delete(self, key: str) -> None:
        with _failures_named():
            self._path(key).unlink(missing_ok=True)

    def signed_url(self, key: str, *, seconds: int) -> str | None:
        return None

    def check(self) -> None:
        with _failures_named():
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.TemporaryFile(dir=self.root) as probe:
                probe.write(b"x")
                probe.flush()

    def _path(self, key: str) -> Path:
        return self.root / _checked(key)

    def _pieces(self, source: Any, left: int | None) -> Iterator[bytes]:
        with source:
            while left is None or left > 0:
                piece = source.read(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left))
                if not piece:
                    return
                if left is not None:
                    left -= len(piece)
                yield piece


class ObjectStorage:
    """A bucket. What is handed out by the storage itself carries our disposition and media type."""

    def __init__(self, store: S3Store) -> None:
        self._store = store

    def put(self, key: str, chunks: Iterable[bytes], label: Label) -> None:
        attributes = {"Content-Type": label.content_type, "Content-Disposition": attachment(label.filename)}
        with _failures_named():
            obstore.put(
                self._store,
                _checked(key),
                iter(chunks),
                attributes=attributes,
                chunk_size=PART_BYTES,
                max_concurrency=2,
            )

    def open(self, key: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        if end is not None and end <= start:
            return iter(())
        options: Any = {}
        if end is not None:
            options = {"range": (start, end)}
        elif start:
            options = {"range": {"offset": start}}
        with _failures_named(), _absence_named():
            found = obstore.get(self._store, _checked(key), options=options)
        return (bytes(piece) for piece in found.stream(min_chunk_size=CHUNK_BYTES))

    def delete(self, key: str) -> None:
        with _failures_named(), suppress(FileNotFoundError):
            obstore.delete(self._store, _checked(key))

    def signed_url(self, key: str, *, seconds: int) -> str | None:
        with _failures_named():
            return str(obstore.sign(self._store, "GET", _checked(key), timedelta(seconds=seconds)))

    def check(self) -> None:
        with _failures_named():
            for _ in obstore.list(self._store, prefix="0", chunk_size=1):
                break


def _s3_store(settings: Settings) -> S3Store:
    url = urlsplit(settings.storage_url)
    asked = {name: values[-1] for name, values in parse_qs(url.query).items()}
    endpoint = asked.get("endpoint")
    config: Any = {
        "region": asked.get("region", settings.storage_region),
        "virtual_hosted_style_request": asked.get("virtual_hosted") == "true",
    }
    if endpoint:
        config["endpoint"] = endpoint
    if settings.storage_access_key.get_secret_value():
        config["access_key_id"] = settings.storage_access_key.get_secret_value()
        config["secret_access_key"] = settings.storage_secret_key.get_secret_value()
    return S3Store(
        url.netloc,
        prefix=url.path.strip("/") or None,
        config=config,
        client_options={"allow_http": bool(endpoint) and str(endpoint).startswith("http://"), "timeout": "30s"},
        retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=15)},
    )


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is not a storage key")
    return key


@contextmanager
def _absence_named() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ContentMissing("the content is no longer in the storage") from None


@contextmanager
def _failures_named() -> Iterator[None]:
    """What the storage suffers, as the one error that callers know."""
    try:
        yield
    except (OSError, BaseError) as error:
        raise Unavailable("the file storage does not answer", reason=type(error).__name__) from error

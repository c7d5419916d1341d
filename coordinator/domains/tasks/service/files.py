"""Files: taken in, kept, handed out, deleted."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import IO, Final

import structlog

from coordinator.domains.identity.spaces import register_content
from coordinator.domains.queue import service as queue
from coordinator.domains.queue.service import AttemptFacts
from coordinator.domains.tasks.filenames import safe_media_type, safe_name, safe_relative_name
from coordinator.domains.tasks.storage import CHUNK_BYTES, Label, Storage
from coordinator.domains.tasks.store import files as store
from coordinator.domains.tasks.store.files import StoredFile
from coordinator.resources import Resources
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest
from shared.errors import Conflict, Forbidden, Invalid, LongshoreError, NotFound, PayloadTooLarge
from shared.ids import new_id

KEY_PURPOSE: Final = "file-url"
log = structlog.get_logger(__name__)

register_content("files", store.count_in_space)


@dataclass(frozen=True, slots=True)
class Saved:
    """Content that lies in the storage and that no row speaks of yet."""

    id: str
    key: str
    filename: str
    content_type: str
    size: int
    sha256: str


class Measured:
    """A stream in pieces that counts and hashes itself, and stops at a limit."""

    def __init__(self, source: IO[bytes], limit: int) -> None:
        self._source = source
        self._limit = limit
        self._digest = hashlib.sha256()
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        while piece := self._source.read(CHUNK_BYTES):
            self.size += len(piece)
            if self.size > self._limit:
                raise PayloadTooLarge(f"a file may have at most {self._limit} bytes", limit=self._limit)
            self._digest.update(piece)
            yield piece

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


def save(resources: Resources, source: IO[bytes], *, filename: str, content_type: str | None) -> Saved:
    """Bring the content of an upload into the storage; nothing of it is ever wholly in memory."""
    file_id = new_id()
    # The random end of the id spreads the files over folders evenly.
    key = f"{file_id[-2:]}/{file_id}"
    media_type = safe_media_type(content_type, filename)
    measured = Measured(source, resources.settings.max_file_bytes)
    _storage(resources).put(key, measured, Label(filename, media_type))
    return Saved(file_id, key, filename, media_type, measured.size, measured.sha256)


def discard(resources: Resources, saved: Saved) -> None:
    """Take content back out of the storage whose row could not be written."""
    try:
        _storage(resources).delete(saved.key)
    except LongshoreError as error:
        log.warning("file.orphaned", key=saved.key, reason=error.message)


def upload_name(given: str | None) -> str:
    """What an upload is called from now on."""
    return safe_name(given)


def record(tx: Transaction, saved: Saved, *, space: str, by: str, job_id: str | None, kind: str | None) -> StoredFile:
    """Let the saved content be a file of a space, perhaps one that belongs to a task."""
    if job_id is not None:
        job = queue.views(tx, [job_id]).get(job_id)
        if job is None or job.space != space or job.kind != kind:
            raise NotFound(f"there is no such {kind}", id=job_id)
    file = _file(tx, saved, space=space, by=by, job_id=job_id, kind=kind, attempt_id=None)
    store.put(tx, file)
    return file


def get(tx: Transaction, space: str, file_id: str) -> StoredFile:
    return _found(store.find(tx, file_id), space, file_id)


def get_signed(tx: Transaction, file_id: str) -> StoredFile:
    """A file of any space, for somebody whose address we signed."""
    file = store.find(tx, file_id)
    if file is None:
        raise NotFound("there is no such file", id=file_id)
    return file


def list_files(tx: Transaction, space: str, page: PageRequest, *, job_id: str | None) -> Page[StoredFile]:
    """Files, newest first; with `job_id` those that belong to that task or execution."""
    return store.list_page(tx, space, page, job_id=job_id)


def content(resources: Resources, file: StoredFile, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """The file's bytes in pieces."""
    return _storage(resources).open(file.storage_key, start=start, end=end)


def delete(tx: Transaction, space: str, file_id: str) -> StoredFile:
    """Take a file away from everybody, unless unfinished work needs it; its content goes after the commit."""
    file = _found(store.find_to_delete(tx, space, file_id), space, file_id)
    if users := queue.live_jobs_using(tx, file_id):
        raise Conflict(f"{users} unfinished jobs have this file as an input", unfinished=users)
    store.mark_deleted(tx, file_id)
    return file


def purge(resources: Resources, limit: int = 100) -> int:
    """Remove the content of deleted files from the storage, then their rows; how many. Repeating it is harmless."""
    with resources.database.read() as tx:
        gone = store.find_deleted(tx, limit)
    for _, key in gone:
        _storage(resources).delete(key)
    if gone:
        with resources.database.write() as tx:
            store.forget(tx, [file_id for file_id, _ in gone])
    return len(gone)


def storage_url(resources: Resources, file: StoredFile) -> str | None:
    """An address at the storage itself, if it can make one."""
    return _storage(resources).signed_url(file.storage_key, seconds=resources.settings.file_url_seconds)


def signed_query(resources: Resources, file: StoredFile) -> dict[str, str]:
    """The query that lets anybody download this file from us for a while."""
    expires = int((resources.clock.now() + timedelta(seconds=resources.settings.file_url_seconds)).timestamp())
    return {"expires": str(expires), "signature": _signature(resources, file.id, expires)}


def require_signature(resources: Resources, file_id: str, *, expires: int, signature: str) -> None:
    """Raise Forbidden unless we signed this address and its time is not over."""
    genuine = hmac.compare_digest(_signature(resources, file_id, expires).encode(), signature.encode())
    if not genuine or expires < resources.clock.now().timestamp():
        raise Forbidden("the address is not valid, or no longer")


def input_of_attempt(tx: Transaction, facts: AttemptFacts, file_id: str) -> StoredFile:
    """A file that the attempt's job has as an input."""
    named = {item["id"] for item in facts.spec.get("input_files", ())}
    if file_id not in named:
        raise NotFound("the job does not have this file as an input", id=file_id)
    return _found(store.find(tx, file_id), facts.space, file_id)


def require_room(tx: Transaction, resources: Resources, facts: AttemptFacts, size: int) -> None:
    """Raise PayloadTooLarge when one more artifact of this size is more than an attempt may bring out."""
    settings = resources.settings
    count, total = store.artifact_totals(tx, facts.job_id, facts.attempt_id)
    if count >= settings.max_artifacts:
        raise PayloadTooLarge(
            f"an attempt may bring out at most {settings.max_artifacts} files", limit=settings.max_artifacts
        )
    if total + size > settings.max_artifacts_bytes:
        raise PayloadTooLarge(
            f"the files of an attempt may have at most {settings.max_artifacts_bytes} bytes together",
            limit=settings.max_artifacts_bytes,
        )


def artifact_name(given: str | None) -> str:
    """What an artifact is called: its path below /work/artifacts, made harmless."""
    return safe_relative_name(given)


def same_artifact(tx: Transaction, facts: AttemptFacts, name: str) -> StoredFile | None:
    """The artifact of this name that the attempt has brought already: a node repeats itself after a lost answer."""
    return store.artifact_named(tx, facts.job_id, facts.attempt_id, name)


def record_artifact(
    tx: Transaction, resources: Resources, facts: AttemptFacts, saved: Saved, *, told_sha256: str | None
) -> StoredFile:
    """Let the saved content be an artifact of the attempt."""
    if told_sha256 is not None and told_sha256 != saved.sha256:
        raise Invalid("sha256: the content arrived damaged", field="sha256", reason="the content arrived damaged")
    require_room(tx, resources, facts, saved.size)
    file = _file(
        tx,
        saved,
        space=facts.space,
        by=None,
        job_id=facts.job_id,
        kind=str(facts.spec.get("kind")),
        attempt_id=facts.attempt_id,
    )
    store.put(tx, file)
    return file


def _file(
    tx: Transaction,
    saved: Saved,
    *,
    space: str,
    by: str | None,
    job_id: str | None,
    kind: str | None,
    attempt_id: str | None,
) -> StoredFile:
    return StoredFile(
        id=saved.id,
        space=space,
        filename=saved.filename,
        content_type=saved.content_type,
        size=saved.size,
        sha256=saved.sha256,
        storage_key=saved.key,
        job_id=job_id,
        job_kind=kind if job_id is not None else None,
        attempt_id=attempt_id,
        created_by=by,
        created_at=tx.now,
    )


def _found(file: StoredFile | None, space: str, file_id: str) -> StoredFile:
    if file is None or file.space != space:
        raise NotFound("there is no such file", id=file_id)
    return file


def _signature(resources: Resources, file_id: str, expires: int) -> str:
    return hmac.new(resources.key(KEY_PURPOSE), f"{file_id}\n{expires}".encode(), hashlib.sha256).hexdigest()


def _storage(resources: Resources) -> Storage:
    storage: Storage = resources.storage
    return storage

"""Queries of files."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update

from coordinator.domains.tasks.models import files
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest, fetch_page


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file whose content lies in the storage under `storage_key`."""

    id: str
    space: str
    filename: str
    content_type: str
    size: int
    sha256: str
    storage_key: str
    job_id: str | None
    job_kind: str | None
    attempt_id: str | None
    created_by: str | None
    created_at: datetime


FIELDS = tuple(StoredFile.__dataclass_fields__)
_COLUMNS = tuple(files.c[name] for name in FIELDS)
_THERE = files.c.deleted_at.is_(None)


def _file_of(row: Row[Any]) -> StoredFile:
    return StoredFile(**dict(zip(FIELDS, row, strict=True)))


def put(tx: Transaction, file: StoredFile) -> None:
    tx.conn.execute(insert(files).values({name: getattr(file, name) for name in FIELDS}))


def find(tx: Transaction, file_id: str) -> StoredFile | None:
    row = tx.conn.execute(select(*_COLUMNS).where(files.c.id == file_id, _THERE)).one_or_none()
    return None if row is None else _file_of(row)


def find_to_delete(tx: Transaction, space: str, file_id: str) -> StoredFile | None:
    """The file, locked: nobody can name it as an input before this transaction ends."""
    wanted = select(*_COLUMNS).where(files.c.id == file_id, files.c.space == space, _THERE).with_for_update()
    row = tx.conn.execute(wanted).one_or_none()
    return None if row is None else _file_of(row)


def find_to_use(tx: Transaction, space: str, file_ids: Collection[str]) -> dict[str, StoredFile]:
    """Those of the files that are there, kept from deletion until the transaction ends."""
    if not file_ids:
        return {}
    wanted = select(*_COLUMNS).where(files.c.id.in_(sorted(file_ids)), files.c.space == space, _THERE)
    locked = wanted.order_by(files.c.id).with_for_update(read=True, key_share=True)
    return {row.id: _file_of(row) for row in tx.conn.execute(locked)}


def list_page(tx: Transaction, space: str, page: PageRequest, *, job_id: str | None) -> Page[StoredFile]:
    """One page of a space's files, newest first."""
    wanted = select(*_COLUMNS).where(files.c.space == space, _THERE)
    if job_id is not None:
        wanted = wanted.where(files.c.job_id == job_id)
    found = fetch_page(tx, wanted.order_by(files.c.id.desc()), page)
    return Page([_file_of(row) for row in found.items], found.total)


def count_in_space(tx: Transaction, space: str, most: int) -> int:
    """How many files a space has, counted up to `most`."""
    some = select(files.c.id).where(files.c.space == space, _THERE).limit(most)
    return tx.conn.scalar(select(func.count()).select_from(some.subquery())) or 0


def artifacts_of(tx: Transaction, job_ids: Collection[str]) -> dict[str, list[StoredFile]]:
    """What the attempts of these jobs brought out, oldest first."""
    if not job_ids:
        return {}
    wanted = select(*_COLUMNS).where(files.c.job_id.in_(job_ids), files.c.attempt_id.is_not(None), _THERE)
    found: dict[str, list[StoredFile]] = {}
    for row in tx.conn.execute(wanted.order_by(files.c.job_id, files.c.id)):
        found.setdefault(row.job_id, []).append(_file_of(row))
    return found


def artifact_named(tx: Transaction, job_id: str, attempt_id: str, filename: str) -> StoredFile | None:
    where = (files.c.job_id == job_id, files.c.attempt_id == attempt_id, files.c.filename == filename, _THERE)
    row = tx.conn.execute(select(*_COLUMNS).where(*where)).one_or_none()
    return None if row is None else _file_of(row)


def artifact_totals(tx: Transaction, job_id: str, attempt_id: str) -> tuple[int, int]:
    """How many artifacts an attempt has brought so far, and their bytes together."""
    where = (files.c.job_id == job_id, files.c.attempt_id == attempt_id, _THERE)
    row = tx.conn.execute(select(func.count(), func.coalesce(func.sum(files.c.size), 0)).where(*where)).one()
    return int(row[0]), int(row[1])


def mark_deleted(tx: Transaction, file_id: str) -> None:
    tx.conn.execute(update(files).where(files.c.id == file_id).values(deleted_at=tx.now))


def find_deleted(tx: Transaction, limit: int) -> Sequence[tuple[str, str]]:
    """Ids and storage keys of files whose content may still lie in the storage."""
    wanted = select(files.c.id, files.c.storage_key).where(files.c.deleted_at.is_not(None)).order_by(files.c.id)
    return [(row.id, row.storage_key) for row in tx.conn.execute(wanted.limit(limit))]


def forget(tx: Transaction, file_ids: Collection[str]) -> None:
    tx.conn.execute(delete(files).where(files.c.id.in_(file_ids), files.c.deleted_at.is_not(None)))

"""The one MetaData all tables hang on, and the column types that SQLite and PostgreSQL share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, Column, DateTime, Dialect, Integer, MetaData, String, Table, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UTCDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime on every database; SQLite alone would hand back a naive one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("refusing to store a datetime without a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


Document = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
"""A JSON value; SQL NULL for None."""

# Ids are compared byte by byte: the C collation makes that true and fast on PostgreSQL whatever its locale is.
Id = String(36).with_variant(String(36, collation="C"), "postgresql")
Name = String(255)


def id_column() -> Column[str]:
    return Column("id", Id, primary_key=True)


def version_column() -> Column[int]:
    """Raised by every guarded move; also the ETag of the resource."""
    return Column("version", Integer, nullable=False, default=1, server_default="1")


def time_column(name: str, *, nullable: bool = False) -> Column[datetime]:
    return Column(name, UTCDateTime, nullable=nullable)


_SEALED = "sealed"


@dataclass(frozen=True, slots=True)
class SealedColumn:
    """A column whose texts the vault sealed: what for, for whom (the primary key), and by which data key."""

    purpose: str
    table: Table
    text: Column[str]
    subject: Column[str]
    key_id: Column[str]


def sealed_column(name: str, *, purpose: str, subject: str = "id", nullable: bool = False) -> Column[str]:
    """A text that the vault sealed for `purpose` and the row's `subject`; beside it stands a `key_id`.

    Whoever rotates keys finds these columns by themselves: a domain declares its own and nothing else.
    """
    told = f"sealed for {purpose}"
    return Column(name, Text, nullable=nullable, doc=told, info={_SEALED: (purpose, subject)})


def sealed_columns() -> Iterator[SealedColumn]:
    """Every sealed column of the models that were imported, in the order of tables."""
    for table in metadata.sorted_tables:
        for column in table.columns:
            if _SEALED in column.info:
                purpose, subject = column.info[_SEALED]
                yield SealedColumn(purpose, table, column, table.c[subject], table.c["key_id"])


__all__ = [
    "Document",
    "Id",
    "Name",
    "SealedColumn",
    "Text",
    "UTCDateTime",
    "id_column",
    "metadata",
    "sealed_column",
    "sealed_columns",
    "time_column",
    "version_column",
]

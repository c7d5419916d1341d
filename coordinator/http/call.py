"""What a handler is given, and what it may give back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from coordinator.domains.identity import spaces
from coordinator.http.actor import Actor
from coordinator.http.witness import Witness
from coordinator.resources import Resources
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest
from shared.errors import PreconditionFailed

__all__ = ["Call", "ListOf", "Page", "PageRequest", "Reply"]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with more to say than its value: a status, headers, fields that a replay must not show again."""

    value: Any = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    secret_fields: tuple[str, ...] = ()


class ListOf:
    """A reply that is one page of `view`: an envelope under `key` in v1, a bare array in v0."""

    __slots__ = ("key", "usual", "view")

    def __init__(self, key: str, view: Any, *, usual: int | None = None) -> None:
        self.key = key
        self.view = view
        self.usual = usual
        """The `limit` of a page when none is asked for, where it is another than the version's."""


@dataclass(slots=True)
class Call:
    """One authenticated, authorised and validated request."""

    _tx: Transaction | None
    actor: Actor
    body: dict[str, Any]
    query: dict[str, Any]
    page: PageRequest
    resources: Resources
    request_id: str
    space: str
    version: str
    witness: Witness
    makes_work: bool = False
    if_match: tuple[str, ...] | None = None
    version_was_checked: bool = False

    @property
    def tx(self) -> Transaction:
        """The request's transaction."""
        if self._tx is None:
            raise RuntimeError("this endpoint declares transaction='none': use call.read() or call.write()")
        return self._tx

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A short transaction of its own, for handlers that declare transaction='none' because they do slow things."""
        with self.resources.database.read() as tx:
            yield tx

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """Like `read`, but may write; commits when the block ends."""
        with self.resources.database.write() as tx:
            spaces.hold(tx, self.space, for_new_work=self.makes_work)
            yield tx

    def introduce(self, actor: Actor, *, why: str | None = None) -> None:
        """Say for whom an open endpoint acts; if it is refused, the trail tells of them, and `why`."""
        self.actor = self.witness.actor = actor
        self.witness.why = why

    def audit(
        self,
        action: str,
        *,
        resource_type: str | None = None,
        resource_id: str | None = None,
        before: Any = None,
        after: Any = None,
        message: str | None = None,
        tx: Transaction | None = None,
    ) -> None:
        """Tell the audit trail of this act, in its own transaction: `tx` for handlers that open theirs themselves.

        `action` is one of the catalogue in identity/audit_actions.py. Secrets are masked by the names of their fields.
        """
        self.witness.record(
            tx or self.tx,
            action,
            resource_type=resource_type,
            resource_id=resource_id,
            before=before,
            after=after,
            message=message,
        )

    def require_version(self, current: int) -> None:
        """Raise PreconditionFailed when If-Match names another version than `current`."""
        self.version_was_checked = True
        if self.if_match is not None and "*" not in self.if_match and str(current) not in self.if_match:
            raise PreconditionFailed("the resource has changed since you read it", current=str(current))

"""The endpoint that shows the audit trail, and its gauge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from coordinator.domains.identity import audit
from coordinator.domains.identity.audit import Sought
from coordinator.domains.identity.audit_schemas import RowView, TrailQuery
from coordinator.http.metrics import GaugeSample, register_gauges
from coordinator.http.slice import Call, ListOf, Page, Slice
from coordinator.store.database import Transaction

trail = Slice("audit", "Who did what to what, and from where")
_AS_THEY_ARE = (
    "id",
    "sequence",
    "hash",
    "action",
    "outcome",
    "actor_id",
    "actor_name",
    "credential_id",
    "address",
    "request_id",
    "space",
    "resource_type",
    "resource_id",
    "message",
    "unrecorded",
)


def _gauges(tx: Transaction) -> Iterator[GaugeSample]:
    told = "Rows of the audit trail that wait for their place in the chain."
    yield GaugeSample("longshore_audit_unsealed", told, audit.count_unsealed(tx))


register_gauges(_gauges)


@trail.get("/admin/audit", may="audit:read", query=TrailQuery, reply=ListOf("entries", RowView, usual=100))
def list_audit_entries(call: Call) -> Page[dict[str, Any]]:
    """List what was done, newest first.

    Logins and refusals, first uses of keys, and every act that only admins may do, with the state before and after
    where there is one. Secrets are masked.
    """
    names = ("actor", "action", "resource_type", "resource_id", "outcome", "since", "until")
    page = audit.list_rows(call.tx, Sought(**{name: call.query.get(name) for name in names}), call.page)
    return Page([_view(row) for row in page.items], page.total)


def _view(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _AS_THEY_ARE} | {
        "created_at": row.at,
        "actor_type": row.actor_kind,
        "details": {"before": _loaded(row.before), "after": _loaded(row.after)},
    }


def _loaded(text: str | None) -> Any:
    return None if text is None else orjson.loads(text)

"""Sessions: what a login opens, how long it may be renewed, and how it ends."""

from __future__ import annotations

from datetime import datetime, timedelta

from coordinator.domains.identity import audit, security, session_store, store
from coordinator.domains.identity.audit import Who
from coordinator.domains.identity.security import SessionPolicy
from coordinator.domains.identity.session_store import SessionRow
from coordinator.domains.identity.store import LoginSession, Opening, Principal
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest
from shared.ids import new_id

__all__ = [
    "LoginSession",
    "Opening",
    "SessionRow",
    "end",
    "end_all_but",
    "find",
    "open_session",
    "page",
    "purge",
    "renew",
]

PURGE_BATCH = 1000
GREATEST_USER_AGENT = 512

find = session_store.find


def open_session(
    tx: Transaction,
    principal: Principal,
    *,
    seconds: int,
    refreshable: bool,
    kind: str = "v1",
    address: str | None = None,
    user_agent: str | None = None,
) -> LoginSession:
    """Begin a session; all tokens of this login carry its id, and none of them is good beyond its `expires_at`."""
    policy = security.current(tx).session
    ends_at = tx.now + timedelta(hours=policy.max_duration_hours)
    expires_at = _expiry(tx.now, seconds, policy, ends_at=ends_at, refreshable=refreshable)
    if policy.max_concurrent_sessions:
        _make_room(tx, principal, policy.max_concurrent_sessions - 1)
    session = LoginSession(new_id(), principal.id, new_id() if refreshable else None, expires_at, ends_at)
    agent = user_agent[:GREATEST_USER_AGENT] if user_agent else None
    store.add_session(tx, session, Opening(expires_at, kind=kind, address=address, user_agent=agent, ends_at=ends_at))
    return session


def _expiry(now: datetime, seconds: int, policy: SessionPolicy, *, ends_at: datetime, refreshable: bool) -> datetime:
    """When the longest-lived token that is minted now ends. Only what is renewed can be seen to be idle."""
    ends = [now + timedelta(seconds=seconds), ends_at]
    if refreshable:
        ends.append(now + timedelta(minutes=policy.idle_timeout_minutes))
    return min(ends)


def _make_room(tx: Transaction, principal: Principal, keep: int) -> None:
    # Two logins at once would each see room for one more.
    store.lock(tx, principal.id)
    surplus = session_store.open_ids(tx, principal.id)
    for ended in session_store.revoke(tx, surplus[: len(surplus) - keep] if len(surplus) > keep else []):
        told = "there were as many sessions as are allowed, and this was the oldest"
        audit.record(
            tx, Who(principal.kind, principal.id, principal.name), "session.ended", resource_id=ended, message=told
        )


def renew(tx: Transaction, shown: LoginSession, *, seconds: int, by: Who) -> LoginSession | None:
    """The session with its next refresh token, if `shown` holds the current one and the policy lets it go on.

    An older one means that two parties hold tokens of one login, and one of them stole theirs: the session ends,
    for both. The caller must let this transaction commit.
    """
    found = session_store.find(tx, shown.id)
    if found is None or found.principal_id != shown.principal_id:
        return None
    policy = security.current(tx).session
    over = why_over(found, policy, tx.now)
    if over is None:
        # A duration that was shortened since counts, one that was lengthened does not bring back what was promised.
        ends_at = min(found.ends_at or _latest(found, policy), _latest(found, policy))
        expires_at = _expiry(tx.now, seconds, policy, ends_at=ends_at, refreshable=True)
        renewed = LoginSession(shown.id, shown.principal_id, new_id(), expires_at, ends_at)
        if store.exchange_refresh(tx, shown, renewed.refresh_id or "", expires_at):
            return renewed
        over = "one of its refresh tokens was shown a second time"
    if store.revoke_session(tx, shown.id):
        audit.record(tx, audit.named(tx, by), "session.ended", resource_id=shown.id, message=over)
    return None


def why_over(session: SessionRow, policy: SessionPolicy, now: datetime) -> str | None:
    """Why a session may not be renewed; None when it may."""
    if now >= _latest(session, policy) or (session.ends_at is not None and now >= session.ends_at):
        return "it had lasted as long as a session may"
    if now >= session.used_at + timedelta(minutes=policy.idle_timeout_minutes):
        return "it was not used for too long"
    return None


def _latest(session: SessionRow, policy: SessionPolicy) -> datetime:
    return session.created_at + timedelta(hours=policy.max_duration_hours)


def end(tx: Transaction, session_id: str) -> bool:
    """End a session with all its tokens; whether it had not ended before."""
    return store.revoke_session(tx, session_id)


def end_all_but(tx: Transaction, principal_id: str, keep: str | None = None) -> list[str]:
    """End all sessions of a principal except `keep`; the ids of those that ended."""
    return session_store.revoke(tx, [each for each in session_store.open_ids(tx, principal_id) if each != keep])


def page(tx: Transaction, principal_id: str | None, request: PageRequest) -> Page[SessionRow]:
    """Sessions that are not over, newest first; of one principal or of all."""
    return session_store.page_of_open(tx, principal_id, request)


def purge(tx: Transaction) -> int:
    """Forget a batch of sessions whose last token has expired; how many."""
    return store.delete_expired_sessions(tx, PURGE_BATCH)

"""Endpoints of service accounts and operators: one table, two views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coordinator.domains.identity import accounts, logins, password_policy, users
from coordinator.domains.identity.accounts_schemas import AccountBody, AccountChanges, AccountPasswordBody, AccountView
from coordinator.domains.identity.store import Principal
from coordinator.http.actor import ActorKind
from coordinator.http.slice import Call, ListOf, Page, Slice
from coordinator.store.database import Transaction
from shared.errors import Conflict, Forbidden, Invalid, Unauthenticated

service_accounts = Slice("service accounts", "Accounts for machines, by id or name; the same as operators")
operators = Slice("operators", "Accounts by name; the same as service accounts")

EXAMPLE = {"user": "deployer", "pass": "a long secret", "description": "Runs the nightly build"}


@dataclass(frozen=True, slots=True)
class _Door:
    """One of the two views: its paths, what it makes, and what its rights are called."""

    path: str
    kind: str
    noun: str
    word: str
    by_id: bool

    def get(self, tx: Transaction, which: str) -> Principal:
        return accounts.get(tx, which, by_id=self.by_id)


def _declare(owner: Slice, door: _Door) -> None:
    one = f"{door.path}/<string:name>"
    names = {verb: f"{verb}_{door.word}" for verb in ("create", "get", "update", "delete")}

    @owner.get(
        door.path,
        may=f"{door.noun}:read",
        reply=ListOf(door.noun, AccountView),
        versions=("v0",),
        name=f"list_{door.noun}",
    )
    def list_accounts(call: Call) -> Page[dict[str, Any]]:
        """List the accounts, newest first; admins of every kind are among them."""
        found = accounts.page(call.tx, call.page)
        return Page([_view(each) for each in found.items], found.total)

    @owner.post(
        door.path,
        may=f"{door.noun}:write",
        body=AccountBody,
        reply=AccountView,
        status=201,
        transaction="none",
        idempotent=True,
        versions=("v0",),
        errors=(409,),
        audit="user.created",
        location=f"{door.path}/{{user}}",
        name=names["create"],
        example=EXAMPLE,
    )
    def create(call: Call) -> dict[str, Any]:
        """Make an account. It holds no role: bind it to one, or it may look after itself and nothing else."""
        return _created(call, door)

    @owner.get(one, may=f"{door.noun}:read", reply=AccountView, versions=("v0",), name=names["get"])
    def get(call: Call, name: str) -> dict[str, Any]:
        """One account."""
        return _view(door.get(call.tx, name))

    @owner.put(
        one,
        may=f"{door.noun}:write",
        body=AccountChanges,
        reply=AccountView,
        versions=("v0",),
        errors=(409,),
        audit="user.changed",
        name=names["update"],
    )
    def update(call: Call, name: str) -> dict[str, Any]:
        """Change an account. Switched off, it is out at once; 409 for the last admin."""
        before = _held(call, call.tx, door, name)
        after = accounts.change(call.tx, before, call.body)
        call.audit("user.changed", resource_id=before.id, before=_told(before), after=_told(after))
        return _view(after)

    @owner.delete(
        one,
        may=f"{door.noun}:write",
        versions=("v0",),
        status=204,
        errors=(409,),
        audit="user.deleted",
        name=names["delete"],
    )
    def delete(call: Call, name: str) -> None:
        """Delete an account with its sessions, keys and roles; 409 for the last admin."""
        gone = _held(call, call.tx, door, name)
        accounts.remove(call.tx, gone)
        call.audit("user.deleted", resource_id=gone.id, before=_told(gone))

    @owner.put(
        f"{one}/password",
        may=("account:write", f"{door.noun}:write"),
        body=AccountPasswordBody,
        transaction="none",
        versions=("v0",),
        status=204,
        errors=(404,),
        audit=("user.password_changed", "user.password_reset"),
        name=f"change_{door.word}_password",
    )
    def change_password(call: Call, name: str) -> None:
        """Set a password, one's own or somebody else's; the account's other sessions end.

        One's own needs `current_password`; for somebody else it may be left out, and must be right if it is sent.
        """
        _change_password(call, door, name)

    _ = (list_accounts, create, get, update, delete, change_password)


def _created(call: Call, door: _Door) -> dict[str, Any]:
    body = call.body
    chosen = accounts.choose_password(call.resources, body["pass"], field="pass", name=body["user"])
    with call.write() as tx:
        made = accounts.add(
            tx,
            kind=door.kind,
            name=body["user"],
            description=body.get("description"),
            chosen=chosen,
            by=call.actor.id,
        )
        call.audit("user.created", resource_id=made.id, after={**_told(made), "role": None}, tx=tx)
    return _view(made)


def _change_password(call: Call, door: _Door, name: str) -> None:
    with call.read() as tx:
        holder = accounts.find(tx, name, by_id=door.by_id)
    is_own = holder is not None and holder.id == call.actor.id
    if is_own and call.actor.kind == ActorKind.API_KEY:
        raise Forbidden("an API key cannot do this: log in", reason="login_needed")
    if not is_own and not call.actor.may(f"{door.noun}:update", name):
        # Whether there is such an account is no affair of theirs.
        raise Forbidden("you may not do this", required=f"{door.noun}:update")
    with call.read() as tx:
        holder = door.get(tx, name)
        if not is_own:
            users.require_standing(tx, call.actor.id, limits=call.actor.limits, over=holder)
    _require_current(call, holder, call.body.get("current_password"), needed=is_own)
    chosen = accounts.choose_password(
        call.resources, call.body["new_password"], field="new_password", name=holder.name, holder=holder
    )
    with call.write() as tx:
        held = accounts.get_to_change(tx, holder.id, by_id=True)
        if held.password_hash != holder.password_hash:
            raise Conflict("the password was changed by somebody else meanwhile")
        keep = call.actor.credential_id if is_own else None
        ended = password_policy.set_password(tx, held, chosen, keep_session=keep)
        action = "user.password_changed" if is_own else "user.password_reset"
        call.audit(action, resource_id=held.id, after={"ended_sessions": len(ended)}, tx=tx)


def _require_current(call: Call, holder: Principal, current: str | None, *, needed: bool) -> None:
    if current is None:
        if needed:
            reason = "is needed to change one's own password"
            raise Invalid(f"current_password: {reason}", field="current_password", reason=reason)
        return
    if not logins.proves_again(call.resources, holder, password=current, address=call.witness.address):
        raise Unauthenticated("the current password is wrong", field="current_password")


def _held(call: Call, tx: Transaction, door: _Door, name: str) -> Principal:
    """The account, locked, if the caller may do to it what it could not do to the caller."""
    found = accounts.get_to_change(tx, name, by_id=door.by_id)
    users.require_standing(tx, call.actor.id, limits=call.actor.limits, over=found)
    return found


def _told(account: Principal) -> dict[str, Any]:
    return {
        "name": account.name,
        "kind": account.kind,
        "description": account.description,
        "active": account.active,
    }


def _view(account: Principal) -> dict[str, Any]:
    return {
        "id": account.id,
        "user": account.name,
        "namespace": None,
        "space": None,
        "scope": None,
        "description": account.description,
        "active": account.active,
        "created_at": account.created_at,
        "updated_at": account.updated_at,
        "last_login_at": account.last_login_at,
    }


_declare(
    service_accounts,
    _Door("/service-accounts", "service_account", "service_accounts", "service_account", by_id=True),
)
_declare(operators, _Door("/operators", "operator", "operators", "operator", by_id=False))

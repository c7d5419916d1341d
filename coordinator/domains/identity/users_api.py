"""Endpoints for admins about users."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from coordinator.domains.identity import entering, password_policy, second_factor, users
from coordinator.domains.identity.password_policy import Chosen
from coordinator.domains.identity.rights import Role
from coordinator.domains.identity.store import Principal
from coordinator.domains.identity.user_schemas import AdminUserView, ChangeUserBody, NewUserBody
from coordinator.http.slice import Call, ListOf, Page, Slice
from coordinator.store.database import Transaction

user_endpoints = Slice("users", "Users, for admins")


@user_endpoints.get("/admin/users", may="users:read", reply=ListOf("users", AdminUserView))
def list_users(call: Call) -> Page[dict[str, Any]]:
    """List users, newest first."""
    page = users.page(call.tx, call.page)
    protected = second_factor.which_are_confirmed(call.tx, [one.id for one in page.items])
    return Page([_view(one, protected) for one in page.items], page.total)


@user_endpoints.get("/admin/users/<id:user_id>", may="users:read", reply=AdminUserView, etag=True, errors=(404,))
def get_user(call: Call, user_id: str) -> dict[str, Any]:
    """Show a user."""
    return _seen(call.tx, users.get(call.tx, user_id))


# No Idempotency-Key: what it compares is stored, and a fast digest of a password must not be. A second one is a 409.
@user_endpoints.post(
    "/admin/users",
    may="users:write",
    body=NewUserBody,
    reply=AdminUserView,
    status=201,
    transaction="none",
    audit="user.created",
    errors=(409,),
)
def create_user(call: Call) -> dict[str, Any]:
    """Make a user who can log in at once."""
    body = call.body
    names = (body.get("name"), body["email"], body.get("full_name"))
    chosen = password_policy.choose(call.resources, body["password"], names=names)
    role = Role(body["role"])
    with call.write() as tx:
        users.require_standing(tx, call.actor.id, limits=call.actor.limits, role=role)
        made = users.add(
            tx,
            name=body.get("name"),
            email=body["email"],
            full_name=body.get("full_name"),
            role=role,
            chosen=chosen,
            by=call.actor.id,
        )
        further: dict[str, Any] = {name: body[name] for name in ("plan", "is_active") if name in body}
        if further:
            made = users.change(tx, made, further)
        call.audit("user.created", resource_id=made.id, after=_facts(made), tx=tx)
        return _seen(tx, made)


@user_endpoints.patch(
    "/admin/users/<id:user_id>",
    may="users:write",
    body=ChangeUserBody,
    reply=AdminUserView,
    etag=True,
    transaction="none",
    audit=("user.changed", "user.password_reset", "user.mfa_disabled", "user.unlocked"),
    errors=(404, 409),
)
def change_user(call: Call, user_id: str) -> dict[str, Any]:
    """Change a user: role, plan, whether they may log in; set a password, forget a second factor, end a lock-out.

    Whoever is switched off, or gets another password, is out of all sessions at once. There is always one admin left.
    """
    chosen = _chosen(call, user_id)
    with call.write() as tx:
        # Counters before principals: in this order a login holds them.
        places = users.unlock(tx, call.resources.settings, users.get(tx, user_id)) if call.body.get("unlock") else None
        found = users.locked(tx, user_id)
        call.require_version(found.version)
        _require_standing(call, tx, found)
        _change(call, tx, found, chosen)
        if places is not None:
            told = {"places_with_failures": places}
            call.audit("user.unlocked", resource_id=found.id, before=told, tx=tx)
        if not call.witness.has_recorded:
            call.audit("user.changed", resource_id=found.id, message="nothing was another than before", tx=tx)
        return _seen(tx, users.afresh(tx, user_id))


@user_endpoints.delete(
    "/admin/users/<id:user_id>", may="users:write", status=204, audit="user.deleted", errors=(404, 409)
)
def delete_user(call: Call, user_id: str) -> None:
    """Delete a user with sessions and keys. What they did stays in the audit trail."""
    found = users.locked(call.tx, user_id)
    users.require_standing(call.tx, call.actor.id, limits=call.actor.limits, over=found)
    users.remove(call.tx, found)
    call.audit("user.deleted", resource_id=found.id, before=_facts(found))


def _chosen(call: Call, user_id: str) -> Chosen | None:
    """The new password, hashed before any transaction that writes begins."""
    if "password" not in call.body:
        return None
    with call.read() as tx:
        found = users.get(tx, user_id)
    return password_policy.choose(call.resources, call.body["password"], names=(found.name, found.email))


def _require_standing(call: Call, tx: Transaction, found: Principal) -> None:
    role = Role(call.body["role"]) if "role" in call.body else None
    users.require_standing(tx, call.actor.id, limits=call.actor.limits, role=role, over=found)


def _change(call: Call, tx: Transaction, found: Principal, chosen: Chosen | None) -> None:
    """Do what the body asks for, and tell each thing by its own name."""
    before, changed = _facts(found), found
    if "role" in call.body and call.body["role"] != found.role:
        changed = users.give_role(tx, changed, Role(call.body["role"]), by=call.actor.id)
    plain = {name: value for name, value in call.body.items() if name in users.PLAIN_FIELDS}
    changed = users.change(tx, changed, plain)
    if (after := _facts(changed)) != before:
        call.audit("user.changed", resource_id=found.id, before=before, after=after, tx=tx)
    if chosen is not None:
        users.reset_password(tx, changed, chosen)
        call.audit("user.password_reset", resource_id=found.id, tx=tx)
    if call.body.get("reset_mfa"):
        had = users.reset_second_factor(tx, found.id)
        call.audit("user.mfa_disabled", resource_id=found.id, before={"mfa_enabled": had}, tx=tx)


def _facts(one: Principal) -> dict[str, Any]:
    """What the trail tells about a user."""
    names = ("name", "email", "full_name", "role", "plan")
    return {name: getattr(one, name) for name in names} | {"is_active": one.active}


def _seen(tx: Transaction, one: Principal) -> dict[str, Any]:
    return _view(one, second_factor.which_are_confirmed(tx, [one.id]))


def _view(one: Principal, protected: Collection[str]) -> dict[str, Any]:
    return entering.person(one) | {
        "plan": one.plan,
        "mfa_enabled": one.id in protected,
        "created_by": one.created_by,
        "password_changed_at": one.password_changed_at,
        "version": one.version,
    }

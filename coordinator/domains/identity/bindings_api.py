"""Endpoints of role bindings."""

from __future__ import annotations

from typing import Any

from coordinator.domains.identity import bindings, service
from coordinator.domains.identity.bindings import Binding, Wanted
from coordinator.domains.identity.bindings_schemas import BindingBody, BindingView
from coordinator.http.slice import Call, ListOf, Page, Slice

binding_endpoints = Slice("role bindings", "Who holds which role, everywhere or in one space")


@binding_endpoints.get(
    "/role-bindings", may="role_bindings:read", reply=ListOf("role_bindings", BindingView), versions=("v0",)
)
def list_role_bindings(call: Call) -> Page[dict[str, Any]]:
    """List who holds what, newest first."""
    found = bindings.list_bindings(call.tx, call.page)
    return Page([_view(binding) for binding in found.items], found.total)


@binding_endpoints.post(
    "/role-bindings",
    may="role_bindings:write",
    body=BindingBody,
    reply=BindingView,
    status=201,
    versions=("v0",),
    errors=(404, 409),
    audit="role_binding.created",
    example={"role_name": "developer", "principal": "ada", "principal_type": "User", "space": "research"},
)
def create_role_binding(call: Call) -> dict[str, Any]:
    """Let somebody hold a role. 403 for more than the caller may do there."""
    body = call.body
    wanted = Wanted(body["role_name"], body["principal"], body.get("principal_type"), body.get("space"))
    made = bindings.add(call.tx, wanted, service.holder(call.tx, call.actor.id, call.actor.limits))
    call.audit("role_binding.created", resource_id=made.id, after=_told(made))
    return _view(made)


@binding_endpoints.get("/role-bindings/<id:binding_id>", may="role_bindings:read", reply=BindingView, versions=("v0",))
def get_role_binding(call: Call, binding_id: str) -> dict[str, Any]:
    """One role binding."""
    return _view(bindings.get(call.tx, binding_id))


@binding_endpoints.delete(
    "/role-bindings/<id:binding_id>",
    may="role_bindings:write",
    versions=("v0",),
    status=204,
    errors=(409,),
    audit="role_binding.deleted",
)
def delete_role_binding(call: Call, binding_id: str) -> None:
    """Take a role away; 403 for more than the caller could give, 409 when it is the last admin's."""
    gone = bindings.remove(call.tx, binding_id, service.holder(call.tx, call.actor.id, call.actor.limits))
    call.audit("role_binding.deleted", resource_id=gone.id, before=_told(gone))


def _told(binding: Binding) -> dict[str, Any]:
    return {"role": binding.role, "principal": binding.principal, "space": binding.space}


def _view(binding: Binding) -> dict[str, Any]:
    return {
        "id": binding.id,
        "role_id": binding.role_id,
        "role_name": binding.role,
        "role_ref": binding.role,
        "principal_id": binding.principal_id,
        "principal": binding.principal,
        "principal_name": binding.principal,
        "subject": binding.principal,
        "principal_type": bindings.type_of(binding.principal_kind),
        "space": binding.space,
        "namespace": binding.space,
        "created_by": binding.created_by,
        "created_at": binding.created_at,
    }

"""Endpoints of roles."""

from __future__ import annotations

from typing import Any

from coordinator.domains.identity import roles, service
from coordinator.domains.identity.roles import RoleRow
from coordinator.domains.identity.roles_schemas import RoleBody, RoleView
from coordinator.http.slice import Call, ListOf, Page, Slice

role_endpoints = Slice("roles", "What may be done, in named sets of rules")

EXAMPLE = {
    "name": "deployer",
    "description": "Runs agents, and reads everything of a space",
    "rules": [
        {"api_groups": ["api"], "resources": ["agents", "tasks"], "verbs": ["get", "list", "create"]},
        {"resources": ["*"], "verbs": ["read", "list"], "scope": "space"},
    ],
}


@role_endpoints.get("/roles", may="roles:read", reply=ListOf("roles", RoleView), versions=("v0",))
def list_roles(call: Call) -> Page[dict[str, Any]]:
    """List the roles, built-in ones included."""
    found = roles.list_roles(call.tx, call.page)
    return Page([_view(role) for role in found.items], found.total)


@role_endpoints.post(
    "/roles",
    may="roles:write",
    body=RoleBody,
    reply=RoleView,
    status=201,
    versions=("v0",),
    errors=(409,),
    audit="role.created",
    example=EXAMPLE,
)
def create_role(call: Call) -> dict[str, Any]:
    """Make a role. It gives nobody anything until somebody is bound to it."""
    made = roles.add(call.tx, call.body, by=call.actor.id)
    call.audit("role.created", resource_id=made.id, after=_told(made))
    return _view(made)


@role_endpoints.get("/roles/<string:role>", may="roles:read", reply=RoleView, versions=("v0",))
def get_role(call: Call, role: str) -> dict[str, Any]:
    """One role, by its id or name."""
    return _view(roles.get(call.tx, role))


@role_endpoints.delete(
    "/roles/<string:role>", may="roles:write", versions=("v0",), status=204, errors=(409,), audit="role.deleted"
)
def delete_role(call: Call, role: str) -> None:
    """Delete a role and take it from all who hold it; 403 for more than the caller may do, 409 for a built-in one."""
    gone, held = roles.remove(call.tx, role, service.holder(call.tx, call.actor.id, call.actor.limits))
    call.audit("role.deleted", resource_id=gone.id, before={**_told(gone), "bindings": held})


def _view(role: RoleRow) -> dict[str, Any]:
    return {
        "id": role.id,
        "name": role.name,
        "description": roles.description_of(role),
        "rules": roles.rules_of(role),
        "built_in": roles.is_built_in(role),
        "created_by": role.created_by,
        "created_at": role.created_at,
    }


def _told(role: RoleRow) -> dict[str, Any]:
    return {"name": role.name, "description": role.description, "rules": role.rules}

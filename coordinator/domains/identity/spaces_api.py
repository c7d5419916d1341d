"""Endpoints of spaces."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from coordinator.domains.identity import service, spaces
from coordinator.domains.identity.spaces import Space
from coordinator.domains.identity.spaces_schemas import SpaceBody, SpaceChanges, SpaceQuery, SpaceView
from coordinator.http.slice import Call, ListOf, Page, Slice

space_endpoints = Slice("spaces", "Tenants: what is in one space does not exist for the others")


@space_endpoints.get(
    "/spaces", may="account:read", query=SpaceQuery, reply=ListOf("spaces", SpaceView), versions=("v0",)
)
def list_spaces(call: Call) -> Page[dict[str, Any]]:
    """List the spaces that the caller may see, newest first."""
    bound = service.roles_of(call.tx, call.actor.id)
    found = spaces.list_spaces(call.tx, bound, call.page, limits=call.actor.limits, active=call.query.get("active"))
    return Page([_view(space) for space in found.items], found.total)


@space_endpoints.post(
    "/spaces",
    may="spaces:write",
    body=SpaceBody,
    reply=SpaceView,
    status=201,
    location="/spaces/{name}",
    versions=("v0",),
    errors=(409,),
    audit="space.created",
    example={"name": "research", "description": "What the research group runs"},
)
def create_space(call: Call) -> dict[str, Any]:
    """Make a space; only who holds the right everywhere can."""
    made = spaces.add(call.tx, call.body, by=call.actor.id)
    call.audit("space.created", resource_id=made.name, after=_told(made))
    return _view(made)


@space_endpoints.get("/spaces/<string:space>", may="spaces:read", reply=SpaceView, versions=("v0",), etag=True)
def get_space(call: Call, space: str) -> dict[str, Any]:
    """One space."""
    return _view(spaces.get(call.tx, space))


@space_endpoints.put(
    "/spaces/<string:space>",
    may="spaces:write",
    body=SpaceChanges,
    reply=SpaceView,
    versions=("v0",),
    etag=True,
    errors=(400,),
    audit="space.changed",
    example={"active": False},
)
def update_space(call: Call, space: str) -> dict[str, Any]:
    """Change a space.

    One that is switched off (`active` false) can be read, and what it accepted before goes on; it takes no new work.
    """
    before = spaces.get_to_change(call.tx, space)
    call.require_version(before.version)
    after = spaces.change(call.tx, before, call.body)
    call.audit("space.changed", resource_id=space, before=_told(before), after=_told(after))
    return _view(after)


@space_endpoints.delete(
    "/spaces/<string:space>",
    may="spaces:write",
    versions=("v0",),
    status=204,
    etag=True,
    errors=(400, 409),
    audit="space.deleted",
)
def delete_space(call: Call, space: str) -> None:
    """Delete an empty space, and the roles that are held in it.

    409 with `details.left` while something is in it; 400 for the default space.
    """
    doomed = spaces.get_to_change(call.tx, space)
    call.require_version(doomed.version)
    held = spaces.remove(call.tx, doomed)
    call.audit("space.deleted", resource_id=space, before={**_told(doomed), "roles_held": held})


def _view(space: Space) -> dict[str, Any]:
    return asdict(space)


def _told(space: Space) -> dict[str, Any]:
    return {"description": space.description, "settings": space.settings, "active": space.active}

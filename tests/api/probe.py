"""A slice for the tests of the machinery: small endpoints, one for each thing that the machinery does."""

from __future__ import annotations

import threading
from typing import Any

from coordinator.domains.identity import service
from coordinator.domains.identity.rights import Role
from coordinator.http.schemas import Body, IdField, View, fields
from coordinator.http.slice import NODE, OPEN, Call, ListOf, Page, Reply, Slice
from shared.errors import Conflict, LimitReached, Unavailable

NUMBERS = tuple({"number": number} for number in range(45, 0, -1))

probe = Slice("probe", "Only in tests")


class Ship(Body):
    name = fields.String(required=True)
    crew = fields.Integer(strict=True)


class ShipView(View):
    id = IdField()
    name = fields.String()
    key = fields.String(metadata={"optional": True})


class NumberView(View):
    number = fields.Integer()


class VersionedView(View):
    id = fields.String()
    version = fields.Integer()


class Gate:
    """Lets a test hold a handler while it looks at something."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.may_leave = threading.Event()
        self.may_leave.set()

    def pass_through(self) -> None:
        self.entered.set()
        assert self.may_leave.wait(30), "the test never let the handler go on"


gate = Gate()


@probe.get("/numbers", may="tasks:read", reply=ListOf("numbers", NumberView), versions=("v0", "v1"))
def list_numbers(call: Call) -> Page[dict[str, int]]:
    """Numbers, greatest first."""
    page = call.page
    return Page(NUMBERS[page.offset : page.offset + page.limit], len(NUMBERS))


@probe.post("/ships", may="tasks:write", body=Ship, reply=ShipView, status=201, versions=("v0", "v1"))
def create_ship(call: Call) -> Reply:
    """Make a ship (a principal in truth, as the identity domain has the only table to write to)."""
    gate.pass_through()
    made = service.add_principal(call.tx, kind="user", name=call.body["name"], role=Role.VIEWER)
    if call.body.get("crew") == 0:
        raise Conflict("a ship without a crew stays in the harbour")
    return Reply({"id": made.id, "name": made.name, "key": "for your eyes only"}, secret_fields=("key",))


@probe.post(
    "/voyages",
    may="tasks:write",
    body=Ship,
    reply=ShipView,
    status=201,
    transaction="none",
    idempotent=True,
    location="/",
)
def create_voyage(call: Call) -> Reply:
    """Make a ship slowly, in a transaction of the handler's own."""
    gate.pass_through()
    if call.body.get("crew") == 0:
        raise Conflict("a ship without a crew stays in the harbour")
    with call.write() as tx:
        made = service.add_principal(tx, kind="user", name=call.body["name"], role=Role.VIEWER)
    return Reply({"id": made.id, "name": made.name, "key": "for your eyes only"}, secret_fields=("key",))


@probe.get("/ships/<id:ship_id>", may="tasks:read", reply=VersionedView, etag=True)
def get_ship(call: Call, ship_id: str) -> dict[str, Any]:
    """A ship in its third version."""
    return {"id": ship_id, "version": 3}


@probe.patch("/ships/<id:ship_id>", may="tasks:write", body=Ship, reply=VersionedView, etag=True, errors=(409,))
def update_ship(call: Call, ship_id: str) -> dict[str, Any]:
    """Change a ship."""
    call.require_version(3)
    return {"id": ship_id, "version": 4}


@probe.get("/ships/newest", may="tasks:read", reply=VersionedView)
def get_newest_ship(_call: Call) -> dict[str, Any]:
    """A static path beside a parameter."""
    return {"id": "newest", "version": 1}


@probe.get("/ships/<string:name>/log", may="tasks:read", returns="text")
def get_log(_call: Call, name: str) -> str:
    """A path keyed by name."""
    return f"log of {name}"


@probe.get("/workers/<id:worker_id>/orders", may=NODE)
def get_orders(call: Call, worker_id: str) -> dict[str, Any]:
    """What a node alone may see."""
    return {"worker_id": worker_id, "actor": call.actor.id}


@probe.get("/faults/<string:kind>", may=OPEN)
def fail(_call: Call, kind: str) -> dict[str, Any]:
    """Fail in a given way."""
    if kind == "unforeseen":
        raise RuntimeError("secret internals")
    if kind == "unavailable":
        raise Unavailable("the storage does not answer", retry_after_seconds=7)
    if kind == "limit":
        raise LimitReached("too many", retry_after_seconds=0.2)
    if kind == "lie":
        return {"undeclared": object()}
    return {"space": _call.space}


@probe.get("/lies", may=OPEN, reply=NumberView)
def lie(_call: Call) -> dict[str, Any]:
    """Answer something else than declared."""
    return {"number": "many", "more": 1}

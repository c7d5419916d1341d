"""Spaces: made, changed and deleted, who sees them, and how those who write in one keep it there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from coordinator.domains.identity import grants, space_store
from coordinator.domains.identity.grants import Bound
from coordinator.domains.identity.rights import covers
from coordinator.domains.identity.space_store import Space
from coordinator.store.database import Transaction
from coordinator.store.paging import Page, PageRequest
from shared.errors import BadRequest, Conflict, Duplicate, Invalid, NotFound

__all__ = ["DEFAULT", "Space", "add", "change", "get", "hold", "list_spaces", "register_content", "remove"]

DEFAULT = "default"
COUNTED = 1000
"""What is left in a space is counted up to here: whoever must empty it needs the order of size and not more."""

Count = Callable[[Transaction, str, int], int]
_contents: dict[str, Count] = {}


def register_content(word: str, count: Count) -> None:
    """Let `count(tx, space, most)` tell how many of something a space has; with any left it cannot be deleted."""
    _contents[word] = count


def hold(tx: Transaction, name: str, *, for_new_work: bool) -> None:
    """Keep the space from being deleted until the transaction ends.

    NotFound when it is gone; Conflict when it takes no new work and some is coming. `default` is always there and
    always active, so that those who use no other space pay nothing.
    """
    if name == DEFAULT:
        return
    active = space_store.hold(tx, name)
    if active is None:
        raise _missing(name)
    if for_new_work and not active:
        raise Conflict(f"the space {name} is switched off: it takes no new work", space=name)


def visible_to(bound: Sequence[Bound], limits: frozenset[str] | None) -> frozenset[str] | None:
    """The names of the spaces that somebody may list; None for all of them."""
    if limits is not None and not covers(limits, "spaces:list"):
        return frozenset()
    # A name that no space can have: what counts there is what counts everywhere.
    if covers(grants.granted(bound, "").rights, "spaces:list"):
        return None
    named = {one.space for one in bound if one.space is not None}
    return frozenset(name for name in named if covers(grants.granted(bound, name).rights, "spaces:list"))


def list_spaces(
    tx: Transaction, bound: Sequence[Bound], page: PageRequest, *, limits: frozenset[str] | None, active: bool | None
) -> Page[Space]:
    """The spaces that somebody with these roles may see, newest first."""
    return space_store.list_page(tx, page, names=visible_to(bound, limits), active=active)


def get(tx: Transaction, name: str) -> Space:
    return _found(space_store.find(tx, name), name)


def get_to_change(tx: Transaction, name: str) -> Space:
    """The space, locked until the transaction ends."""
    return _found(space_store.lock(tx, name), name)


def add(tx: Transaction, body: Mapping[str, Any], *, by: str) -> Space:
    made = Space(
        name=body["name"],
        description=body.get("description"),
        settings=body.get("settings") or {},
        active=body.get("active", True),
        created_by=by,
        created_at=tx.now,
        updated_at=tx.now,
        version=1,
    )
    if not space_store.add(tx, made):
        raise Duplicate("there is a space of this name already", name=made.name)
    return made


def change(tx: Transaction, space: Space, body: Mapping[str, Any]) -> Space:
    """Apply what is to be different; a name stays for good, as everything in the space is known by it."""
    if body.get("name", space.name) != space.name:
        raise Invalid("name: a space cannot be renamed", field="name", reason="a space cannot be renamed")
    if space.name == DEFAULT and body.get("active") is False:
        raise BadRequest("the default space cannot be switched off")
    wanted = {name: body[name] for name in ("description", "settings", "active") if name in body}
    changes = {name: value for name, value in wanted.items() if getattr(space, name) != value}
    if not changes:
        return space
    space_store.change(tx, space, changes)
    return replace(space, **changes, updated_at=tx.now, version=space.version + 1)


def remove(tx: Transaction, space: Space) -> int:
    """Delete an empty space that the caller has locked; answers how many held a role in it, and hold it no more."""
    if space.name == DEFAULT:
        raise BadRequest("the default space cannot be deleted")
    counted = {word: count(tx, space.name, COUNTED) for word, count in sorted(_contents.items())}
    left = {word: number for word, number in counted.items() if number}
    if left:
        told = ", ".join(f"{'at least ' if number >= COUNTED else ''}{number} {word}" for word, number in left.items())
        raise Conflict(f"the space {space.name} is not empty: {told}", space=space.name, left=left)
    held = space_store.count_bindings(tx, space.name)
    space_store.remove(tx, space.name)
    return held


def _found(space: Space | None, name: str) -> Space:
    if space is None:
        raise _missing(name)
    return space


def _missing(name: str) -> NotFound:
    return NotFound("there is no such space", space=name)

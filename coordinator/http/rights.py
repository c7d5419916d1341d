"""What an endpoint asks of its caller, and the one place that compares it with what the caller may."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum

from coordinator.domains.identity.rights import NOUNS
from coordinator.http.actor import Actor, ActorKind
from shared.errors import Forbidden

_RIGHT = re.compile(r"^[a-z][a-z_]*:[a-z][a-z_-]*$")
_VERB_OF_METHOD = {"DELETE": "delete", "PATCH": "update", "PUT": "update"}


class Gate(Enum):
    """Entrances that are not a right of a role."""

    OPEN = "open"
    NODE = "node"
    ENROL = "enrol"


OPEN, NODE, ENROL = Gate.OPEN, Gate.NODE, Gate.ENROL
"""Anybody; a node with its own credential; an enrolment token or a principal who may enrol workers."""

May = str | Gate | tuple[str | Gate, ...]


def declared(may: May) -> tuple[str | Gate, ...]:
    """The alternatives of a declaration, checked: any one of them lets the caller in."""
    alternatives = may if isinstance(may, tuple) else (may,)
    if not alternatives or (OPEN in alternatives and len(alternatives) > 1):
        raise TypeError(f"may={may!r} says nothing: name a right, NODE, ENROL or OPEN")
    for one in alternatives:
        if not isinstance(one, Gate) and not _RIGHT.match(str(one)):
            raise TypeError(f"may={one!r} is neither a noun:verb right nor OPEN, NODE or ENROL")
    return alternatives


def precise(alternatives: tuple[str | Gate, ...], *, method: str, creates: bool, lists: bool) -> tuple[str | Gate, ...]:
    """The alternatives with the exact verb of the endpoint in the place of `read` and `write`."""
    verb = {
        "read": "list" if lists else "get",
        "write": _VERB_OF_METHOD.get(method, "create" if creates else "update"),
    }

    def exact(one: str | Gate) -> str | Gate:
        if isinstance(one, Gate):
            return one
        noun, _, word = one.partition(":")
        return f"{noun}:{verb.get(word, word)}"

    return tuple(exact(one) for one in alternatives)


def describe(alternatives: tuple[str | Gate, ...]) -> str:
    """The declaration in words, for tables and the published document."""
    return " or ".join(one.value.upper() if isinstance(one, Gate) else one for one in alternatives)


def makes_work(alternatives: tuple[str | Gate, ...]) -> bool:
    """Whether what is so declared brings something new into a space, which one that is switched off does not take."""
    named = (one.partition(":") for one in alternatives if isinstance(one, str))
    # A dead letter that goes round again is work like a new one.
    return any(
        noun in NOUNS and NOUNS[noun].in_space and (verb == "create" or (noun, verb) == ("dead_letters", "update"))
        for noun, _, verb in named
    )


def require(alternatives: tuple[str | Gate, ...], actor: Actor, path_args: Mapping[str, str]) -> None:
    """Raise Forbidden unless one of the alternatives lets this actor in."""
    if not any(_admits(one, actor, path_args) for one in alternatives):
        raise Forbidden("you may not do this", required=describe(alternatives))


def _admits(one: str | Gate, actor: Actor, path_args: Mapping[str, str]) -> bool:
    if isinstance(one, str):
        return actor.may(one, next(reversed([*path_args.values()]), None))
    if one is ENROL:
        return actor.kind == ActorKind.ENROLMENT or actor.may("workers:enrol")
    if one is NODE:
        return actor.kind == ActorKind.NODE and path_args.get("worker_id", actor.id) == actor.id
    return True

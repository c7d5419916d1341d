"""Which space a request is about: its path, its body or the header X-Space say so; `default` otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from flask import Request

from coordinator.domains.identity.space_words import TwoSpaces, take_space
from coordinator.http.actor import DEFAULT_SPACE, Actor
from shared.errors import Invalid, NotFound

HEADER = "X-Space"
PATH_ARGUMENT = "space"
BODY_FIELD = "space"
"""Schemas read the other spellings (`workspace_id`, `namespace`, …) into this field."""


def of_request(request: Request, body: Mapping[str, Any], path_args: Mapping[str, str]) -> str:
    """The space that a request names; Invalid when it names two."""
    places = (path_args.get(PATH_ARGUMENT), body.get(BODY_FIELD), request.headers.get(HEADER))
    named = {place for place in places if place}
    if len(named) > 1:
        raise Invalid("the request names two spaces", spaces=sorted(named))
    space = next(iter(named), DEFAULT_SPACE)
    if "\0" in space:
        # Not even asked for: PostgreSQL has no such text.
        raise NotFound("there is no such space", space=space)
    return space


def of_broken_body(raw: bytes) -> dict[str, str]:
    """The space that a body names which is wrong otherwise: it decides who may be told what is wrong."""
    try:
        named = take_space(orjson.loads(raw)).get(BODY_FIELD)
    except (orjson.JSONDecodeError, AttributeError, TwoSpaces):
        return {}
    return {BODY_FIELD: named} if isinstance(named, str) else {}


def require_known(actor: Actor, space: str) -> None:
    """Raise NotFound when the actor may not know of the space: one that does not exist looks the same."""
    if actor.space != space or not actor.knows_space:
        raise NotFound("there is no such space", space=space)

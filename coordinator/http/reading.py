"""Reading a request: size, media type, JSON, query, page. Everything an answer may depend on is checked here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson
from flask import Request
from marshmallow import Schema, ValidationError, fields

from coordinator.http.schemas import faults, lenient
from coordinator.store.paging import PageRequest
from shared.errors import BadRequest, Invalid, PayloadTooLarge, UnsupportedMediaType

PAGES = {"v0": (100, 1000), "v1": (20, 200), "root": (20, 200)}
"""Version → default and greatest `limit`."""

GREATEST_OFFSET = 2**53
GREATEST_DEPTH = 200
"""Far more than any of our shapes has, and few enough for whatever walks or writes a body by calling itself."""
_PLAIN_INTEGER = re.compile(r"-?[0-9]{1,16}\Z")


class BodyReader:
    """Turns the bytes of a request into the checked fields of one schema."""

    def __init__(self, schema: type[Schema] | Schema, *, version: str) -> None:
        made = schema() if isinstance(schema, type) else schema
        self._schema = lenient(made) if version == "v0" else made

    def read(self, raw: bytes, media_type: str) -> dict[str, Any]:
        return load(self._schema, _json_object(raw, media_type))


class QueryReader:
    """Turns the query string into the checked fields of one schema."""

    def __init__(self, schema: type[Schema] | Schema) -> None:
        self._schema = lenient(schema() if isinstance(schema, type) else schema)
        self._lists = {each.data_key or name for name, each in self._schema.load_fields.items() if _is_list(each)}

    def read(self, request: Request) -> dict[str, Any]:
        given: dict[str, Any] = request.args.to_dict()
        for name in self._lists & given.keys():
            given[name] = request.args.getlist(name)
        if "%00" in request.environ.get("QUERY_STRING", ""):
            refuse_null(given)
        return load(self._schema, given)


def _is_list(each: fields.Field[Any]) -> bool:
    return isinstance(each, fields.List | fields.Tuple)


def load(schema: Schema, given: dict[str, Any]) -> dict[str, Any]:
    """`given` through the schema, or Invalid with each fault's path and reason."""
    try:
        loaded: dict[str, Any] = schema.load(given)
    except ValidationError as error:
        raise invalid(error.messages) from None
    return loaded


def invalid(messages: Any) -> Invalid:
    """The error for marshmallow's messages."""
    found = faults(messages)
    first = found[0]
    where = f"{first['field']}: " if first["field"] else ""
    return Invalid(f"{where}{first['reason']}", field=first["field"] or None, reason=first["reason"], errors=found)


def refuse_null(given: Mapping[str, Any]) -> None:
    """Raise Invalid when one of the texts has a character that PostgreSQL cannot store or compare with."""
    for name, value in given.items():
        if "\0" in value or any("\0" in each for each in value):
            raise Invalid("a text must not contain U+0000", field=name, reason="must not contain U+0000")


def refuse_oversize(request: Request, limit: int) -> None:
    """Raise PayloadTooLarge from the declared length alone, and see to it that reading stops soon after the limit."""
    request.max_content_length = limit + 1
    if request.content_length is not None and request.content_length > limit:
        raise _too_large(limit)


def read_bytes(request: Request, limit: int) -> bytes:
    """The body of the request."""
    raw = request.get_data(cache=False)
    # A body sent in chunks declares no length; werkzeug cuts it off at the maximum without a word.
    if len(raw) > limit:
        raise _too_large(limit)
    return raw


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body may have at most {limit} bytes", limit=limit)


def _json_object(raw: bytes, media_type: str) -> dict[str, Any]:
    if not raw:
        return {}
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise UnsupportedMediaType("send application/json", given=media_type or None)
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequest("the body is not valid JSON", reason=str(error)) from None
    if not isinstance(value, dict):
        raise Invalid("the body must be a JSON object", reason="must be a JSON object")
    if raw.count(b"{") + raw.count(b"[") > GREATEST_DEPTH and _is_too_deep(value):
        raise BadRequest("the body is nested too deeply", limit=GREATEST_DEPTH)
    # PostgreSQL cannot store U+0000 in a text; the escape is the only way it can be in valid JSON.
    if b"\\u0000" in raw and (path := _null_character(value, "")) is not None:
        raise Invalid("a text must not contain U+0000", field=path, reason="must not contain U+0000")
    return value


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(GREATEST_DEPTH):
        inside = (each for one in level for each in (one.values() if isinstance(one, dict) else one))
        level = [each for each in inside if isinstance(each, dict | list)]
        if not level:
            return False
    return True


def _null_character(value: Any, path: str) -> str | None:
    if isinstance(value, str):
        return path if "\0" in value else None
    if isinstance(value, dict):
        inside = [(f"{path}.{key}" if path else key, each) for key, each in value.items()]
        if any("\0" in key for key in value):
            return path
    elif isinstance(value, list):
        inside = [(f"{path}[{index}]", each) for index, each in enumerate(value)]
    else:
        return None
    return next((found for name, each in inside if (found := _null_character(each, name)) is not None), None)


def read_page(request: Request, version: str, usual: int | None = None) -> PageRequest:
    """`limit` with `offset` (or `skip`) or `page`; an offset wins over a page. `usual` is for lists with their own."""
    default, greatest = PAGES[version]
    limit = _integer(request, "limit", usual or default, low=1, high=greatest)
    name = "offset" if "offset" in request.args else "skip"
    if name in request.args:
        offset = _integer(request, name, 0, low=0, high=GREATEST_OFFSET)
        return PageRequest(limit=limit, offset=offset, page=offset // limit + 1)
    page = _integer(request, "page", 1, low=1, high=GREATEST_OFFSET // greatest)
    return PageRequest(limit=limit, offset=(page - 1) * limit, page=page)


def _integer(request: Request, name: str, usual: int, *, low: int, high: int) -> int:
    text = request.args.get(name)
    if text is None:
        return usual
    # int() would also take "1_0", " 1 " and digits of other scripts, and any number of them.
    if not (_PLAIN_INTEGER.match(text) and low <= int(text) <= high):
        reason = f"must be an integer from {low} to {high}"
        raise Invalid(f"{name}: {reason}", field=name, reason=reason, errors=[{"field": name, "reason": reason}])
    return int(text)

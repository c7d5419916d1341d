"""From what a handler returned to an HTTP answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
from flask import Response, request

from coordinator.http.call import ListOf, Reply
from coordinator.http.slice import PREFIXES, Endpoint
from coordinator.store.paging import Page, PageRequest
from shared.clock import rfc3339


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer: everything that is sent, before Flask sees it."""

    status: int
    body: bytes
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    made: Response | None = None
    """A response that the handler built itself (a download in pieces); it is sent as it is."""

    def response(self) -> Response:
        if self.made is not None:
            return self.made
        if self.status in (204, 304):
            return Response(status=self.status, headers=dict(self.headers))
        return Response(self.body, self.status, dict(self.headers), content_type=self.media_type)


def dump(value: Any) -> bytes:
    """JSON as we send it; times in RFC 3339 with `Z`."""
    return orjson.dumps(value, default=_plain, option=orjson.OPT_PASSTHROUGH_DATETIME)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, frozenset | set):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


@dataclass(frozen=True, slots=True)
class Shaped:
    """A handler's result as the value to send, with status and headers."""

    value: Any
    status: int
    headers: dict[str, str]
    secret_fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Handled:
    """A finished answer, with the value it was made of unless the handler built the response itself."""

    answer: Answer
    shaped: Shaped | None = None


def shape(result: Any, endpoint: Endpoint, version: str, page: PageRequest) -> Shaped:
    """Unpack Reply, wrap Page, add the headers that follow from the value."""
    reply = result if isinstance(result, Reply) else Reply(result)
    headers = dict(reply.headers)
    value = reply.value
    if isinstance(endpoint.reply, ListOf):
        listed = value if isinstance(value, Page) else Page(value, len(value))
        headers |= _list_headers(listed, page)
        value = list(listed.items) if version == "v0" else _envelope(endpoint.reply.key, listed, page)
    status = reply.status or (endpoint.status if value is not None or endpoint.status != 200 else 204)
    if isinstance(value, Mapping):
        _headers_of(value, endpoint, version, status, headers)
    return Shaped(value, status, headers, reply.secret_fields)


def _list_headers(listed: Page[Any], page: PageRequest) -> dict[str, str]:
    return {
        "X-Total-Count": str(listed.total),
        "X-Page-Offset": str(page.offset),
        "X-Page-Limit": str(page.limit),
    }


def _envelope(key: str, listed: Page[Any], page: PageRequest) -> dict[str, Any]:
    return {
        key: list(listed.items),
        "pagination": {
            "page": page.page,
            "limit": page.limit,
            "offset": page.offset,
            "total": listed.total,
            "pages": -(-listed.total // page.limit),
        },
    }


def _headers_of(
    value: Mapping[str, Any], endpoint: Endpoint, version: str, status: int, headers: dict[str, str]
) -> None:
    if endpoint.etag and "version" in value:
        headers.setdefault("ETag", f'"{value["version"]}"')
    if status == 201 and endpoint.location and "Location" not in headers:
        known = {**(request.view_args or {}), **value}
        headers["Location"] = f"{PREFIXES[version]}{_filled(endpoint.location, known)}"


def _filled(template: str, known: Mapping[str, Any]) -> str:
    # Path parameters are written `<id:worker_id>` in a declaration; here they are filled in.
    parts = []
    for part in template.split("/"):
        if part.startswith("<"):
            parts.append(str(known[part.strip("<>").rpartition(":")[2]]))
        else:
            parts.append(part.format_map(known))
    return "/".join(parts)


def render(shaped: Shaped, endpoint: Endpoint) -> Answer:
    """The bytes to send."""
    if shaped.value is None and shaped.status != 200:
        return Answer(shaped.status, b"", endpoint.media_type, shaped.headers)
    media_type = shaped.headers.pop("Content-Type", endpoint.media_type)
    if isinstance(shaped.value, bytes):
        return Answer(shaped.status, shaped.value, media_type, shaped.headers)
    body = dump(shaped.value) if endpoint.returns == "json" else str(shaped.value).encode()
    return Answer(shaped.status, body, media_type, shaped.headers)


def not_modified(answer: Answer, if_none_match: str | None) -> bool:
    """Whether the caller has this version already."""
    tag = answer.headers.get("ETag")
    if tag is None or not if_none_match or answer.status != 200:
        return False
    given = {part.strip().removeprefix("W/") for part in if_none_match.split(",")}
    return tag in given or "*" in given


def entity_tags(header: str | None) -> tuple[str, ...] | None:
    """The versions that If-Match names, None without the header."""
    if header is None:
        return None
    # A weak tag never matches: If-Match asks for strong comparison.
    parts = (part.strip() for part in header.split(","))
    return tuple(part.strip('"') for part in parts if not part.startswith("W/"))

"""The declaration of endpoints: one `Slice` per domain, one decorator per endpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from flask import Flask

from coordinator.domains.identity.audit_actions import ACTIONS
from coordinator.http.call import Call, ListOf, Page, PageRequest, Reply
from coordinator.http.limiting_rules import DOORS
from coordinator.http.rights import ENROL, NODE, OPEN, Gate, May, declared, describe, precise

Handler = TypeVar("Handler", bound=Callable[..., Any])
Access = Literal["read", "write", "none"]

PREFIXES = {"root": "", "v0": "/api/v0", "v1": "/api/v1"}
MEDIA_TYPES = {
    "json": "application/json",
    "binary": "application/octet-stream",
    "text": "text/plain; charset=utf-8",
    "html": "text/html; charset=utf-8",
}

__all__ = [
    "ENROL",
    "NODE",
    "OPEN",
    "Call",
    "Endpoint",
    "ListOf",
    "Page",
    "PageRequest",
    "Reply",
    "RouteLine",
    "Slice",
    "routes",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One declared endpoint, before it is mounted under its versions."""

    method: str
    path: str
    handler: Callable[..., Any]
    may: tuple[str | Gate, ...]
    name: str
    tag: str
    summary: str
    description: str
    body: Any = None
    query: Any = None
    reply: Any = None
    status: int = 200
    versions: tuple[str, ...] = ("v1",)
    transaction: Access = "read"
    etag: bool = False
    idempotent: bool = False
    location: str | None = None
    errors: tuple[int, ...] = ()
    accepts: Literal["json", "multipart"] = "json"
    returns: str = "json"
    example: Any = None
    example_reply: Any = None
    also: Mapping[int, Any] = field(default_factory=dict)
    """Further statuses that are answers and not errors, with their shapes."""
    documented: bool = True
    quiet: bool = False
    """Asked all the time: a successful call is not worth a line in the log."""
    door: str = "usual"
    """For an open endpoint: what a request to it counts as, one of limiting_rules.DOORS."""
    audit: tuple[str, ...] = ()
    """Actions of the audit trail's catalogue, one of which each successful call records; the first is what a refused
    or failed one tried. A handler that records none of its own leaves a row with the path and the body."""

    @property
    def is_open(self) -> bool:
        return OPEN in self.may

    @property
    def honours_if_match(self) -> bool:
        """Whether the handler compares If-Match with the version it changes."""
        return self.etag and self.method != "GET" and self.status != 201

    @property
    def media_type(self) -> str:
        return MEDIA_TYPES.get(self.returns, self.returns)

    def operation_id(self, version: str) -> str:
        """Stable, and unique when each name is given once per version."""
        return self.name if version == "v1" or self.versions == ("root",) else f"{self.name}_{version}"


@dataclass(slots=True, eq=False)
class Slice:
    """The endpoints of one domain."""

    name: str
    summary: str
    endpoints: list[Endpoint] = field(default_factory=list)

    def get(self, path: str, *, may: May, **options: Any) -> Callable[[Handler], Handler]:
        return self._endpoint("GET", path, may, options)

    def post(self, path: str, *, may: May, **options: Any) -> Callable[[Handler], Handler]:
        return self._endpoint("POST", path, may, options)

    def put(self, path: str, *, may: May, **options: Any) -> Callable[[Handler], Handler]:
        return self._endpoint("PUT", path, may, options)

    def patch(self, path: str, *, may: May, **options: Any) -> Callable[[Handler], Handler]:
        return self._endpoint("PATCH", path, may, options)

    def delete(self, path: str, *, may: May, **options: Any) -> Callable[[Handler], Handler]:
        return self._endpoint("DELETE", path, may, options)

    def _endpoint(self, method: str, path: str, may: May, options: dict[str, Any]) -> Callable[[Handler], Handler]:
        alternatives = declared(may)

        def declare(handler: Handler) -> Handler:
            self.endpoints.append(_completed(self, method, path, alternatives, handler, dict(options)))
            return handler

        return declare


def _completed(
    owner: Slice,
    method: str,
    path: str,
    may: tuple[str | Gate, ...],
    handler: Callable[..., Any],
    options: dict[str, Any],
) -> Endpoint:
    multipart = options.get("accepts") == "multipart"
    # An upload may take minutes to arrive: no transaction may be open meanwhile.
    options.setdefault("transaction", "none" if multipart else "read" if method == "GET" else "write")
    idempotent = options.pop("idempotent", None)
    works = method == "POST" and (options["transaction"] == "write" or multipart) and OPEN not in may
    options["idempotent"] = works if idempotent is None else idempotent
    options["versions"] = tuple(options.get("versions", ("v1",)))
    audit = options.get("audit", ())
    options["audit"] = (audit,) if isinstance(audit, str) else tuple(audit)
    _refuse_contradictions(method, path, options)
    if options.get("status") == 201:
        options.setdefault("location", f"{path}/{{id}}")
    lines = (handler.__doc__ or "").strip().partition("\n")
    return Endpoint(
        method=method,
        path=path,
        handler=handler,
        may=precise(
            may,
            method=method,
            creates=options.get("status") in (201, 202),
            lists=isinstance(options.get("reply"), ListOf),
        ),
        name=options.pop("name", None) or handler.__name__,
        tag=options.pop("tag", None) or owner.name,
        summary=lines[0].strip(),
        description=" ".join(lines[2].split()),
        **options,
    )


def _refuse_contradictions(method: str, path: str, options: dict[str, Any]) -> None:
    if not path.startswith("/") or (path != "/" and path.endswith("/")):
        raise TypeError(f"{path!r}: a path begins with a slash and does not end with one; both forms are served")
    if unknown := set(options["versions"]) - PREFIXES.keys():
        raise TypeError(f"{path}: there is no version {', '.join(sorted(unknown))}")
    if options["idempotent"] and options["transaction"] == "read":
        raise TypeError(f"{path}: what only reads needs no Idempotency-Key")
    if unknown := set(options["audit"]) - ACTIONS.keys():
        raise TypeError(f"{path}: the catalogue of the audit trail has no {', '.join(sorted(unknown))}")
    if options["audit"] and options["transaction"] == "read":
        raise TypeError(f"{path}: what only reads leaves no row in the audit trail; say transaction='write'")
    if options.get("door", "usual") not in DOORS:
        raise TypeError(f"{path}: door is one of {', '.join(DOORS)}")
    if options.get("body") is not None and method == "GET":
        raise TypeError(f"{path}: a GET has no body")


@dataclass(frozen=True, slots=True, order=True)
class RouteLine:
    """One line of the route table."""

    path: str
    method: str
    right: str
    operation_id: str


def routes(app: Flask) -> list[RouteLine]:
    """The route table of an app, sorted by path."""
    return sorted(
        RouteLine(
            path=f"{PREFIXES[version]}{endpoint.path}",
            method=endpoint.method,
            right=describe(endpoint.may),
            operation_id=endpoint.operation_id(version),
        )
        for endpoint, version in mounted(app.extensions["longshore"].slices)
    )


def mounted(slices: Iterable[Slice]) -> Iterator[tuple[Endpoint, str]]:
    """Each endpoint with each version it is served under."""
    for one in slices:
        for endpoint in one.endpoints:
            for version in endpoint.versions:
                yield endpoint, version

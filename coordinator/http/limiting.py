"""How many requests: each is counted where that is due, refused when it is too much, and told what is left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from flask import Flask, Request, Response, request

from coordinator.http.actor import Actor
from coordinator.http.limiting_memory import MemoryCounter
from coordinator.http.limiting_redis import RedisCounter
from coordinator.http.limiting_rules import Kind, Limit, Standing, Verdict, of_caller, of_door, refusing, standing_of
from coordinator.http.slice import PREFIXES, Endpoint
from coordinator.http.witness import plain_address
from coordinator.resources import Resources
from shared.errors import LimitReached
from shared.ids import new_id

STANDING = "longshore.limits"
LEASED = "longshore.leased"
COUNTED_PREFIX = PREFIXES["v1"] + "/"
NO_LIMIT = 2**31 - 1
"""What the headers tell where nothing limits: a number, as programs compare it with one."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Leased:
    """The places that one request holds while it goes on."""

    id: str
    limits: Sequence[Limit]


class Limiter:
    """One for a process."""

    def __init__(self, resources: Resources) -> None:
        self._settings = resources.settings
        self._clock = resources.clock
        self._shared = RedisCounter(resources.signals)
        self._alone = MemoryCounter()
        self._is_alone = False

    def at_open_door(self, endpoint: Endpoint, version: str) -> None:
        """Count a request to an endpoint that is open to anybody."""
        if version == "v1" or endpoint.door in ("login", "register"):
            self._count(request, of_door("free" if endpoint.quiet else endpoint.door, _address(), self._settings))

    def stranger(self, version: str) -> None:
        """Count a request that shows no good credential, or asks for what is not there."""
        if version == "v1":
            self._count(request, of_door("usual", _address(), self._settings))

    def caller(self, actor: Actor, version: str) -> None:
        """Count a request of somebody known."""
        if version == "v1" and (limits := of_caller(actor, self._settings)):
            self._count(request, limits)

    def leave(self) -> None:
        """Give back what the request held while it went on."""
        held: Leased | None = request.environ.pop(LEASED, None)
        if held is not None:
            self.release(held)

    def release(self, held: Leased) -> None:
        """Give back these places."""
        self._shared.release(held.limits, lease=held.id)
        self._alone.release(held.limits, lease=held.id)

    def _count(self, counted: Request, limits: tuple[Limit, ...]) -> None:
        if not limits:
            return
        environ = counted.environ
        # Not the request's id: that may be the caller's choice, the same for all of its requests.
        lease, now = new_id(), self._clock.now().timestamp()
        verdicts = self._asked(limits, lease=lease, now=now)
        environ[STANDING] = standing_of(limits, verdicts)
        if (refused := refusing(limits, verdicts)) is not None:
            limit, wait = refused
            raise LimitReached(limit.told, limit=limit.most, retry_after_seconds=max(1, wait))
        if leased := [limit for limit in limits if limit.kind is Kind.LEASE]:
            environ[LEASED] = Leased(lease, leased)

    def _asked(self, limits: Sequence[Limit], *, lease: str, now: float) -> Sequence[Verdict]:
        verdicts = self._shared.count(limits, lease=lease, now=now)
        if (verdicts is None) is not self._is_alone:
            self._is_alone = verdicts is None
            log.warning("limits.each_process_alone") if self._is_alone else log.info("limits.shared_again")
        return self._alone.count(limits, lease=lease, now=now) if verdicts is None else verdicts


def _address() -> str:
    return plain_address(request.environ.get("REMOTE_ADDR")) or ""


def install(app: Flask, limiter: Limiter) -> None:
    """Count what finds no endpoint, give places back, and put the headers on every answer of v1."""

    @app.before_request
    def count_lost() -> None:
        # Whoever tries out paths is a stranger, whatever they show: nobody looked at it.
        if request.routing_exception is not None and request.path.startswith(COUNTED_PREFIX):
            limiter.stranger("v1")

    @app.after_request
    def tell(response: Response) -> Response:
        if request.path.startswith(COUNTED_PREFIX):
            standing: Standing | None = request.environ.get(STANDING)
            add_headers(response, standing)
        if response.is_streamed and (held := request.environ.pop(LEASED, None)) is not None:
            # A download goes on after the request's context has ended.
            response.call_on_close(lambda: limiter.release(held))
        return response

    @app.teardown_request
    def leave(_error: BaseException | None) -> None:
        limiter.leave()


def add_headers(response: Response, standing: Standing | None) -> None:
    """What is left of the limit that counts, or that there is none."""
    told = standing or Standing(NO_LIMIT, NO_LIMIT, 0.0)
    response.headers["X-RateLimit-Limit"] = str(told.most)
    response.headers["X-RateLimit-Remaining"] = str(told.remaining)
    response.headers["X-RateLimit-Reset"] = str(math.ceil(told.reset))

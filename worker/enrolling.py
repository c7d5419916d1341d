"""Becoming a node: enrol once, then be the same node at every start."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from shared.client.backoff import Backoff
from shared.client.errors import worth_retrying
from shared.client.http import Connection
from shared.client.line import Line
from shared.client.node import Caller, enrol
from shared.contracts.node import Enrol, Enrolled
from shared.errors import LongshoreError
from worker.computer.choose import Choice
from worker.config import Settings
from worker.home import Home, HomeError, Identity
from worker.vitals import address_towards, machine, software

log = structlog.get_logger(__name__)


def identity_of(settings: Settings, home: Home, choice: Choice, *, say: Callable[[str], None]) -> Identity:
    """Who this node is; enrols when it is nobody yet. HomeError says in words what is missing."""
    known = home.identity()
    if known is not None:
        return _checked(known, settings, home)
    if not settings.coordinator_url:
        raise HomeError("this node has not enrolled yet: give --coordinator URL and --enrol-token TOKEN")
    token = settings.enrol_token.get_secret_value()
    if not token:
        raise HomeError(
            "this node has not enrolled yet: give --enrol-token TOKEN (made by: coordinator enrol-token create)"
        )
    identity = _enrol(settings, token, choice, say)
    home.remember(identity)
    log.info("enrolled", node=identity.id, name=identity.name, coordinator=identity.coordinator_url)
    return identity


def connection_to(settings: Settings, identity: Identity, *, timeout: float = 10.0) -> Connection:
    """A connection of this node to its coordinator."""
    return Connection(
        identity.coordinator_url,
        token=identity.credential,
        timeout=timeout,
        ca_file=settings.ca_file,
        proxy_url=settings.proxy_url,
    )


def line_to(settings: Settings, identity: Identity) -> Caller:
    """The quick connection of one loop; the usual one where a proxy is in between."""
    if settings.proxy_url:
        return connection_to(settings, identity)
    return Line(identity.coordinator_url, token=identity.credential, ca_file=settings.ca_file)


def computers_of(choice: Choice) -> dict[str, object]:
    """What the coordinator is told of this node's computers."""
    isolation = choice.info.isolation
    return {
        "driver": choice.driver.name,
        "isolation": isolation.kind.name if isolation else "none",
        "version": choice.info.version,
        "reason": choice.reason,
        "features": sorted(choice.info.features),
        "notes": list(isolation.notes) if isolation else [],
    }


def _checked(known: Identity, settings: Settings, home: Home) -> Identity:
    if settings.coordinator_url and settings.coordinator_url != known.coordinator_url:
        raise HomeError(
            f"{home.path} belongs to a node of {known.coordinator_url}; another coordinator needs another --home"
        )
    return known


def _persistently(ask: Callable[[], Enrolled], *, url: str, say: Callable[[str], None]) -> Enrolled:
    """A coordinator that is away may only be starting itself."""
    waits, is_told = Backoff(), False
    while True:
        try:
            return ask()
        except LongshoreError as error:
            if not worth_retrying(error):
                raise
            log.warning("not_enrolled_yet", error=error.message)
            if not is_told:
                say(f"{url} cannot be reached yet ({error.message}); trying until it can")
                is_told = True
            time.sleep(waits.next_seconds(error))


def _enrol(settings: Settings, token: str, choice: Choice, say: Callable[[str], None]) -> Identity:
    told = Enrol(
        name=settings.node_name,
        ip_address=address_towards(settings.coordinator_url),
        slots=settings.slots,
        light_slots=settings.light_slots,
        max_agents=settings.max_agents,
        group=settings.node_group,
        labels=settings.node_labels,
        software=software(),
        computers={**computers_of(choice), "image": settings.computer_image},
        **machine(),
    )
    with Connection(
        settings.coordinator_url, token=token, ca_file=settings.ca_file, proxy_url=settings.proxy_url
    ) as connection:
        try:
            enrolled = _persistently(lambda: enrol(connection, told), url=settings.coordinator_url, say=say)
        except LongshoreError as error:
            raise HomeError(f"{settings.coordinator_url} does not enrol this node: {error.message}") from error
    return Identity(enrolled.id, settings.coordinator_url, settings.node_name, enrolled.credential)

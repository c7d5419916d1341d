"""What a node needs, tried one by one and told in words."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import redis

from shared.client.http import API, Connection
from shared.client.node import NodeClient
from shared.contracts.node import Heartbeat
from shared.errors import LongshoreError
from shared.queue.broker import BrokerUrlError, parse_broker
from worker.computer.choose import choose_driver
from worker.computer.contract import ComputerError
from worker.config import Settings
from worker.enrolling import connection_to
from worker.home import Home, HomeError, Identity

MIN_FREE_BYTES = 1024 * 1024 * 1024
MAX_SKEW_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `ok` is None when it could not be judged and nothing is wrong with that."""

    name: str
    ok: bool | None
    message: str


def check(settings: Settings) -> list[Finding]:
    """Everything that `worker check` looks at."""
    home = Home(settings.node_home)
    try:
        identity = home.identity()
    except HomeError as error:
        return [Finding("home", False, str(error))]
    looks: list[Callable[[], Iterator[Finding]]] = [
        lambda: _home(home),
        lambda: _disk(settings),
        lambda: _computers(settings),
        lambda: _coordinator(settings, identity),
        lambda: _broker(settings, identity),
    ]
    return [finding for look in looks for finding in look()]


def _home(home: Home) -> Iterator[Finding]:
    pid = home.running_pid()
    yield Finding("daemon", None, f"a node runs from {home.path} (process {pid})" if pid else "no node runs from here")


def _disk(settings: Settings) -> Iterator[Finding]:
    place = next(path for path in (settings.node_home, *settings.node_home.parents) if path.exists())
    free = shutil.disk_usage(place).free
    enough = free >= MIN_FREE_BYTES
    told = f"{free / 2**30:.1f} GiB free at {place}"
    yield Finding("disk", enough, told if enough else f"only {told}; a node needs at least 1 GiB")


def _computers(settings: Settings) -> Iterator[Finding]:
    try:
        choice = choose_driver(
            settings.driver,
            home=settings.node_home,
            owner="longshore",
            node="check",
            image=settings.computer_image,
            docker_url=settings.docker_socket,
            runtime=settings.computer_runtime,
            allow_unsandboxed=settings.allow_unsandboxed,
        )
    except LongshoreError as error:
        yield Finding("computers", False, error.message)
        return
    isolation = choice.info.isolation
    notes = f" ({'; '.join(isolation.notes)})" if isolation and isolation.notes else ""
    yield Finding("computers", True, f"{choice.reason}{notes}")
    try:
        choice.driver.close()
    except ComputerError as error:
        yield Finding("computers", None, f"the driver did not clear up after itself: {error.message}")


def _coordinator(settings: Settings, identity: Identity | None) -> Iterator[Finding]:
    url = identity.coordinator_url if identity else settings.coordinator_url
    if not url:
        yield Finding("coordinator", False, "no coordinator is known: give --coordinator URL")
        return
    with Connection(url, timeout=5, ca_file=settings.ca_file, proxy_url=settings.proxy_url) as connection:
        try:
            asked_at = time.time()
            response = connection.send("GET", "/health")
        except LongshoreError as error:
            yield Finding("coordinator", False, f"{url}: {error.message}")
            return
    yield Finding("coordinator", True, f"{url} answers")
    yield _clock(response.headers.get("date"), asked_at)


def _clock(date: str | None, asked_at: float) -> Finding:
    try:
        skew = parsedate_to_datetime(date or "").timestamp() - asked_at
    except ValueError:
        return Finding("clock", None, "the coordinator does not tell its time")
    if abs(skew) <= MAX_SKEW_SECONDS:
        return Finding("clock", True, "agrees with the coordinator's")
    return Finding("clock", False, f"this machine's clock is {-skew:+.0f} s off the coordinator's; set it (NTP)")


def _broker(settings: Settings, identity: Identity | None) -> Iterator[Finding]:
    if identity is None:
        yield Finding("broker", None, "not enrolled yet: the coordinator names the broker after approval")
        return
    running = Home(settings.node_home).running_pid() is not None
    with connection_to(settings, identity, timeout=5) as connection:
        try:
            yield from _told(connection, identity) if running else _asked(NodeClient(connection, identity.id))
        except LongshoreError as error:
            yield Finding("broker", None, f"the coordinator does not say: {error.message}")


def _told(connection: Connection, identity: Identity) -> Iterator[Finding]:
    """What the node that runs here has said of itself; a second voice in its name would only confuse."""
    node = connection.call("GET", f"{API}/workers/{identity.id}")
    yield Finding("approval", True if node["is_approved"] else None, f"the node is {node['status']}")
    if node["is_approved"]:
        hears = node["queue_ok"]
        yield Finding("broker", hears, "the node hears its queue" if hears else "the node does not hear its queue")


def _asked(client: NodeClient) -> Iterator[Finding]:
    # A heartbeat is how the broker is learnt; this one says that it takes no work.
    reply = client.heartbeat(Heartbeat(epoch="", draining=True), timeout=5)
    if reply.is_approved:
        yield _ping_broker(reply.broker)
    else:
        yield Finding("approval", None, "waits for an admin; until then the node gets no work and no broker")


def _ping_broker(url: str | None) -> Finding:
    if not url:
        return Finding("broker", False, "the coordinator has none to give")
    try:
        broker = parse_broker(url)
        with broker.client(timeout=3) as client:
            client.ping()
    except (BrokerUrlError, redis.RedisError) as error:
        return Finding("broker", False, f"it cannot be reached from here: {error}")
    return Finding("broker", True, f"{broker.shown} answers")

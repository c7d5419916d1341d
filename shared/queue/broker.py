"""The broker's address: which URLs we speak, what Celery must be told about each, and a plain Redis client for it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

SENTINEL_PORT = 26379
REDIS_PORT = 6379

_REFUSED = {
    "redis+cluster": "Celery does not work on Redis Cluster; give a single Redis, or Sentinels by sentinel://",
    "rediss+cluster": "Celery does not work on Redis Cluster; give a single Redis, or Sentinels by sentinel://",
    "amqp": "RabbitMQ is not supported as the broker yet; give redis://, rediss:// or sentinel://",
    "amqps": "RabbitMQ is not supported as the broker yet; give redis://, rediss:// or sentinel://",
}
_UNKNOWN = "the broker's URL must begin with redis://, rediss:// or sentinel://"
_CERTIFICATES = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}


class BrokerUrlError(ValueError):
    """The URL is not one that we speak; the text says why, and never shows a password."""


@dataclass(frozen=True, slots=True)
class Broker:
    """A parsed broker URL. `hosts` are Sentinels when there is a `master`, else the one Redis."""

    hosts: tuple[tuple[str, int], ...]
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    master: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    tls: dict[str, Any] | None = None

    @property
    def celery_url(self) -> str:
        """The URL in the form that kombu reads, with nothing in it that we hand over as an option."""
        scheme = "sentinel" if self.master else "rediss" if self.tls else "redis"
        login = f"{quote(self.username or '', safe='')}:{quote(self.password, safe='')}@" if self.password else ""
        return ";".join(f"{scheme}://{login}{_bracketed(host)}:{port}/{self.database}" for host, port in self.hosts)

    @property
    def shown(self) -> str:
        """The address for people: no user, no password."""
        hosts = ",".join(f"{_bracketed(host)}:{port}" for host, port in self.hosts)
        return f"{'sentinel ' + self.master + ' at ' if self.master else ''}{hosts}/{self.database}"

    @property
    def transport_options(self) -> dict[str, Any]:
        """What kombu's transport needs beyond the URL."""
        if not self.master:
            return {}
        return {"master_name": self.master, "sentinel_kwargs": self._sentinel_options()}

    def client(self, timeout: float = 2.0) -> redis.Redis:
        """A client that gives up after `timeout`: a paused broker must not hold its caller.

        A connection that broke while it lay idle is made anew once; an answer that stays out is told, since trying
        again could only double the wait.
        """
        options: dict[str, Any] = {
            "db": self.database,
            "username": self.username,
            "password": self.password,
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "retry": Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
            **({"ssl": True, **self.tls} if self.tls else {}),
        }
        if not self.master:
            host, port = self.hosts[0]
            return redis.Redis(host=host, port=port, **options)
        asking = {"socket_timeout": timeout, **self._sentinel_options()}
        sentinels = Sentinel(list(self.hosts), sentinel_kwargs=asking, **options)  # type: ignore[no-untyped-call]
        found: redis.Redis = sentinels.master_for(self.master, redis.Redis)  # type: ignore[no-untyped-call]
        return found

    def _sentinel_options(self) -> dict[str, Any]:
        given = {"username": self.sentinel_username, "password": self.sentinel_password}
        return {name: value for name, value in given.items() if value}


def parse_broker(url: str) -> Broker:
    """The broker that `url` names, or BrokerUrlError.

    `redis://[user:password@]host[:port][/db]`, the same with `rediss` (certificates are checked; `?ssl_ca_certs=FILE`
    and `?ssl_cert_reqs=none` change how), or `sentinel://[user:password@]host[:port],host…[/db]?master=NAME`.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("redis", "rediss", "sentinel"):
        raise BrokerUrlError(_REFUSED.get(scheme, _UNKNOWN))
    return _parsed(scheme, rest)


def with_login(url: str, *, username: str, password: str) -> str:
    """The same broker's URL with another login; what it says of Sentinels and certificates stays."""
    parse_broker(url)
    scheme, _, rest = url.partition("://")
    _, hosts, path, query = _parts(rest)
    login = f"{quote(username, safe='')}:{quote(password, safe='')}"
    return f"{scheme}://{login}@{','.join(hosts)}/{path}{'?' + query if query else ''}"


def _parts(rest: str) -> tuple[str, list[str], str, str]:
    """Login, hosts, path, query of what follows the scheme."""
    before_query, _, query = rest.partition("?")
    authority, _, path = before_query.replace(";sentinel://", "\n").partition("/")
    # kombu's way of naming several Sentinels, each with the login in front, is accepted too.
    logins, hosts = zip(*(part.rpartition("@")[::2] for part in authority.split("\n")), strict=True)
    return logins[0], ",".join(hosts).split(","), path, query


def _parsed(scheme: str, rest: str) -> Broker:
    login, hosts, path, query_text = _parts(rest)
    # The first host alone goes through the URL parser, for the login; the rest are plain host:port.
    parts = urlsplit(f"redis://{login + '@' if login else ''}x/{path}")
    query = dict(parse_qsl(query_text))
    master = query.get("master") or query.get("master_name")
    if scheme == "sentinel" and not master:
        raise BrokerUrlError("a sentinel:// URL needs ?master=NAME, the name under which the Sentinels know the Redis")
    default_port = SENTINEL_PORT if scheme == "sentinel" else REDIS_PORT
    return Broker(
        hosts=tuple(_host(text, default_port) for text in hosts),
        database=_database(parts.path),
        username=_unquoted(parts.username),
        password=_unquoted(parts.password),
        master=master if scheme == "sentinel" else None,
        sentinel_username=query.get("sentinel_username"),
        sentinel_password=query.get("sentinel_password"),
        tls=_tls(query) if scheme == "rediss" else None,
    )


def _host(text: str, default_port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        if not parts.hostname:
            raise ValueError
        return parts.hostname, parts.port or default_port
    except ValueError:
        raise BrokerUrlError(f"{text!r} in the broker's URL is not HOST or HOST:PORT") from None


def _database(path: str) -> int:
    number = path.strip("/") or "0"
    if not number.isdigit():
        raise BrokerUrlError(f"{number!r} in the broker's URL is not the number of a database")
    return int(number)


def _tls(query: dict[str, str]) -> dict[str, Any]:
    asked = query.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if asked not in _CERTIFICATES:
        raise BrokerUrlError("ssl_cert_reqs in the broker's URL must be required, optional or none")
    files: dict[str, Any] = {
        name: query[name] for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile") if name in query
    }
    return {"ssl_cert_reqs": _CERTIFICATES[asked], "ssl_check_hostname": asked == "required", **files}


def _unquoted(text: str | None) -> str | None:
    return next(iter(dict(parse_qsl(f"x={text.replace('+', '%2B')}")).values()), None) if text else None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host

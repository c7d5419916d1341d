"""Asks identity providers over HTTP: where one may ask, for how long, and how much of an answer is read."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from coordinator.domains.identity.external_proof import ProviderUnreachable

GREATEST_ANSWER = 512 * 1024
TIMEOUT = httpx.Timeout(5.0, connect=3.0)
_ACCEPTED = {"Accept": "application/json", "Accept-Encoding": "identity"}
DEADLINE_SECONDS = 10.0
"""For one answer as a whole: a server that sends a byte now and then runs into no timeout of httpx."""


def require_fetchable(url: str, *, allow_insecure: bool) -> None:
    """Raise ValueError unless this is an address that we ask.

    https, or http on this machine; http elsewhere only where the admin of the provider has allowed it. Never an address
    of the link itself: there clouds tell secrets to whoever asks from inside.
    """
    parts = urlsplit(url)
    host = parts.hostname
    if not host or parts.username or parts.password or parts.fragment or parts.scheme not in ("http", "https"):
        raise ValueError(f"{url[:200]!r} is no https address")
    if is_link_local(host):
        raise ValueError(f"{host} is an address of the link, where no identity provider is")
    if parts.scheme == "http" and not (is_loopback(host) or allow_insecure):
        raise ValueError("use https; plain http is for this machine alone, unless allow_insecure is set")


def is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def is_link_local(host: str) -> bool:
    address = _address(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address is not None and (address.is_link_local or address.is_multicast or address.is_unspecified)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def get_document(url: str, *, allow_insecure: bool) -> dict[str, Any]:
    """The JSON object at an address."""
    return _asked(url, allow_insecure=allow_insecure, method="GET", headers={}, body=None)


def post_form(url: str, *, allow_insecure: bool, headers: Mapping[str, str], body: str) -> dict[str, Any]:
    """The JSON object that a form is answered with."""
    return _asked(url, allow_insecure=allow_insecure, method="POST", headers=headers, body=body)


def _asked(
    url: str, *, allow_insecure: bool, method: str, headers: Mapping[str, str], body: str | None
) -> dict[str, Any]:
    try:
        require_fetchable(url, allow_insecure=allow_insecure)
    except ValueError as error:
        raise ProviderUnreachable(str(error)) from None
    host = urlsplit(url).hostname or ""
    try:
        # What is on this machine is not asked through a proxy that the environment names for the world.
        with (
            httpx.Client(timeout=TIMEOUT, follow_redirects=False, trust_env=not is_loopback(host)) as client,
            client.stream(method, url, headers={**_ACCEPTED, **headers}, content=body) as answer,
        ):
            return _document(answer, _read(answer))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ProviderUnreachable(f"{host}: {type(error).__name__}") from error


def _read(answer: httpx.Response) -> bytes:
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        # A few packed bytes may be as large as memory when they are unpacked.
        raise ProviderUnreachable(f"{answer.url.host} packs its answer without having been asked to")
    parts, length, until = [], 0, time.monotonic() + DEADLINE_SECONDS
    for part in answer.iter_raw():
        parts.append(part)
        length += len(part)
        if length > GREATEST_ANSWER:
            raise ProviderUnreachable(f"{answer.url.host} answers with more than {GREATEST_ANSWER} bytes")
        if time.monotonic() > until:
            raise ProviderUnreachable(f"{answer.url.host} takes longer than {DEADLINE_SECONDS:.0f} seconds")
    return b"".join(parts)


def _document(answer: httpx.Response, raw: bytes) -> dict[str, Any]:
    if answer.status_code != httpx.codes.OK:
        # A redirect, too: where it leads to was nobody's decision here.
        raise ProviderUnreachable(f"{answer.url.host} answers with status {answer.status_code}")
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise ProviderUnreachable(f"{answer.url.host} answers with something that is no JSON") from None
    if not isinstance(found, dict):
        raise ProviderUnreachable(f"{answer.url.host} answers with something that is no JSON object")
    return found

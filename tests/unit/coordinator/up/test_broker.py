"""The embedded Redis: configured once, the same at the next start, and never in sight of others."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from coordinator.up import broker
from coordinator.up.kept import kept_url


@pytest.fixture(autouse=True)
def _a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "find_server", lambda: "/somewhere/redis-server")


def test_the_second_start_has_the_port_and_the_password_of_the_first(tmp_path: Path) -> None:
    assert broker.prepare(tmp_path) == broker.prepare(tmp_path)


def test_when_somebody_took_the_port_another_one_is_chosen_with_the_same_password(tmp_path: Path) -> None:
    before = broker.prepare(tmp_path)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", before.port))
        holder.listen()
        after = broker.prepare(tmp_path)

    assert after.port != before.port
    assert urlsplit(after.url).password == urlsplit(before.url).password
    assert kept_url(tmp_path) == after.url


def test_it_listens_on_loopback_keeps_a_log_and_evicts_nothing(tmp_path: Path) -> None:
    lines = broker.prepare(tmp_path).config.read_text().splitlines()

    assert {"bind 127.0.0.1", "appendonly yes", "maxmemory-policy noeviction"} <= set(lines)
    assert any(line.startswith("requirepass ") and len(line) > 40 for line in lines)


def test_its_password_is_not_in_its_representation(tmp_path: Path) -> None:
    embedded = broker.prepare(tmp_path)

    assert str(urlsplit(embedded.url).password) not in repr(embedded)


def test_what_cannot_be_read_is_set_aside_and_never_overwritten(tmp_path: Path) -> None:
    embedded = broker.prepare(tmp_path)
    places = []
    for _ in range(2):
        embedded.append_log.mkdir()
        places.append(broker.set_aside(embedded))

    assert [path.name for path in places if path] == ["unreadable-1", "unreadable-2"]
    assert broker.set_aside(embedded) is None


def test_a_home_without_an_embedded_server_has_no_address(tmp_path: Path) -> None:
    assert kept_url(tmp_path) is None

"""Addresses: which are free, who has the others, how they are reached."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from coordinator.up import ports
from coordinator.up.ports import PortTaken


@pytest.fixture
def taken() -> Iterator[str]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield f"127.0.0.1:{holder.getsockname()[1]}"


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("0.0.0.0:80", "http://127.0.0.1:80"),
        ("[::]:9000", "http://[::1]:9000"),
        ("[::1]:9000", "http://[::1]:9000"),
        ("localhost:9000", "http://localhost:9000"),
        ("10.0.0.5:9000", "http://10.0.0.5:9000"),
    ],
)
def test_what_listens_somewhere_is_reached_from_here(address: str, url: str) -> None:
    assert ports.url_of(address) == url


def test_a_port_somebody_listens_on_is_not_free(taken: str) -> None:
    assert not ports.is_free(taken)


def test_a_free_port_is_free() -> None:
    assert ports.is_free(f"127.0.0.1:{ports.free_port()}")


def test_the_refusal_names_who_has_the_port_and_the_option(taken: str) -> None:
    with pytest.raises(PortTaken) as refused:
        ports.require_free(taken, "--bind HOST:PORT")

    assert taken in refused.value.message
    assert f"(process {os.getpid()})" in refused.value.message
    assert "--bind HOST:PORT" in refused.value.message


def test_an_address_of_another_machine_is_told_apart_from_a_taken_port() -> None:
    # 192.0.2.0/24 is for documentation and nobody's.
    with pytest.raises(PortTaken, match="not an address of this machine"):
        ports.require_free("192.0.2.1:9000", "--bind")

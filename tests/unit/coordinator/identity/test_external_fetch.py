"""Where identity providers are asked, and how much of their answers is read."""

from __future__ import annotations

import httpx
import pytest

from coordinator.domains.identity import external_fetch
from coordinator.domains.identity.external_fetch import require_fetchable
from coordinator.domains.identity.external_proof import ProviderUnreachable

_REQUEST = httpx.Request("GET", "https://login.example.org/keys")


@pytest.mark.parametrize(
    "url",
    [
        "https://login.example.org/realms/main",
        "https://10.0.0.7:8443/",
        "http://localhost:8080/realms/main",
        "http://127.0.0.1:8080/",
        "http://[::1]/",
    ],
)
def test_https_is_asked_and_this_machine_by_http(url: str) -> None:
    require_fetchable(url, allow_insecure=False)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "login.example.org",
        "//login.example.org",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http://login.example.org",
        "http://localhost.example.org",
        "http://2130706433/",
        "https://user@login.example.org/",
        "https://user:word@login.example.org/",
        "https://login.example.org/#part",
        "https://169.254.169.254/",
        "https://[fe80::1]/",
        "https://[::ffff:169.254.169.254]/",
        "https://0.0.0.0/",
        "https://224.0.0.1/",
    ],
)
def test_everything_else_is_not(url: str) -> None:
    with pytest.raises(ValueError, match=r"https|link"):
        require_fetchable(url, allow_insecure=False)


def test_insecure_opens_http_and_nothing_more() -> None:
    require_fetchable("http://login.example.org", allow_insecure=True)
    for url in ("http://169.254.169.254/", "ftp://login.example.org/"):
        with pytest.raises(ValueError, match=r"https|link"):
            require_fetchable(url, allow_insecure=True)


def test_an_answer_that_trickles_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_fetch, "DEADLINE_SECONDS", -1.0)
    answer = httpx.Response(200, content=iter([b"{", b"}"]), request=_REQUEST)
    with pytest.raises(ProviderUnreachable, match="takes longer"):
        external_fetch._read(answer)


def test_an_answer_that_does_not_end_is_cut_off() -> None:
    def endless() -> object:
        while True:
            yield b" " * 65536

    answer = httpx.Response(200, content=endless(), request=_REQUEST)  # type: ignore[arg-type]
    with pytest.raises(ProviderUnreachable, match="answers with more than"):
        external_fetch._read(answer)

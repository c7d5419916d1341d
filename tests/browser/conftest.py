"""A whole Longshore started by `coordinator up`, and a real Chromium to look at it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.services import processes
from tests.services.ports import free_port

PASSWORD = "the admin of the browser"
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass(frozen=True)
class Running:
    """Where it listens, and a client that is logged in as the admin."""

    url: str
    flower: str
    http: httpx.Client

    @property
    def flower_login(self) -> tuple[str, str]:
        return "admin", PASSWORD


@pytest.fixture(scope="session")
def longshore() -> Iterator[Running]:
    home = processes.scratch_directory("browser")
    port, flower_port = free_port(), free_port()
    argv = [str(Path(sys.executable).parent / "coordinator"), "up", "--home", str(home), "--json"]
    argv += ["--bind", f"127.0.0.1:{port}", "--flower-port", str(flower_port), "--driver", "process"]
    env = {**os.environ, "LONGSHORE_ADMIN_PASSWORD": PASSWORD}
    child = processes.start(argv, env=env, log=home / "up.log")
    child.wait_until(lambda: _said_ready(child.output()), what="the line that says ready", seconds=90)
    http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
    login = http.post("/api/v1/auth/login", json={"email": "admin@localhost", "password": PASSWORD})
    http.headers["Authorization"] = f"Bearer {login.raise_for_status().json()['access_token']}"
    yield Running(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{flower_port}", http)
    http.close()
    child.stop(seconds=30)


def _said_ready(output: str) -> bool:
    return any(line.startswith("{") and "url" in json.dumps(json.loads(line)) for line in output.splitlines())


@pytest.fixture(scope="session")
def _chromium() -> Iterator[Browser]:
    path = os.environ.get("CHROMIUM_PATH") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


@dataclass(frozen=True)
class Looked:
    """A page, and everything that it asked for and complained about."""

    page: Page
    requests: list[str]
    complaints: list[str]


@pytest.fixture
def look(_chromium: Browser, longshore: Running) -> Iterator[Looked]:
    user, password = longshore.flower_login
    context = _chromium.new_context(http_credentials={"username": user, "password": password})
    page = context.new_page()
    seen = Looked(page, [], [])
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("console", lambda line: seen.complaints.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    yield seen
    context.close()

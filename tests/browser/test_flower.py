"""Flower in a real browser tells the truth about nodes and their tickets."""

from __future__ import annotations

from functools import partial
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Looked
from tests.services.longshore import Longshore
from tests.services.processes import wait_until


@pytest.fixture(scope="module")
def ended(longshore: Longshore) -> dict[str, Any]:
    """One execution that succeeded and one that failed: status → view."""
    views: dict[str, Any] = {}
    for status, script in (("completed", "echo fine"), ("failed", "exit 3")):
        body = {"name": f"flower-{status}", "runtime": "command", "retry": {"max_attempts": 1}}
        agent = longshore.http.post("/api/v1/agents", json=body).raise_for_status().json()
        url = f"/api/v1/agents/{agent['id']}/execute"
        made = longshore.http.post(url, json={"input": {"command": script}}).raise_for_status().json()
        views[status] = wait_until(partial(_ended, longshore, made["id"]), what="an end")
        assert views[status]["status"] == status
    return views


def _ended(longshore: Longshore, execution_id: str) -> dict[str, Any] | None:
    view: dict[str, Any] = longshore.http.get(f"/api/v1/executions/{execution_id}").raise_for_status().json()
    return view if view["status"] in ("completed", "failed", "cancelled") else None


def _task(longshore: Longshore, attempt_id: str) -> dict[str, Any] | None:
    answer = httpx.get(f"{longshore.flower}/api/task/info/{attempt_id}", auth=longshore.login)
    told: dict[str, Any] | None = answer.json() if answer.status_code == 200 else None
    return told if told and told["state"] in ("SUCCESS", "FAILURE") else None


def test_it_shows_how_tickets_ended_how_long_they_took_and_readable_arguments(
    longshore: Longshore, ended: dict[str, Any]
) -> None:
    for status, state in (("completed", "SUCCESS"), ("failed", "FAILURE")):
        (attempt,) = ended[status]["attempts"]
        told = wait_until(partial(_task, longshore, attempt["id"]), what="the ticket's end in Flower")
        assert told is not None
        assert told["state"] == state
        assert told["worker"] == f"{attempt['node_id']}@agents"
        assert told["runtime"] > 0
        assert f"flower-{status}" in told["args"]
        assert f"job={ended[status]['id']}" in told["args"]


def test_the_page_of_nodes_has_the_node_online(look: Looked, longshore: Longshore, ended: dict[str, Any]) -> None:
    look.page.goto(f"{longshore.flower}/workers")
    row = look.page.locator("tr", has_text=f"{ended['completed']['attempts'][0]['node_id']}@agents")
    expect(row).to_contain_text("Online")


def test_the_page_of_tickets_lists_them(look: Looked, longshore: Longshore, ended: dict[str, Any]) -> None:
    look.page.goto(f"{longshore.flower}/tasks")
    row = look.page.locator("tr", has_text=ended["completed"]["attempts"][0]["id"])
    expect(row).to_contain_text("SUCCESS")


def test_nobody_gets_in_without_the_login(longshore: Longshore, ended: dict[str, Any]) -> None:
    assert httpx.get(f"{longshore.flower}/api/workers").status_code == 401
    assert httpx.get(f"{longshore.flower}/workers").status_code == 401

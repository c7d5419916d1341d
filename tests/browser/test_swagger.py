"""Swagger UI in a real browser: it works offline, under a strict policy, and can be used."""

from __future__ import annotations

from playwright.sync_api import Locator, expect

from tests.browser.conftest import Looked
from tests.services.longshore import Longshore


def open_tag(look: Looked, longshore: Longshore, tag: str) -> Locator:
    """The page with the operations of one tag unfolded."""
    look.page.goto(f"{longshore.url}/swagger-ui/")
    section = look.page.locator(".opblock-tag-section", has=look.page.locator(f"#operations-tag-{tag}"))
    section.locator(".opblock-tag").click()
    expect(section.locator(".opblock").first).to_be_visible()
    return section


def test_it_shows_every_operation_of_the_document_and_asks_nobody_else(look: Looked, longshore: Longshore) -> None:
    section = open_tag(look, longshore, "tasks")
    document = longshore.http.get("/api-docs/openapi.json").json()
    promised = [
        operation
        for path in document["paths"].values()
        for operation in path.values()
        if isinstance(operation, dict) and "tasks" in operation.get("tags", [])
    ]
    expect(section.locator(".opblock")).to_have_count(len(promised))
    assert look.complaints == []
    outside = [url for url in look.requests if not url.startswith((longshore.url, "data:", "blob:"))]
    assert outside == []


def test_an_operation_can_be_tried_out(look: Looked, longshore: Longshore) -> None:
    section = open_tag(look, longshore, "system")
    block = section.locator(".opblock", has=look.page.locator('[data-path="/api/v0/version"]'))
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="Try it out").click()
    block.get_by_role("button", name="Execute").click()
    expect(block.locator(".live-responses-table .response-col_status").last).to_contain_text("200")
    assert look.complaints == []

"""The log-in page in a real browser: in, who one is, out; and nothing that its policy forbids."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.browser.conftest import Looked
from tests.services.longshore import Longshore

CALL = """async ([method, path, token]) => {
    const headers = token ? {"X-CSRF-Token": token, "Content-Type": "application/json"} : {};
    const body = method === "POST" ? JSON.stringify({name: `browser-${Date.now()}`}) : undefined;
    return (await fetch(path, {method, headers, body})).status;
}"""


def fill(page: Page, user: str, password: str) -> None:
    page.get_by_label("Name or e-mail address").fill(user)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def status_of(page: Page, method: str, path: str, token: str | None = None) -> int:
    """What a script of a page of ours gets for a call."""
    return int(page.evaluate(CALL, [method, path, token]))


def test_somebody_comes_in_sees_who_they_are_and_goes_out(look: Looked, longshore: Longshore) -> None:
    page, (user, password) = look.page, longshore.login
    page.goto(f"{longshore.url}/login")
    fill(page, user, "not the password")
    expect(page.get_by_role("alert")).to_contain_text("did not work")
    fill(page, user, password)
    expect(page.locator("#who")).to_contain_text("admin")
    assert page.context.cookies()[0]["httpOnly"]
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Password")).to_be_visible()
    page.goto(f"{longshore.url}/login")
    expect(page.get_by_label("Password")).to_be_visible()
    outside = [url for url in look.requests if not url.startswith((longshore.url, "data:"))]
    assert outside == []
    # A browser itself says that the first try was answered with 401.
    assert [text for text in look.complaints if "401" not in text] == []


def test_a_script_of_ours_reads_with_the_cookie_and_writes_with_its_token(look: Looked, longshore: Longshore) -> None:
    page, (user, password) = look.page, longshore.login
    page.goto(f"{longshore.url}/login")
    fill(page, user, password)
    expect(page.locator("#who")).to_be_visible()
    token = page.locator("meta[name=csrf-token]").get_attribute("content")
    # The policy of the log-in page lets no script call anywhere; the Swagger UI's does.
    page.goto(f"{longshore.url}/swagger-ui/")
    assert status_of(page, "GET", "/api/v1/agents") == 200
    assert status_of(page, "POST", "/api/v1/agents") == 403
    assert status_of(page, "POST", "/api/v1/agents", token) == 201


def test_it_goes_where_it_was_asked_to_and_nowhere_else(look: Looked, longshore: Longshore) -> None:
    page, (user, password) = look.page, longshore.login
    page.goto(f"{longshore.url}/login?next=/swagger-ui/")
    fill(page, user, password)
    expect(page).to_have_url(f"{longshore.url}/swagger-ui/")
    page.context.clear_cookies()
    page.goto(f"{longshore.url}/login?next=//evil.example/")
    fill(page, user, password)
    expect(page).to_have_url(f"{longshore.url}/login")


def test_it_works_without_scripts(look: Looked, longshore: Longshore) -> None:
    user, password = longshore.login
    browser = look.page.context.browser
    assert browser is not None
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{longshore.url}/login")
        fill(page, user, password)
        expect(page.locator("#who")).to_contain_text("admin")

"""The documentation is true where a program can tell: links, generated pages, calls, metrics, commands, files."""

from __future__ import annotations

import ast
import io
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from coordinator.app import create_app, domain_slices
from coordinator.config import load_settings
from coordinator.domains.identity import service as identity
from coordinator.http.slice import PREFIXES
from coordinator.resources import Resources, make_resources
from coordinator.store import migrate
from scripts.reference_pages import PAGES, described_variables
from tests.commands import refusal_of

ROOT = Path(__file__).parents[2]
DECISIONS = ROOT / "docs/decisions"
ADRS = sorted(DECISIONS.glob("[0-9]*.md"))
PAGES_OF_OURS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
LONGEST_DECISION = 60


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _every_page(*, without: tuple[str, ...] = ()) -> Any:
    pages = [path for path in PAGES_OF_OURS if _name(path) not in without]
    return pytest.mark.parametrize("page", pages, ids=map(_name, pages))


# ---- pages that follow from the code


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_generated_page_is_what_the_code_says(name: str) -> None:
    # When this fails: .venv/bin/python -m scripts.reference_pages
    assert (ROOT / name).read_text() == PAGES[name]()


# ---- links


def _prose(path: Path) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def _links(path: Path) -> Iterator[str]:
    yield from re.findall(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)\)", _prose(path))


@cache
def _anchors(path: Path) -> frozenset[str]:
    """The anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#{1,6} (.+)$", _prose(path), flags=re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles)


@_every_page()
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in _links(page):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        found = (page.parent / target).resolve() if target else page
        if not found.exists() or (anchor and anchor not in _anchors(found)):
            broken.append(link)
    assert broken == []


@_every_page(without=("README.md", "CHANGELOG.md"))
def test_every_page_can_be_found_from_another(page: Path) -> None:
    linked = {
        (other.parent / link.partition("#")[0]).resolve()
        for other in PAGES_OF_OURS
        if other != page
        for link in _links(other)
        if not re.match(r"[a-z]+:", link)
    }
    assert page in linked or page.parent in linked


# ---- what pages name


@_every_page()
def test_files_that_pages_name_exist(page: Path) -> None:
    tops = "scripts|deploy|docs|coordinator|worker|shared|tests"
    named = re.findall(rf"(?<![\w/.-])((?:{tops})/[\w./@-]*\w)", _prose(page))
    missing = [
        name for name in named if not any((base / name).exists() for base in (ROOT, ROOT / "coordinator/domains"))
    ]
    assert missing == []


@_every_page()
def test_variables_that_pages_name_exist(page: Path) -> None:
    known = {item.name for item in described_variables((ROOT / "deploy/env.example").read_text())}
    named = set(re.findall(r"\b(?:LONGSHORE_(?!TEST_)|FLOWER_)[A-Z0-9_]+\b", page.read_text()))
    assert {name for name in named if not {name, name.removesuffix("_FILE")} & known} == set()


@_every_page()
def test_commands_that_pages_name_exist(page: Path) -> None:
    named = re.findall(r"`((?:coordinator|worker) [a-z][a-z -]*[a-z])`", _prose(page))
    assert [refusal for words in sorted(set(named)) if (refusal := refusal_of(shlex.split(words)))] == []


@cache
def _routes() -> frozenset[tuple[str, str]]:
    """Methods and paths that are served, placeholders as `*`."""
    return frozenset(
        (endpoint.method, re.sub(r"<[^>]+>", "*", f"{PREFIXES[version]}{endpoint.path}"))
        for one in domain_slices()
        for endpoint in one.endpoints
        for version in endpoint.versions
    )


@_every_page(without=("docs/adding-an-endpoint.md",))
def test_endpoints_that_pages_name_are_served(page: Path) -> None:
    named = re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[^`?\s]+)[^`]*`", _prose(page))
    assert [
        (method, path) for method, path in named if (method, re.sub(r"\{[^}]+\}", "*", path)) not in _routes()
    ] == []


# ---- metrics


@cache
def _metrics() -> frozenset[str]:
    """The names of metrics in the coordinator's code, counters as Prometheus shows them."""
    found: set[str] = set()
    for path in (ROOT / "coordinator").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            name = node.args[0].value
            if isinstance(name, str) and re.fullmatch(r"longshore_[a-z_]+", name):
                found.add(f"{name}_total" if ast.unparse(node.func).endswith("Counter") else name)
    return frozenset(found)


def test_the_metrics_on_the_page_are_those_that_exist() -> None:
    page = (ROOT / "docs/running-in-production.md").read_text()
    assert set(re.findall(r"\blongshore_[a-z_]+\b", page)) == _metrics()


# ---- decisions


def test_decisions_are_numbered_without_a_gap() -> None:
    assert [int(path.name[:4]) for path in ADRS] == list(range(1, len(ADRS) + 1))


@pytest.mark.parametrize("page", ADRS, ids=map(_name, ADRS))
def test_a_decision_is_a_page_with_context_decision_and_consequences(page: Path) -> None:
    text = page.read_text()
    assert text.startswith(f"# {int(page.name[:4])}. ")
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == ["Context", "Decision", "Consequences"]
    assert len(text.splitlines()) <= LONGEST_DECISION


@pytest.mark.parametrize("page", ADRS, ids=map(_name, ADRS))
def test_a_decision_is_listed_under_its_own_title(page: Path) -> None:
    title = page.read_text().splitlines()[0].partition(". ")[2]
    assert f"| [{page.name[:4]}]({page.name}) | {title} |" in (DECISIONS / "README.md").read_text()


# ---- the calls of the README


@dataclass
class Shell:
    """As much of a shell as the README's calls need: variables, and curl against an app in this process."""

    client: FlaskClient
    variables: dict[str, str] = field(default_factory=dict)
    answers: list[tuple[str, int, Any]] = field(default_factory=list)

    def run(self, line: str) -> None:
        if found := re.fullmatch(r"(\w+)=\$\((curl .*?) \| field (\w+)\)", line, flags=re.DOTALL):
            self.variables[found[1]] = str(self._curl(found[2])[found[3]])
        elif line.startswith("curl "):
            self._curl(line)
        elif found := re.fullmatch(r"(\w+)=(\S+)", line):
            self.variables.setdefault(found[1], found[2])
        else:
            assert line.startswith("field()"), f"cannot read {line!r}"

    def _curl(self, line: str) -> Any:
        words = [self._filled(word) for word in shlex.split(line)[1:]]
        method, url, options = "GET", "", _Options()
        words.remove("-s")
        while words:
            word = words.pop(0)
            if word.startswith("-"):
                options.add(word, words.pop(0))
                method = "POST" if word in ("-d", "-F") else method
            else:
                url = word
        answer = self._ask(method, url, options)
        self.answers.append((f"{method} {url}", answer.status_code, answer.get_json(silent=True)))
        return answer.get_json()

    def _ask(self, method: str, url: str, options: _Options) -> TestResponse:
        path = url.removeprefix("http://127.0.0.1:9000")
        return self.client.open(path, method=method, headers=options.headers, data=options.data)

    def _filled(self, word: str) -> str:
        return re.sub(r"\$(\w+)", lambda found: self.variables[found[1]], word)


@dataclass
class _Options:
    headers: dict[str, str] = field(default_factory=dict)
    data: Any = None

    def add(self, name: str, value: str) -> None:
        match name:
            case "-H":
                key, _, text = value.partition(": ")
                self.headers[key] = text
            case "-d":
                self.data = value
            case "-F":
                key, _, path = value.partition("=@")
                self.data = {key: (io.BytesIO((ROOT / path).read_bytes()), path)}
            case _:
                raise AssertionError(f"curl {name} is not known here")


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[tuple[Resources, str]]:
    """A coordinator on SQLite with its first admin, and the admin's password; no broker."""
    settings = load_settings(home=tmp_path, password_cost="low", redis_url="redis://127.0.0.1:1/0")
    resources = make_resources(settings)
    migrate.upgrade(resources.database)
    with resources.database.write() as tx:
        identity.ensure_admin(tx, settings)
    yield resources, settings.admin_password.get_secret_value()
    resources.database.dispose()
    resources.redis.close()


def _readme_calls() -> list[str]:
    text = (ROOT / "README.md").read_text().partition("## Try it with curl")[2]
    block = re.findall(r"^```sh\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)[0]
    block = re.sub(r"^#.*\n", "", block, flags=re.MULTILINE).replace("\\\n", " ")
    # A statement ends where its quotes are closed.
    return [part.strip() for part in re.split(r"\n(?=[A-Z]+=|curl |field\(\))", block) if part.strip()]


def test_the_readmes_calls_are_answered_as_it_says(installation: tuple[Resources, str]) -> None:
    resources, password = installation
    shell = Shell(create_app(resources, check_replies=True).test_client(), {"PASSWORD": password})

    for line in _readme_calls():
        # Its first line reads the password from a file of the quickstart's.
        if not line.startswith("PASSWORD="):
            shell.run(line)

    assert [status for _, status, _ in shell.answers] == [200, 201, 201, 201, 200, 200], shell.answers
    events, task = shell.answers[-2][2], shell.answers[-1][2]
    assert [event["type"] for event in events["events"]] == ["job.queued"]
    assert _of(task, "id", "status", "hold_reason") == {
        "id": shell.variables["TASK"],
        "status": "assigned",
        "hold_reason": None,
    }
    assert task["input_files"] == [shell.variables["FILE"]]


def _of(value: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value[name] for name in names}

"""Promises about the code base as a whole: who may import whom, what no file may contain, what is pinned."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import TypeGuard

import grimp
import pytest
from importlinter.cli import lint_imports
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.import_contracts import Trespass, find_trespasses

ROOT = Path(__file__).parents[1]
PACKAGES = ("coordinator", "worker", "shared")
LONGEST_MODULE = 600
READERS_OF_THE_ENVIRONMENT = {
    "coordinator/config.py": "the coordinator's settings",
    "worker/config.py": "the worker's settings",
    "coordinator/http/metrics.py": "prometheus_client takes its shared directory from the environment alone",
}
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}

# What makes a clone work on one machine only, or choose where packages come from instead of the user.
FORBIDDEN_TEXT = re.compile(
    rf"(?:--|pip_)(?:extra[-_])?index[-_]url|/home/\w+/|/root/\.\w+|{re.escape(str(ROOT))}/", re.IGNORECASE
)

# Required, though no module of ours imports them: each is used in the way that is said here.
USED_WITHOUT_IMPORT = {
    "flower": "started as a process",
    "gunicorn": "started as a process",
    "hiredis": "the parser that redis picks up by itself",
    "psycopg": "the driver that SQLAlchemy loads by name",
}


@cache
def _files(*patterns: str) -> tuple[str, ...]:
    """Files that are in the repository or about to be, as paths from its root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return tuple(sorted(name for name in set(listed) if (ROOT / name).is_file()))


def _ours() -> tuple[str, ...]:
    return tuple(name for name in _files("*.py") if name.startswith(PACKAGES))


@cache
def _tree(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(), name)


# ---- who imports whom


def test_the_import_contracts_hold() -> None:
    assert lint_imports(config_filename=str(ROOT / "setup.cfg"), no_cache=True) == 0


def test_reaching_into_another_domains_store_is_a_trespass() -> None:
    graph = grimp.ImportGraph()
    graph.add_import(
        importer="top.domains.a.service", imported="top.domains.b.store.rows", line_number=7, line_contents="import"
    )
    for module in ("top.domains", "top.domains.b", "top.domains.b.store"):
        graph.add_module(module)

    found = find_trespasses(graph, parent="top.domains", private=frozenset({"store", "models"}))

    assert found == [Trespass("top.domains.a.service", "top.domains.b.store.rows", (7,))]


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("top.domains.b.service", "top.domains.b.store"),
        ("top.domains.a.service", "top.domains.b.service"),
        ("top.store.migrate", "top.domains.b.models"),
    ],
    ids=["its own store", "another domain's service", "from outside the domains"],
)
def test_other_imports_of_a_domain_are_no_trespass(importer: str, imported: str) -> None:
    graph = grimp.ImportGraph()
    graph.add_module("top.domains")
    graph.add_import(importer=importer, imported=imported, line_number=1, line_contents="import")

    assert find_trespasses(graph, parent="top.domains", private=frozenset({"store", "models"})) == []


# ---- texts


def test_no_module_is_too_long_to_read() -> None:
    lengths = {name: len((ROOT / name).read_text().splitlines()) for name in _files("*.py")}
    assert {name: length for name, length in lengths.items() if length > LONGEST_MODULE} == {}


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [name for name in _files("*.py") if Path(name).stem in EMPTY_NAMES] == []


def test_no_file_names_a_path_of_one_machine_or_a_package_registry() -> None:
    found = []
    for name in _files():
        if name == "tests/test_architecture.py":
            continue
        text = (ROOT / name).read_bytes().decode(errors="replace")
        found += [f"{name}: {match.group()}" for match in FORBIDDEN_TEXT.finditer(text)]
    assert found == []


def test_only_the_config_modules_read_the_environment() -> None:
    found = [
        f"{name}:{node.lineno}"
        for name in _ours()
        if name not in READERS_OF_THE_ENVIRONMENT
        for node in ast.walk(_tree(name))
        if _reads_environment(node)
    ]
    assert found == []


def _reads_environment(node: ast.AST) -> TypeGuard[ast.Attribute | ast.ImportFrom]:
    names = {"environ", "environb", "getenv", "getenvb", "putenv"}
    if isinstance(node, ast.Attribute):
        return isinstance(node.value, ast.Name) and node.value.id == "os" and node.attr in names
    return isinstance(node, ast.ImportFrom) and node.module == "os" and any(alias.name in names for alias in node.names)


def test_tests_wait_for_signals_and_never_sleep() -> None:
    # Those two hold the loops by which everything else waits, and the measurements.
    free = ("tests/services/", "tests/bench/")
    found = [
        f"{name}:{node.lineno}"
        for name in _files("tests/*.py")
        if not name.startswith(free)
        for node in ast.walk(_tree(name))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("time.sleep", "sleep")
    ]
    assert found == []


# ---- dependencies


@cache
def _setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def _requirements(section: str, option: str) -> list[Requirement]:
    return [Requirement(line) for line in _setup()[section][option].strip().splitlines()]


def _pins() -> dict[str, str]:
    lines = (ROOT / "deploy/constraints.txt").read_text().splitlines()
    pinned = (Requirement(line) for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(pin.name): str(pin.specifier) for pin in pinned}


@pytest.mark.parametrize(
    ("section", "option"), [("options", "install_requires"), ("options.extras_require", "test")], ids=["run", "test"]
)
def test_every_requirement_is_pinned_as_in_the_constraints(section: str, option: str) -> None:
    pins = _pins()
    wrong = {
        str(requirement): pins.get(canonicalize_name(requirement.name))
        for requirement in _requirements(section, option)
        if pins.get(canonicalize_name(requirement.name)) != str(requirement.specifier)
    }
    assert wrong == {}


def test_everything_installed_for_longshore_is_pinned_and_of_the_pinned_version() -> None:
    pins = _pins()
    roots = [*_requirements("options", "install_requires"), *_requirements("options.extras_require", "test")]
    installed = {name: f"=={version}" for name, version in _closure(roots).items()}
    assert {name: version for name, version in installed.items() if pins.get(name) != version} == {}


def _closure(roots: list[Requirement]) -> dict[str, str]:
    """Name and version of what is installed because of `roots`, directly or not."""
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(root, extra) for root in roots for extra in ("", *root.extras)]
    while waiting:
        requirement, extra = waiting.pop()
        key = (canonicalize_name(requirement.name), extra)
        if key in seen:
            continue
        seen.add(key)
        try:
            package = distribution(requirement.name)
        except PackageNotFoundError:
            found[key[0]] = "(not installed)"
            continue
        found[key[0]] = package.version
        for line in package.requires or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(needed, wanted) for wanted in ("", *needed.extras)]
    return found


def test_what_the_code_imports_is_required() -> None:
    assert set(_imported_distributions()) - _required() - _optional() == set()


def test_what_is_required_is_used() -> None:
    assert _required() - set(_imported_distributions()) - set(USED_WITHOUT_IMPORT) == set()


def _required() -> set[str]:
    return {canonicalize_name(each.name) for each in _requirements("options", "install_requires")}


def _optional() -> set[str]:
    """What extras for users bring."""
    extras = [name for name in _setup()["options.extras_require"] if name != "test"]
    return {canonicalize_name(each.name) for extra in extras for each in _requirements("options.extras_require", extra)}


def _imported_distributions() -> Iterator[str]:
    owners = packages_distributions()
    for name in _ours():
        for module in _imported_modules(_tree(name)):
            top = module.split(".")[0]
            if top not in PACKAGES and top in owners:
                yield canonicalize_name(owners[top][0])


def _imported_modules(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module

"""Writes the pages of docs/ that follow from the code: states, settings, errors, rights.

.venv/bin/python -m scripts.reference_pages            writes them
.venv/bin/python -m scripts.reference_pages --check    only tells whether they are up to date
"""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import pkgutil
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_origin

import annotated_types
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

import coordinator.config
import coordinator.domains
import shared.errors
import worker.computer.contract
import worker.config
from coordinator.domains.queue.states import JobState
from coordinator.domains.tasks.states import execution_status, task_status
from scripts import rights_table
from shared.errors import CODES, LongshoreError
from shared.lifecycle import Lifecycle

ROOT = Path(__file__).resolve().parents[1]
ENV_EXAMPLE = ROOT / "deploy/env.example"
PREFIX = "LONGSHORE_"
NOTICE = "<!-- Written by scripts/reference_pages.py; change the code it names, then run it. -->"


# ---- states


def states_page() -> str:
    """Every lifecycle with its picture and what its states mean, and the words people read for a job's state."""
    sections = [_lifecycle_section(life, module) for life, module in sorted(_lifecycles(), key=lambda it: it[0].name)]
    return _page(
        "States",
        "What a thing can be, and what it can become. A move that is not in a picture is refused by the code: "
        "the pictures are drawn from the tables that it asks (`Lifecycle` in `shared/lifecycle.py`).",
        *sections,
        _words_section(),
    )


def _lifecycles() -> Iterator[tuple[Lifecycle[Any], ModuleType]]:
    for found in pkgutil.iter_modules(coordinator.domains.__path__, "coordinator.domains."):
        name = f"{found.name}.states"
        if importlib.util.find_spec(name) is not None:
            module = importlib.import_module(name)
            yield from ((value, module) for value in vars(module).values() if isinstance(value, Lifecycle))


def _lifecycle_section(life: Lifecycle[Any], module: ModuleType) -> str:
    states = list(life.moves)
    meanings = _meanings(module, type(states[0]))
    arrows = [f"    [*] --> {states[0]}"]
    arrows += [f"    {state} --> {target}" for state in states for target in states if target in life.moves[state]]
    arrows += [f"    {state} --> [*]" for state in states if state in life.terminal]
    picture = "\n".join(["```mermaid", "stateDiagram-v2", *arrows, "```"])
    rows = [(f"`{state}`", meanings.get(str(state), "—")) for state in states]
    source = f"From `{module.__name__.replace('.', '/')}.py`."
    return "\n\n".join([f"## {life.name.capitalize()}", source, picture, _table(("state", "meaning"), rows)])


def _meanings(module: ModuleType, states: type[StrEnum]) -> dict[str, str]:
    """What is written below each member of the enum."""
    tree = ast.parse(inspect.getsource(module))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == states.__name__)
    found: dict[str, str] = {}
    for member, below in itertools.pairwise(body):
        if isinstance(member, ast.Assign) and isinstance(member.targets[0], ast.Name) and (text := _text(below)):
            found[member.targets[0].id] = text
    return found


def _text(node: ast.stmt) -> str | None:
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return " ".join(node.value.value.split()) if is_text else None  # type: ignore[attr-defined]


def _words_section() -> str:
    rows = [(f"`{state}`", _task_words(state), f"`{execution_status(state)}`") for state in JobState]
    return "\n\n".join(
        [
            "## What people read",
            "A task or an execution stores no status of its own; it is told from its job each time it is asked for.",
            _table(("job", "task", "execution"), rows),
        ]
    )


def _task_words(state: JobState) -> str:
    with_agent, without = task_status(state, has_agent=True), task_status(state, has_agent=False)
    return f"`{with_agent}`" if with_agent == without else f"`{with_agent}`; without an agent `{without}`"


# ---- settings


@dataclass(frozen=True, slots=True)
class Described:
    """One variable as deploy/env.example has it."""

    name: str
    section: str
    text: str
    shown: str


def described_variables(text: str) -> Iterator[Described]:
    """The variables of an example file, each with the comment right above it and the section it stands in."""
    section = ""
    comment: list[str] = []
    for line in text.splitlines():
        if line.startswith("## "):
            section = line[3:].strip()
        elif found := re.match(r"#?([A-Z][A-Z0-9_]+)=(.*)$", line):
            yield Described(found[1], section, " ".join(comment), found[2])
            continue
        elif line.startswith("# "):
            comment.append(line[2:].strip())
            continue
        comment = []


def settings_page() -> str:
    """Every variable: what for, of what kind, and what it is unless given."""
    classes = (coordinator.config.Settings, worker.config.Settings)
    fields = {f"{PREFIX}{name.upper()}": field for cls in classes for name, field in cls.model_fields.items()}
    defaults = {name: _default(cls, name) for cls in classes for name in cls.model_fields}
    sections: dict[str, list[tuple[str, ...]]] = {}
    for item in described_variables(ENV_EXAMPLE.read_text()):
        if field := fields.get(item.name):
            default = defaults[item.name.removeprefix(PREFIX).lower()]
            row = (f"`{item.name}`", _cell(item.text), _kind(field), default)
            sections.setdefault(item.section, []).append(row)
    header = ("variable", "what it says", "kind", "default")
    return _page(
        "Settings",
        "Processes are set up by environment variables alone. Each may come from a file instead: "
        "`LONGSHORE_SECRET_KEY_FILE=/run/secrets/key` takes the value from there. A wrong value stops the process at "
        "its start and names the variable. Options of the commands win over variables.",
        *(f"## {title}\n\n{_table(header, rows)}" for title, rows in sections.items()),
    )


def _kind(field: FieldInfo) -> str:
    words: dict[Any, str] = {
        bool: "true or false",
        int: "whole number",
        float: "number",
        dict: "NAME=VALUE, …",
        Path: "path",
    }
    kinds = [kind for kind in (get_args(field.annotation) or (field.annotation,)) if kind is not type(None)]
    if get_origin(field.annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(field.annotation))
    first = get_origin(field.annotation) if get_origin(field.annotation) is dict else kinds[0]
    word = "secret" if first is SecretStr else words.get(first, "text")
    limits = [limit for rule in field.metadata if (limit := _limit(rule))]
    return ", ".join([word, *limits])


def _limit(rule: object) -> str | None:
    if isinstance(rule, annotated_types.Ge):
        return f"at least {rule.ge}"
    if isinstance(rule, annotated_types.Le):
        return f"at most {rule.le}"
    return f"more than {rule.gt}" if isinstance(rule, annotated_types.Gt) else None


def _default(cls: type[BaseSettings], name: str) -> str:
    field = cls.model_fields[name]
    if field.default_factory is not None:
        return {"home": "`~/.longshore`", "node_name": "the host's name"}.get(name, "—")
    value = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
    return "—" if value in (None, "") else f"`{str(value).lower() if isinstance(value, bool) else value}`"


# ---- errors


def errors_page() -> str:
    """Every code that the API answers with, and every code that a failed attempt may carry."""
    example = textwrap.dedent("""\
        ```json
        {
          "error": {
            "code": "VALIDATION_ERROR",
            "message": "limit: must be between 1 and 200",
            "details": {"field": "limit", "reason": "must be between 1 and 200"}
          }
        }
        ```""")
    return _page(
        "Errors",
        "Every error of the API has this one shape. `code` is for programs and never changes its meaning, `message` is "
        "for people and may. `details` depends on the code.",
        example,
        f"## Codes of the API\n\n{_table(('code', 'status', 'again?', 'meaning'), list(_api_rows()))}",
        "`again?` says whether the very same request may succeed later; `Retry-After` says when. A 500 shows the "
        "request's id and nothing else; the log has the rest under that id. A resource in a space that you may "
        "not see is a 404.",
        "## Codes of computers\n\nAn attempt that ended because of its computer carries one of these in `error.code`. "
        "Work that a job did itself ends with the codes of its runtime.\n\n"
        + _table(("code", "again?", "meaning"), list(_computer_rows())),
    )


def _api_rows() -> Iterator[tuple[str, ...]]:
    by_code: dict[str, type[LongshoreError]] = {}
    for cls in _family(LongshoreError):
        if cls.__module__ == shared.errors.__name__:
            by_code.setdefault(cls.code, cls)
    for code, status in sorted(CODES.items(), key=lambda item: (item[1], item[0])):
        known = by_code.get(code)
        yield f"`{code}`", str(status), _again(known), _API_WORDS.get(code) or _first_line(known)


_API_WORDS = {
    "METHOD_NOT_ALLOWED": "The path exists, but not with this method; `Allow` names those it has.",
    "INTERNAL_ERROR": "A fault of ours. `details.request_id` finds it in the log.",
}


def _computer_rows() -> Iterator[tuple[str, ...]]:
    for cls in _family(worker.computer.contract.ComputerError):
        if cls.__module__ == worker.computer.contract.__name__:
            yield f"`{cls.code}`", _again(cls), _first_line(cls)


def _family(cls: type[LongshoreError]) -> Iterator[type[LongshoreError]]:
    yield cls
    for found in cls.__subclasses__():
        yield from _family(found)


def _again(cls: type[LongshoreError] | None) -> str:
    return "yes" if cls is not None and cls.retryable else "no"


def _first_line(cls: type[LongshoreError] | None) -> str:
    return _cell((inspect.getdoc(cls) or "").partition("\n")[0]) if cls is not None else ""


# ---- rights


def rights_page() -> str:
    """Every endpoint against every built-in role."""
    titles = {"v1": "Version 1: `/api/v1`", "v0": "Version 0: `/api/v0`", "root": "At the root"}
    tables = [
        f"## {title}\n\n{_table(rights_table.header(), list(rights_table.rows(version)))}"
        for version, title in titles.items()
    ]
    return _page(
        "Rights",
        "Who may call what, as the declarations of the endpoints and the table of roles have it "
        "(`coordinator/domains/identity/rights.py`). A test plays this page against the running application.",
        "Roles are held by bindings, everywhere or in one space. Several add up; none takes anything away.",
        _table(("role", "what it is for"), list(rights_table.role_rows())),
        "- `yes`: whoever holds the role everywhere, or in the space that the call is about. `all`: only whoever holds "
        "it everywhere, as this is about more than one space. `–`: nobody by this role; the answer is 403.\n"
        "- Whoever does not reach a space gets 404 for every call about it and for every id in it: what they may not "
        "know of looks like what is not there. The space `default` is known to everybody; without a role in it the "
        "answer is 403.\n"
        "- `anybody` is a call without a credential; where it may not, the answer is 401.\n"
        "- `node` is a worker with its own credential, which may speak for itself alone; `token` an enrolment token.\n"
        "- A role with rules of its own grants the rights it names, in the same words as the column `right`. An API "
        "key may at most what its owner may, and what its scopes name. `account` is one's own: everybody who can log "
        "in has it.",
        *tables,
    )


# ---- pages


def _page(title: str, *parts: str) -> str:
    return "\n\n".join([NOTICE, f"# {title}", *parts]) + "\n"


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


PAGES: Mapping[str, Callable[[], str]] = {
    "docs/errors.md": errors_page,
    "docs/rights.md": rights_page,
    "docs/settings.md": settings_page,
    "docs/states.md": states_page,
}


def main(arguments: list[str]) -> int:
    stale = [name for name, page in PAGES.items() if not _is_current(name, page())]
    if "--check" in arguments:
        for name in stale:
            sys.stderr.write(f"{name} is out of date; run: python -m scripts.reference_pages\n")
        return 1 if stale else 0
    for name in stale:
        (ROOT / name).write_text(PAGES[name]())
        sys.stderr.write(f"wrote {name}\n")
    return 0


def _is_current(name: str, text: str) -> bool:
    path = ROOT / name
    return path.is_file() and path.read_text() == text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

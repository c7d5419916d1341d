"""The catalogue of the audit trail."""

from __future__ import annotations

import re
from pathlib import Path

from coordinator.domains.identity.audit_actions import ACTIONS

ROOT = Path(__file__).parents[4]
PAGE = ROOT / "docs/audit.md"
CATALOGUE = ROOT / "coordinator/domains/identity/audit_actions.py"


def test_every_action_is_a_noun_and_what_happened_to_it() -> None:
    assert [action for action in ACTIONS if not re.fullmatch(r"[a-z_]+\.[a-z_]+", action)] == []
    assert list(ACTIONS) == sorted(ACTIONS)


def test_every_action_is_explained_on_its_page() -> None:
    explained = dict(re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \| (.+) \|$", PAGE.read_text(), flags=re.MULTILINE))
    assert explained == ACTIONS


def test_every_action_is_recorded_by_somebody() -> None:
    code = "".join(path.read_text() for path in (ROOT / "coordinator").rglob("*.py") if path != CATALOGUE)
    assert [action for action in ACTIONS if f'"{action}"' not in code] == []

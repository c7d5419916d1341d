"""Schemathesis against the document we publish: no 5xx, and no answer that the document does not promise."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from coordinator.domains.identity.rights import Role
from coordinator.domains.queue import leadership
from coordinator.resources import Resources
from tests.factories.people import credentials_of, make_person

EXAMPLES = 8
NOT_HERE = (
    # Who may do what is tried endpoint by endpoint in test_rights.py.
    ignored_auth,
    # A body may fit its schema and still name an agent that is not there.
    positive_data_acceptance,
)


@pytest.fixture
def document(app: Flask) -> Any:
    return schemathesis.openapi.from_wsgi("/api-docs/openapi.json", app)


@pytest.fixture(autouse=True)
def _a_leader(resources: Resources) -> None:
    """Readiness promises 503 only while something is missing; here nothing is."""
    with resources.database.write() as tx:
        leadership.campaign(tx, holder="the test", seconds=1e6)


@pytest.fixture
def admin(app: Flask, resources: Resources) -> dict[str, str]:
    return credentials_of(app, make_person(resources.database, role=Role.ADMIN))


def test_every_answer_is_one_that_the_document_promises(
    document: Any, admin: dict[str, str], subtests: pytest.Subtests
) -> None:
    for found in document.get_all_operations():
        operation = found.ok()
        with subtests.test(operation=operation.label):
            _try(operation, admin)


def _try(operation: Any, headers: dict[str, str]) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def attempt(case: Any) -> None:
        answer = case.call(headers=headers)
        case.validate_response(answer, excluded_checks=NOT_HERE)

    attempt()

"""The stacks that rows share. No job may die here of bad luck alone, so the limits on losses are out of reach."""

from __future__ import annotations

from tests.faults.stack import Plan

PATIENT = (
    ("LONGSHORE_INFRA_MAX_ATTEMPTS", "100"),
    ("LONGSHORE_POISON_LOSSES", "100"),
)

ON_SQLITE = Plan(settings=PATIENT)
ON_POSTGRESQL = Plan(database="postgresql", dispatchers=2, settings=PATIENT)

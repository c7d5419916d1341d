"""The stacks that rows share. No job may die here of bad luck alone, so the limits on losses are out of reach."""

from __future__ import annotations

from tests.faults.stack import Plan
from tests.faults.tempo import Tempo

PATIENT = (
    ("LONGSHORE_INFRA_MAX_ATTEMPTS", "100"),
    ("LONGSHORE_POISON_LOSSES", "100"),
)

ON_SQLITE = Plan(settings=(*PATIENT, ("LONGSHORE_BREAKER_RECOVERY_CAP_SECONDS", "5")))
"""A breaker probes again soon, however often it did in vain: there are more probes, and the end comes sooner."""
ON_DOCKER = Plan(driver="docker", nodes=2, slots=2, settings=PATIENT, tempo=Tempo(1.0))
"""As fast as life: a daemon must be able to come back within a lease, and its start does not scale."""
ON_NETWORKS = Plan(is_networked=True, settings=PATIENT)
WITH_CLOCKS = Plan(has_shifted_clocks=True, settings=PATIENT)
WITH_DISKS = Plan(has_small_disks=True, nodes=2, settings=PATIENT)
STRICT = Plan(settings=(("LONGSHORE_INFRA_MAX_ATTEMPTS", "100"), ("LONGSHORE_REDRIVE_PER_SECOND", "200")))
"""The rule about poison as it is by default."""
ON_POSTGRESQL = Plan(database="postgresql", dispatchers=2, settings=(*PATIENT, ("LONGSHORE_REDRIVE_PER_SECOND", "200")))

"""What happens to the queue leaves its rows in the audit trail: breakers, dead letters, pauses."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from coordinator.domains.queue import redriving
from coordinator.domains.queue import service as queue
from coordinator.resources import Resources
from coordinator.store.database import Database
from shared.clock import FrozenClock
from shared.ids import new_id
from tests.factories.breakers import MODEL, Site
from tests.factories.fleet import new_job
from tests.factories.trail import trail_of
from tests.factories.work import told


@pytest.fixture
def site(app: Flask, client: FlaskClient, resources: Resources) -> Site:
    return Site.make(app, client, resources)


def kill(resources: Resources, count: int) -> list[str]:
    """So many dead jobs of nobody's."""
    made = [new_job(agent_id=None, retry={"max_attempts": 1}) for _ in range(count)]
    with resources.database.write() as tx:
        queue.submit(tx, resources, made)
        for job in made:
            queue.resolve(tx, job.id, succeeded=False, by="somebody", error={"code": "X", "message": "it broke"})
    return [job.id for job in made]


def actions(database: Database) -> list[str]:
    return [row["action"] for row in trail_of(database) if row["action"] != "key.used"]


def test_what_a_breaker_does_by_itself_is_told_with_its_cause(
    site: Site, database: Database, clock: FrozenClock
) -> None:
    site.charge(count=5)

    (row,) = trail_of(database, action="breaker.opened")
    assert (row["actor_kind"], row["actor_name"], row["resource_id"]) == ("system", "coordinator", MODEL)
    assert (row["before"]["state"], row["after"]["state"]) == ("closed", "open")
    assert "5 failures within 120 s" in row["message"]


def test_what_admins_do_to_a_breaker_is_told_once_and_as_theirs(site: Site, database: Database) -> None:
    told(site.admin.post("/circuit-breakers", {"name": MODEL, "failure_threshold": 9}), status=201)
    site.command("force-open", reason="an outage")
    site.command("force-close")
    site.command("reset")

    assert actions(database) == [
        "breaker.configured",
        "breaker.forced_open",
        "breaker.forced_closed",
        "breaker.reset",
    ]
    rows = trail_of(database, resource_type="breaker")
    assert {(row["resource_id"], row["actor_id"]) for row in rows} == {(MODEL, site.admin.id)}
    assert (rows[0]["after"], rows[1]["after"]) == ({"failure_threshold": 9, "is_new": True}, {"reason": "an outage"})


def test_sending_one_dead_letter_round_again_or_letting_it_go_is_told(
    site: Site, database: Database, resources: Resources
) -> None:
    first, second = kill(resources, 2)
    told(site.admin.post(f"/dead-letter/{first}/retry", {}))
    assert site.admin.delete(f"/dead-letter/{second}").status_code == 204

    assert [(row["action"], row["resource_id"]) for row in trail_of(database, resource_type="dead_letter")] == [
        ("dead_letter.redriven", first),
        ("dead_letter.dismissed", second),
    ]


def test_sending_all_round_again_is_told_with_their_number_and_in_their_transaction(
    site: Site, database: Database, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(resources, 3)

    def breaks(*_: Any, **__: Any) -> int:
        raise RuntimeError("in the middle")

    monkeypatch.setattr(redriving, "redrive", breaks)
    assert site.admin.post("/dead-letter/retry-all", {}).status_code == 500
    monkeypatch.undo()
    told(site.admin.post("/dead-letter/retry-all", {}))

    failed, done = trail_of(database, action="dead_letter.redriven_all")
    assert (failed["outcome"], done["outcome"]) == ("failed", "done")
    assert done["after"] == {"count": 3, "wanted": {}}


def test_sending_none_round_again_is_an_act_too(site: Site, database: Database) -> None:
    told(site.admin.post("/dead-letter/retry-all", {}))
    (row,) = trail_of(database, action="dead_letter.redriven_all")
    assert row["after"]["count"] == 0


def test_dead_letters_that_grow_old_are_told_of_by_the_coordinator(
    database: Database, resources: Resources, clock: FrozenClock
) -> None:
    kill(resources, 2)
    clock.advance(10 * 86400)
    with database.write() as tx:
        redriving.prune(tx, days=7)

    (row,) = trail_of(database)
    assert (row["action"], row["actor_kind"], row["after"]["count"]) == ("dead_letter.pruned", "system", 2)


def test_pauses_are_told(site: Site, database: Database, app: Flask) -> None:
    agent = site.admin.agent(runtime="echo")
    for path in ("/workers", "/workers/groups/gpu", f"/workers/{site.node.id}", f"/agents/{agent['id']}"):
        told(site.admin.post(f"{path}/pause", {"reason": "a disk"} if "agents" not in path else {}))
        told(site.admin.post(f"{path}/resume", {}))

    assert actions(database) == [
        f"{noun}.{verb}" for noun in ("fleet", "group", "worker", "agent") for verb in ("paused", "resumed")
    ]
    by_group = trail_of(database, resource_type="group")
    assert [row["resource_id"] for row in by_group] == ["gpu", "gpu"]


def test_an_act_on_what_is_not_there_leaves_nothing(site: Site, database: Database) -> None:
    assert site.admin.post(f"/dead-letter/{new_id()}/retry", {}).status_code == 404
    assert actions(database) == []

"""Plays schedules: some time in which anything may go wrong, then everything heals and has to come to its end."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from sqlalchemy import Index
from sqlalchemy.schema import CreateIndex, DropIndex, ExecutableDDLElement
from structlog.testing import capture_logs

from coordinator.config import Settings, load_settings
from shared.clock import FrozenClock
from tests.faults.model import invariants, steps
from tests.faults.model.broker import Mood
from tests.faults.model.entropy import played
from tests.faults.model.focus import EVEN, Focus
from tests.faults.model.invariants import Violation
from tests.faults.model.mishaps import mishaps
from tests.faults.model.reader import ENDED, Reader
from tests.faults.model.stage import Stage, StagedDatabase
from tests.faults.model.steps import Step
from tests.faults.model.world import Told, World
from tests.services import processes
from tests.services.databases import DatabaseSite

STEPS = 160
STEPS_WHEN_OVERLAPPING = 450
"""There a call is several steps."""
ROUNDS = 40
ROUND_SECONDS = 1.2
"""So many rounds of so long are enough for everything to come to its end once all is healed."""
STEPS_IN_A_ROUND = 400
SHARE_OF_BURNT = 0.6
"""In so many schedules one machine never comes back."""
PAUSES = (0.02, 0.1, 0.3, 0.5)
BRISK = {
    "heartbeat_seconds": 1.0,
    "heartbeat_misses": 3,
    "lease_seconds": 4.0,
    "leader_seconds": 1.2,
    "sweep_seconds": 0.5,
    "republish_seconds": 0.9,
    "unpublished_seconds": 0.3,
    "max_publishes": 2,
    "retry_base_seconds": 0.2,
    "retry_cap_seconds": 2.0,
    "infra_max_attempts": 12,
    "poison_losses": 12,
    "canary_seconds": 2.0,
    "node_broker_logins": "shared",
}
"""Every time is scaled down alike; a job survives so many losses because there are so many here."""


class Playhouse:
    """A database of one kind, and what else schedules share."""

    def __init__(self, site: DatabaseSite) -> None:
        self._site = site
        self._stage = Stage()
        url = site.database.url.render_as_string(hide_password=False)
        self._database = StagedDatabase(url, clock=FrozenClock(), stage=self._stage)
        self._settings = _settings(url)
        self._missing: Index | None = None

    @contextmanager
    def without_index(self, index: Index) -> Iterator[None]:
        """Within the block schedules begin with a database that has not got this index."""
        self._missing = index
        try:
            yield
        finally:
            self._missing = None
            if self._database.is_sqlite:
                self._database.dispose()
            self._site.reset()
            self._define(CreateIndex(index, if_not_exists=True))

    def _define(self, statement: ExecutableDDLElement) -> None:
        with self._database.engine.begin() as conn:
            conn.execute(statement)

    def close(self) -> None:
        self._database.dispose()

    def play(self, seed: int, *, overlaps: bool = False, focus: Focus = EVEN) -> Told:
        """One schedule from an empty database; the same seed is the same schedule. Ends at the first violation."""
        if self._database.is_sqlite:
            self._database.dispose()
        self._site.reset()
        if self._missing is not None:
            self._define(DropIndex(self._missing, if_exists=True))
        clock = self._database.clock = FrozenClock()
        self._stage.dice_of_nobody = random.Random(f"{seed} of nobody")
        with Reader(self._site.database.url) as reader, played(clock, lambda: self._stage.dice), capture_logs():
            world = World(
                seed,
                settings=self._settings,
                database=self._database,
                stage=self._stage,
                clock=clock,
                reader=reader,
                overlaps=overlaps,
                focus=focus,
            )
            _play(world)
        world.told.trace = world.readable(world.told.trace)
        return world.told


def _settings(url: str) -> Settings:
    made = load_settings(
        home=processes.scratch_directory("model"),
        database_url=url,
        redis_url="redis://model.invalid:6379/0",
        secret_key="model-" + "0" * 42,
        admin_password="the admin of the model",
        password_cost="low",
    )
    return made.model_copy(update={name: value for name, value in BRISK.items() if name in Settings.model_fields})


def _play(world: World) -> None:
    for act in (_let_chaos_reign, _heal, _come_to_the_end, _judge):
        act(world)
        if world.told.violations:
            break
    if world.strands is not None:
        _finish_strands(world)
    world.told.ends.update(job.state for job in world.picture.jobs.values())


def _let_chaos_reign(world: World) -> None:
    kinds = (steps.going_on, steps.of_people, mishaps)
    for _ in range(STEPS if world.strands is None else STEPS_WHEN_OVERLAPPING):
        time = Step(_weight_of_time(world), "time passes", _passing(world))
        _take_one(world, [time, *(step for kind in kinds for step in kind(world))])
        if world.told.violations:
            return


def _weight_of_time(world: World) -> float:
    """Calls that overlap are many steps each, and as much has to happen in a second."""
    return 8.0 if world.strands is None else 3.0


def _passing(world: World) -> Callable[[], None]:
    return lambda: world.advance(world.dice.choice(PAUSES))


def _take_one(world: World, found: Iterable[Step]) -> Step:
    choices = list(found)
    weights = [step.weight * world.focus.factor(step.name) for step in choices]
    chosen = world.dice.choices(choices, weights)[0]
    world.do(chosen.name, chosen.act)
    return chosen


def _heal(world: World) -> None:
    """Everybody but one machine is there again, nothing breaks any more; people want no more than was asked already."""
    world.note("everything heals")
    world.is_breaking = False
    world.broker.mood = Mood.well
    for chief in world.chiefs:
        if not chief.is_alive:
            chief.start()
        chief.is_paused = False
    if world.dice.random() < SHARE_OF_BURNT:
        max(world.nodes, key=lambda node: len(node.daemon.held) if node.daemon else 0).burn()
    for node in world.nodes:
        node.is_cut_off = node.is_deaf = node.is_paused = False
        if node.is_gone:
            world.note(f"{node.name} is gone for good")
        elif node.daemon is None or node.daemon.is_draining:
            node.kill()
            node.start(world.now)


def _come_to_the_end(world: World) -> None:
    for _ in range(ROUNDS):
        _administer(world)
        _play_round(world)
        if world.told.violations or _is_over(world):
            return
        world.do("time passes", lambda: world.advance(ROUND_SECONDS))


def _administer(world: World) -> None:
    """Let every node work again, and say of a machine that is gone that it is, once somebody waits for that word."""
    asked = [(node_id, what) for node_id in world.reader.shut_out() for what in ("approve", "resume")]
    asked = [(node_id, what) for node_id, what in asked if not world.node(node_id).is_gone]
    asked += [(node_id, "fence") for node_id in sorted(world.reader.awaited_nodes()) if world.node(node_id).is_gone]
    for node_id, what in asked:
        if world.has_room:
            world.do(f"{what} {node_id}", partial(steps.change, world, world.node(node_id), what))


def _play_round(world: World) -> None:
    """Everybody does what there is to do, until nothing is left but waiting."""
    taken: Counter[str] = Counter()
    for _ in range(STEPS_IN_A_ROUND):
        found = [
            step
            for step in steps.going_on(world)
            if step.most_in_a_round is None or taken[step.name] < step.most_in_a_round
        ]
        if not found or world.told.violations:
            return
        taken[_take_one(world, found).name] += 1


def _is_over(world: World) -> bool:
    there = [node.daemon for node in world.nodes if not node.is_gone]
    idle = all(daemon and not daemon.held and not daemon.claiming for daemon in there)
    ended = all(job.state in ENDED for job in world.picture.jobs.values())
    return idle and ended and not world.orders and not world.busy and not any(world.ledger.running())


def _judge(world: World) -> None:
    picture, reader = world.picture, world.reader
    found = [*invariants.at_the_end(picture, reader.history(), world.ledger.containers)]
    found += [
        Violation("I1 what was answered is there", job_id) for job_id in sorted(world.accepted - set(picture.jobs))
    ]
    found += invariants.results(picture, reader.results())
    found += invariants.orders(reader.orders(), world.asked)
    world.blame(found)


def _finish_strands(world: World) -> None:
    """Leave no thread behind: what is in motion comes to its end, whatever it does."""
    strands = world.strands
    assert strands is not None
    while strands.all:
        if movable := strands.movable():
            strands.go_on(movable[0])
        else:
            strands.untangle()
        strands.take_finished()

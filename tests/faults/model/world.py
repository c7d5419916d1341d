"""Everything there is in one schedule: who is there, what they ask of the coordinator, and the judge of every step."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from coordinator.config import Settings
from coordinator.resources import make_resources
from shared.clock import FrozenClock
from tests.faults.model import people
from tests.faults.model.broker import DirectLine, SimulatedBroker
from tests.faults.model.focus import Focus
from tests.faults.model.invariants import Bounds, Promises, Violation, after_step
from tests.faults.model.ledger import Ledger
from tests.faults.model.node import LIGHT_SLOTS, SLOTS, Parcel, SimulatedNode
from tests.faults.model.office import Chief, Desk, Order, is_foreseen
from tests.faults.model.reader import Picture, Reader
from tests.faults.model.stage import Call, Died, Done, Failed, Fate, Outcome, Stage, StagedDatabase, Where
from tests.faults.model.strands import Strands

NODES = ("n1", "n2", "n3")
SHARE_OF_BROKEN_CALLS = 0.1
MOST_OVERLAPPING = 4
STATEMENTS = 8
"""A call that breaks before a statement breaks before one of so many."""


@dataclass(slots=True)
class Told:
    """What came of a schedule."""

    seed: int
    steps: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)


class World:
    """The parts, and how they are moved: `do` takes one step, `call` lets the coordinator do something within it."""

    def __init__(
        self,
        seed: int,
        *,
        settings: Settings,
        database: StagedDatabase,
        stage: Stage,
        clock: FrozenClock,
        reader: Reader,
        overlaps: bool,
        focus: Focus,
    ) -> None:
        self.dice = random.Random(seed)
        self.told = Told(seed)
        self.focus = focus
        self.clock, self._stage, self.reader = clock, stage, reader
        self.broker = SimulatedBroker(lambda: stage.dice)
        self._resources = make_resources(
            settings,
            database=database,
            clock=clock,
            redis=self.broker.client,
            signals=DirectLine(self.broker.client),
            nudge=lambda _reason: None,
        )
        # Nobody follows timelines here.
        database.bell = None
        self.desk = Desk(self._resources)
        self.ledger = Ledger()
        self.promises = Promises()
        self.picture = Picture()
        self.is_breaking = True
        """Whether calls may break."""
        self.busy: set[str] = set()
        """Whose call is in motion."""
        self.strands = Strands(stage, reader, hanging=focus.hanging) if overlaps else None
        self._finished: list[Call] = []
        self._has_written = False
        """Whether this step wrote past the coordinator."""
        self._names: dict[str, str] = {}
        self._populate()

    def _populate(self) -> None:
        self.chiefs = [Chief(name, self._resources) for name in ("d1", "d2")]
        self.nodes = [self._node(name) for name in NODES]
        self.parcels: list[Parcel] = []
        self.orders: dict[str, Order] = {}
        """Not answered yet."""
        self._made_orders = 0
        self.asked: dict[str, int] = {}
        """How many jobs each order asks for."""
        self.accepted: set[str] = set()
        """What clients were told is accepted."""
        for agent, most in people.AGENTS.items():
            self.desk.open_lane(agent, most)
        places = ((True, SLOTS), (False, LIGHT_SLOTS))
        slots = {(node.id, kind): count for node in self.nodes for kind, count in places}
        self._bounds = Bounds(slots, {agent: most for agent, most in people.AGENTS.items() if most is not None})

    def _node(self, name: str) -> SimulatedNode:
        node_id, credential = self.desk.enrol(name, {"place": "here"} if name != NODES[-1] else {})
        self._names[node_id] = name
        node = SimulatedNode(
            name=name,
            node_id=node_id,
            credential=credential,
            adopts=self.dice.random() < 0.6,
            broker=self.broker,
            ledger=self.ledger,
            dice=self.dice,
        )
        node.start(self.now)
        return node

    @property
    def now(self) -> float:
        return self.clock.monotonic()

    @property
    def has_room(self) -> bool:
        """Whether the coordinator can begin another call now."""
        return self.strands is None or len(self.strands.all) < MOST_OVERLAPPING

    def node(self, node_id: str) -> SimulatedNode:
        return next(node for node in self.nodes if node.id == node_id)

    def next_number(self) -> int:
        self._made_orders += 1
        return self._made_orders

    # -- moving

    def do(self, name: str, act: Callable[[], object]) -> None:
        """Take one step, and judge what it did."""
        self.told.steps += 1
        self.note(f"{self.now:7.2f} {name}")
        act()
        if self.strands is not None:
            self._finished += self.strands.take_finished()
        if self._finished or self._has_written:
            self.look()
            self._has_written = False
        finished, self._finished = self._finished, []
        for call in finished:
            self._over(call)

    def call(self, name: str, who: str, work: Callable[[], Any], done: Callable[[Outcome], None]) -> None:
        """Let the coordinator do something for `who`: now, or beside what else it does."""
        dice = random.Random(self.dice.getrandbits(64))
        fate = self._fate(dice) if self.is_breaking and dice.random() < SHARE_OF_BROKEN_CALLS else Fate()
        call = Call(name, work, done, dice, fate)
        call.who = who
        self.busy.add(who)
        if self.strands is None:
            self._stage.play(call)
            self._finished.append(call)
        else:
            self.strands.begin(call)

    def advance(self, seconds: float) -> None:
        """Let time pass: containers work, daemons watch their leases."""
        self.clock.advance(seconds)
        for container in self.ledger.running():
            container.work(seconds)
        for node in self.nodes:
            node.tick(self.now)

    def _fate(self, dice: random.Random) -> Fate:
        where = dice.choices((Where.statement, Where.commit, Where.publish), (3, 1, 2))[0]
        return Fate(where, is_crash=dice.random() < 0.6, after_statements=dice.randrange(STATEMENTS))

    def _over(self, call: Call) -> None:
        outcome = call.outcome
        assert outcome is not None
        self.busy.discard(call.who)
        if call.fate.has_struck:
            self.told.faults[f"{'crash' if call.fate.is_crash else 'broken connection'} at {call.fate.aimed}"] += 1
        if isinstance(outcome, Failed) and not is_foreseen(call.name, outcome.error):
            self.blame([Violation("no call fails without a cause", f"{call.name}: {outcome.error!r}")])
        if isinstance(outcome, Failed) and "deadlock" in repr(getattr(outcome.error, "details", "")):
            self.blame([Violation("no two calls wait for each other", call.name)])
        if not isinstance(outcome, Done):
            self.note(f"        {call.name}: {'died' if isinstance(outcome, Died) else repr(outcome.error)}")
        call.done(outcome)

    # -- judging

    def look(self) -> None:
        """See what is committed, and judge it."""
        before, self.picture = self.picture, self.reader.picture()
        self._name_new()
        self._trace_changes(before)
        self.blame(after_step(before, self.picture, self._bounds))

    def wrote(self) -> None:
        """This step wrote to the database past the coordinator."""
        self._has_written = True

    def blame(self, found: Any) -> None:
        for violation in found:
            self.told.violations.append(violation)
            self.note(f"  VIOLATION {violation}")

    def note(self, line: str) -> None:
        self.told.trace.append(line)

    def readable(self, lines: Sequence[str]) -> list[str]:
        """The lines with short names in the place of ids."""
        text = "\n".join(lines)
        for key, name in self._names.items():
            text = text.replace(key, name)
        return text.split("\n")

    def _name_new(self) -> None:
        for job_id in self.picture.jobs:
            self._names.setdefault(job_id, f"j{len(self._names) - len(NODES) + 1}")
        for attempt in self.picture.attempts.values():
            self._names.setdefault(attempt.id, f"{self._names[attempt.job_id]}/{attempt.number}")

    def _trace_changes(self, before: Picture) -> None:
        kinds: Any = ((before.jobs, self.picture.jobs), (before.attempts, self.picture.attempts))
        for old, new in kinds:
            for row in new.values():
                was = old[row.id].state if row.id in old else None
                if was != row.state:
                    self.note(f"        {row.id} {was} -> {row.state} {row.reason or ''}")

"""Placement: many waiting jobs get their nodes in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.domains.queue import decisions, moves, waiting
from coordinator.domains.queue.gate import ALL_CLOSED, Gate, gate
from coordinator.domains.queue.rows import Job
from coordinator.domains.queue.waiting import OUTLOOK, Busy, Wish
from coordinator.store.database import Transaction
from shared.ids import new_id
from shared.policy.fairness import Entry, Line, Sharing, Turns
from shared.policy.placement import NodeFacts, Room, candidates, why_none

__all__ = ["OUTLOOK", "Placed", "Ticket", "place"]

LEAST_WINDOW = 16
NO_ROOM = "no_room: every node that fits is full"


@dataclass(frozen=True, slots=True)
class Ticket:
    """What the relay publishes: ids and words for people, nothing else."""

    attempt_id: str
    job_id: str
    number: int
    node_id: str
    agent: str
    takes_slot: bool


@dataclass(frozen=True, slots=True)
class Placed:
    """The outcome of one round: tickets to publish, and whether there may be more to place at once."""

    tickets: Sequence[Ticket]
    is_full_batch: bool


@dataclass(frozen=True, slots=True)
class _Head:
    """A job that stands at the front of its line, with the name of its agent for the ticket."""

    job: Job
    agent: str


def place(tx: Transaction, nodes: Sequence[NodeFacts], *, batch: int, sharing: Sharing | None = None) -> Placed:
    """Place as many ready jobs as there is room for, in the order that `shared.policy.fairness` gives.

    `sharing` is what the caller keeps from round to round; without it every round stands alone.
    """
    wishes = waiting.wishes(tx)
    passes = gate(tx) if any(wish.some_are_open for wish in wishes) else ALL_CLOSED
    reasons = {wish.demand_id: _closed(wish, nodes, passes) for wish in wishes}
    able = [wish for wish in wishes if reasons[wish.demand_id] is None]
    this = _Round(tx, nodes, able, batch, sharing or Sharing(), passes)
    this.run()
    waiting.tell_reasons(tx, wishes, reasons | this.reasons())
    moves.apply(tx, this.made)
    passes.reserve(tx)
    return Placed([_ticket(move, this.agents[move.after.id]) for move in this.made], this.may_go_on)


def _closed(wish: Wish, nodes: Sequence[NodeFacts], passes: Gate) -> str | None:
    """Why nothing of this demand can be placed whatever room there is; None when it can."""
    if not passes.admits(wish.depends_on):
        return passes.held(wish.depends_on)
    if candidates(wish.needs, passes.open_nodes(nodes)):
        return None
    return passes.held_nodes(wish.needs, nodes) or why_none(wish.needs, nodes)


def _ticket(move: moves.Move, agent: str) -> Ticket:
    attempt = move.attempt_after
    assert attempt is not None
    return Ticket(attempt.id, attempt.job_id, attempt.number, attempt.node_id, agent, attempt.takes_slot)


class _Round:
    """One round of placement: the room, what lanes and spaces allow, and what was placed so far."""

    def __init__(
        self,
        tx: Transaction,
        nodes: Sequence[NodeFacts],
        wishes: Sequence[Wish],
        batch: int,
        sharing: Sharing,
        passes: Gate,
    ) -> None:
        self._tx = tx
        self._nodes = nodes
        self._gate = passes
        self._room = Room(passes.open_nodes(nodes))
        self._wishes = wishes
        self._batch = batch
        self._sharing = sharing
        self._busy = self._read_busy()
        self._lines: dict[str, Line[_Head]] = {}
        self._full_reads: set[str] = set()
        self.made: list[moves.Move] = []
        self.agents: dict[str, str] = {}

    @property
    def may_go_on(self) -> bool:
        """Whether another round at once may find more to place."""
        return len(self.made) >= self._batch or any(self._lines[demand].is_empty for demand in self._full_reads)

    def run(self) -> None:
        self._read_lines()
        by_line = {id(self._lines[wish.demand_id]): wish for wish in self._wishes if wish.demand_id in self._lines}
        turns = Turns(
            self._lines.values(),
            self._sharing,
            now_ms=self._now_ms,
            places={kind: self._room.places(kind) for kind in (True, False)},
            busy=self._busy.by_agent,
        )
        while len(self.made) < self._batch and (line := turns.next()) is not None:
            if self._place_head(by_line[id(line)], line.head.item):
                turns.took(line)
            else:
                turns.close(line)

    def reasons(self) -> dict[str, str | None]:
        """Why what is left of the demands still waits, as far as this round found out."""
        return {wish.demand_id: self._why_left(wish) for wish in self._wishes}

    @property
    def _now_ms(self) -> int:
        return int(self._tx.now.timestamp() * 1000)

    def _read_busy(self) -> Busy:
        agents = {wish.agent_id for wish in self._wishes}
        is_limited = self._sharing.space_max_active or any(wish.max_active is not None for wish in self._wishes)
        return waiting.busy(self._tx) if len(agents) > 1 or is_limited else Busy()

    def _read_lines(self) -> None:
        """The first jobs of every demand, locked, leaving out what others hold.

        Where many agents wait none of them gets a whole batch; reading that much of each would be wasted.
        """
        open_now = [wish for wish in self._wishes if self._left_for(wish) > 0]
        window = self._batch if len(open_now) == 1 else max(LEAST_WINDOW, 2 * self._batch // max(1, len(open_now)))
        for wish in open_now:
            # One more than can be placed: whether something is left decides what those who wait are told.
            most = min(self._batch, window, self._left_for(wish)) + 1
            found = waiting.heads(self._tx, wish.demand_id, most)
            entries = [Entry(rank, job.id, _ms(job), _Head(job, agent)) for job, agent, rank in found]
            self._lines[wish.demand_id] = Line(wish.agent_id, entries, takes_slot=wish.needs.takes_slot)
            if len(found) == most:
                self._full_reads.add(wish.demand_id)

    def _place_head(self, wish: Wish, head: _Head) -> bool:
        if self._lane_left(wish) <= 0 or self._space_left(wish) <= 0 or not self._gate.admits(wish.depends_on):
            return False
        node = self._room.take(wish.needs)
        if node is None:
            return False
        takes_slot, now = wish.needs.takes_slot, self._tx.now
        move = decisions.place(head.job, node, attempt_id=new_id(self._now_ms), takes_slot=takes_slot, now=now)
        self.made.append(move)
        if move.attempt_after is not None and self._gate.take(wish.depends_on, node.id, move.attempt_after.id):
            self._room.close(node.id)
        self.agents[head.job.id] = head.agent
        self._busy.add(wish)
        return True

    def _left_for(self, wish: Wish) -> int:
        most = min(self._room.total(wish.needs), self._lane_left(wish), self._space_left(wish))
        return self._gate.most(wish.depends_on, most)

    def _lane_left(self, wish: Wish) -> int:
        return self._batch if wish.max_active is None else wish.max_active - self._busy.of_agent(wish.agent_id)

    def _space_left(self, wish: Wish) -> int:
        most = self._sharing.space_max_active
        return most - self._busy.of_space(wish.space) if most else self._batch

    def _why_left(self, wish: Wish) -> str | None:
        line = self._lines.get(wish.demand_id)
        if line is not None and line.is_empty:
            return None
        if self._lane_left(wish) <= 0:
            return f"agent_limit: its agent runs as many jobs at a time as it may ({wish.max_active})"
        if self._space_left(wish) <= 0:
            most = self._sharing.space_max_active
            return f"space_limit: space {wish.space} runs as many jobs at a time as it may ({most})"
        if held := self._gate.held(wish.depends_on):
            return held
        if self._room.total(wish.needs) <= 0:
            return self._gate.held_nodes(wish.needs, self._nodes) or NO_ROOM
        return None


def _ms(job: Job) -> int:
    return int(job.created_at.timestamp() * 1000)

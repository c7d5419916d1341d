"""What can happen next: the steps of everybody, each with how likely it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from tests.faults.model import invariants, people
from tests.faults.model.invariants import Violation
from tests.faults.model.node import Held, Parcel, SimulatedNode
from tests.faults.model.office import Chief
from tests.faults.model.reader import ENDED
from tests.faults.model.stage import Done, Outcome
from tests.faults.model.world import World


class Step(NamedTuple):
    """Something that can happen next."""

    weight: float
    name: str
    act: Callable[[], object]
    most_in_a_round: int | None = None
    """How often it is worth doing once all is healed; None for what ends by itself."""


MOST_ORDERS = 9


def going_on(world: World) -> Iterator[Step]:
    """The steps of those who do their work: with these alone everything comes to its end."""
    if world.strands is not None:
        for strand in world.strands.movable():
            yield Step(strand.pace, f"{strand.call.name} goes on", partial(world.strands.go_on, strand))
        if world.strands.all and not world.strands.movable():
            yield Step(1.0, "all wait for each other", world.strands.untangle)
    if world.has_room:
        for chief in world.chiefs:
            yield from _of_chief(world, chief)
        for parcel in world.parcels:
            yield from _of_parcel(world, parcel)
        for order in world.orders.values():
            if order.key not in world.busy:
                yield Step(2.0, f"client sends {order.key}", partial(_submit, world, order.key))
    for node in world.nodes:
        yield from _of_node(world, node)


# ---- dispatchers


def _of_chief(world: World, chief: Chief) -> Iterator[Step]:
    if not chief.acts or chief.name in world.busy:
        return
    yield Step(1.0, f"{chief.name} leads or campaigns", partial(_lead, world, chief), 1)
    if chief.unpublished:
        yield Step(6.0, f"{chief.name} publishes", partial(_publish, world, chief))
    elif chief.leads:
        yield Step(3.0, f"{chief.name} places", partial(_place, world, chief), 2)
    if chief.leads:
        yield Step(2.0, f"{chief.name} repairs", partial(_repair, world, chief), 4)


def _lead(world: World, chief: Chief) -> None:
    world.call(f"lead {chief.name}", chief.name, chief.lead, chief.after)


def _place(world: World, chief: Chief) -> None:
    if chief.can_place():
        world.call(
            f"lead {chief.name} place",
            chief.name,
            chief.place,
            partial(_led, world, chief, (chief.holder, world.clock.now())),
        )


def _repair(world: World, chief: Chief) -> None:
    duties = chief.duties()
    name, perform = duties[chief.next_duty % len(duties)]
    chief.next_duty += 1
    world.call(
        f"lead {chief.name} {name}", chief.name, perform, partial(_led, world, chief, (chief.holder, world.clock.now()))
    )


def _led(world: World, chief: Chief, term: tuple[tuple[str, int] | None, datetime], outcome: Outcome) -> None:
    """A write that went through was made by who led at its commit, in a term that had not run out when it began."""
    holder, began = term
    until = world.picture.led_until
    if isinstance(outcome, Done) and (world.picture.leader != holder or until is None or until < began):
        told = f"{holder} wrote, {world.picture.leader} leads until {until}, and it is {began}"
        world.blame([Violation("only who leads writes as a leader", told)])
    chief.after(outcome)


def _publish(world: World, chief: Chief) -> None:
    if not chief.publish():
        world.note("        refused by the broker")


# ---- requests


def _of_parcel(world: World, parcel: Parcel) -> Iterator[Step]:
    name = f"{parcel.kind} of {parcel.epoch}"
    if parcel.outcome is not None:
        yield Step(5.0, f"{name} is answered", partial(_answer, world, parcel))
    elif parcel.key not in world.busy:
        yield Step(5.0, f"{name} arrives", partial(_arrive, world, parcel))


def _arrive(world: World, parcel: Parcel) -> None:
    node = world.node(parcel.node)
    work = partial(world.desk.beat if parcel.kind == "beat" else world.desk.sync, node.credential, parcel.body)
    world.call(f"{parcel.kind} {node.name}", parcel.key, work, partial(_served, world, parcel))


def _served(world: World, parcel: Parcel, outcome: Outcome) -> None:
    if isinstance(outcome, Done) and parcel.kind == "sync":
        world.blame(world.promises.judge(parcel.body, outcome.value, world.picture))
    parcel.outcome = outcome
    if not parcel.is_awaited and parcel in world.parcels:
        world.parcels.remove(parcel)


def _answer(world: World, parcel: Parcel) -> None:
    world.parcels.remove(parcel)
    if parcel.is_awaited:
        world.node(parcel.node).receive(parcel, world.now)


def _submit(world: World, key: str) -> None:
    order = world.orders[key]
    world.call(f"submit {key}", key, partial(world.desk.submit, order), partial(_submitted, world, key))


def _submitted(world: World, key: str, outcome: Outcome) -> None:
    """A client that gets its answer is content; now and then the answer is lost, and it asks again."""
    if isinstance(outcome, Done) and not (world.is_breaking and world.dice.random() < 0.15):
        world.accepted.update(outcome.value)
        world.orders.pop(key, None)


# ---- nodes


def _of_node(world: World, node: SimulatedNode) -> Iterator[Step]:
    if node.wants_ticket() and not world.broker.is_empty(node.id):
        yield Step(4.0, f"{node.name} takes a ticket", partial(_take, world, node))
    if node.wants_beat(world.now):
        yield Step(4.0, f"{node.name} beats", partial(_send, world, node, node.send_beat))
    if node.wants_sync():
        yield Step(5.0, f"{node.name} syncs", partial(_send, world, node, node.send_sync))
    for held in node.startable():
        yield Step(4.0, f"{node.name} starts {held.attempt}", partial(_start, world, node, held))
    for held in node.endable():
        yield Step(4.0, f"{node.name} ends {held.attempt}", partial(node.end, held))


def _take(world: World, node: SimulatedNode) -> None:
    popped = node.take()
    if popped is not None:
        world.note(f"        {popped.attempt}")


def _send(world: World, node: SimulatedNode, send: Callable[[float], Parcel]) -> None:
    parcel = send(world.now)
    if node.is_cut_off:
        node.give_up(parcel)
    else:
        world.parcels.append(parcel)


def _start(world: World, node: SimulatedNode, held: Held) -> None:
    container = node.start_container(held)
    world.blame(invariants.beside(container, world.ledger.running(), world.picture))


# ---- people


def of_people(world: World) -> Iterator[Step]:
    """What people do while all is as it should be, and while it is not."""
    if len(world.asked) < MOST_ORDERS:
        yield Step(4.0, "a client has work", partial(_order, world))
    if not world.has_room:
        return
    unfinished = [job.id for job in world.picture.jobs.values() if job.state not in ENDED]
    if unfinished:
        yield Step(0.6, "somebody cancels", partial(_cancel, world, unfinished))
    for node in world.nodes:
        yield Step(0.1, f"{node.name} is cut off by an admin", partial(change, world, node, "withdraw"))
        yield Step(0.4, f"{node.name} is approved", partial(change, world, node, "approve"))
        yield Step(0.1, f"{node.name} is to drain", partial(change, world, node, "drain"))
        yield Step(0.3, f"{node.name} is to resume", partial(change, world, node, "resume"))


def _order(world: World) -> None:
    order = people.order(world.next_number(), world.dice, world.clock.now())
    world.orders[order.key] = order
    world.asked[order.key] = len(order.jobs)


def _cancel(world: World, among: list[str]) -> None:
    job_id = world.dice.choice(among)
    world.call(f"cancel {job_id}", f"cancel {job_id}", partial(world.desk.cancel, job_id), partial(_cancelled, world))


def _cancelled(world: World, outcome: Outcome) -> None:
    if isinstance(outcome, Done) and outcome.value not in ("cancelled", "cancelling"):
        world.blame([Violation("a cancel that was answered counts", f"the job is {outcome.value}")])


def change(world: World, node: SimulatedNode, what: str) -> None:
    work: Any = {
        "withdraw": partial(world.desk.approve, node.id, is_approved=False),
        "approve": partial(world.desk.approve, node.id, is_approved=True),
        "drain": partial(world.desk.drain, node.id, is_draining=True),
        "resume": partial(world.desk.drain, node.id, is_draining=False),
        "fence": partial(world.desk.fence, node.id),
    }[what]
    world.told.faults[what] += 1
    who = f"{what} {node.name}"
    if who not in world.busy:
        world.call(who, who, work, lambda outcome: None)

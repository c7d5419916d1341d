"""What should not happen, and does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from tests.faults.model.invariants import Violation
from tests.faults.model.node import Daemon, Parcel, SimulatedNode
from tests.faults.model.office import Chief
from tests.faults.model.reader import LIVE
from tests.faults.model.stage import Done, Outcome
from tests.faults.model.steps import Step
from tests.faults.model.world import World


def mishaps(world: World) -> Iterator[Step]:
    """The steps of bad luck."""
    for node in world.nodes:
        yield from _mishaps_of_node(world, node)
    for parcel in world.parcels:
        if parcel.is_awaited:
            # What a claim's lost answer does is worth seeing more often than what a heartbeat's does.
            likely = 2.0 if parcel.outcome is not None and parcel.body.get("claims") else 0.5
            yield Step(likely, f"{parcel.kind} of {parcel.epoch} is lost", partial(_lose, world, parcel))
            yield Step(0.5, f"{parcel.epoch} gives up its {parcel.kind}", partial(_give_up, world, parcel))
        if parcel.outcome is None and parcel.kind == "sync" and parcel.is_awaited:
            again = _counted(world, "request doubled", partial(_double, world, parcel))
            yield Step(0.8, f"{parcel.kind} of {parcel.epoch} is sent twice", again)
    for chief in world.chiefs:
        yield from _mishaps_of_chief(world, chief)
    for mood in type(world.broker.mood):
        if mood is not world.broker.mood:
            likely = 0.8 if mood == "well" else 0.15
            yield Step(likely, f"the broker is {mood}", _counted(world, f"broker {mood}", partial(_turn, world, mood)))
    yield Step(0.25, "the broker is wiped", _counted(world, "broker wiped", world.broker.wipe))
    live = [attempt.job_id for attempt in world.picture.attempts.values() if attempt.state in LIVE]
    if live and not (world.strands and world.strands.all):
        yield Step(0.5, "a stray statement", _counted(world, "stray statement", partial(_stray, world, live)))


def _mishaps_of_node(world: World, node: SimulatedNode) -> Iterator[Step]:
    name = node.name
    if node.daemon is None:
        yield Step(2.0, f"{name} is started", partial(node.start, world.now))
        return
    yield Step(0.25, f"{name} is killed", _counted(world, "node killed", partial(_kill, world, node)))
    if node.is_paused:
        yield Step(0.6, f"{name} comes back", partial(setattr, node, "is_paused", False))
    else:
        yield Step(0.15, f"{name} is paused", _counted(world, "node paused", node.pause))
    for what, is_on in (("is_cut_off", node.is_cut_off), ("is_deaf", node.is_deaf)):
        told = f"{name} {'is no longer' if is_on else 'is'} {what.removeprefix('is_')}"
        kind = f"partition {what}" if not is_on else "partition heals"
        yield Step((0.5 if is_on else 0.12), told, _counted(world, kind, partial(setattr, node, what, not is_on)))
    if node.acts is not None:
        yield Step(0.06, f"{name} drains by itself", _counted(world, "node drains", node.drain))
    yield Step(
        0.3,
        f"a ticket of {name} comes twice",
        _counted(world, "ticket doubled", partial(world.broker.double, node.id, world.dice)),
    )
    yield Step(
        0.2,
        f"tickets of {name} change places",
        _counted(world, "tickets shuffled", partial(world.broker.shuffle, node.id, world.dice)),
    )
    yield Step(0.3, f"a ticket of {name} is lost", _counted(world, "ticket lost", partial(world.broker.pop, node.id)))
    if world.picture.attempts:
        forge = _counted(world, "ticket forged", partial(_forge, world, node))
        yield Step(0.3, f"{name} gets an old or foreign ticket", forge)
    running = [
        attempt.id
        for attempt in world.picture.attempts.values()
        if attempt.state == "running" and attempt.node_id == node.id
    ]
    if running and (daemon := node.acts) is not None and world.has_room:
        pretend = _counted(world, "claim and report forged", partial(_pretend, world, node, daemon, running))
        yield Step(1.2, f"{name} claims and reports what somebody else has", pretend)


def _mishaps_of_chief(world: World, chief: Chief) -> Iterator[Step]:
    if chief.name in world.busy:
        return
    if not chief.is_alive:
        yield Step(2.0, f"{chief.name} is started", chief.start)
        return
    yield Step(0.2, f"{chief.name} is killed", _counted(world, "dispatcher killed", chief.kill))
    told = f"{chief.name} {'comes back' if chief.is_paused else 'is paused'}"
    yield Step(
        (0.4),
        told,
        _counted(world, "dispatcher paused or back", partial(setattr, chief, "is_paused", not chief.is_paused)),
    )


def _counted(world: World, kind: str, act: Callable[[], object]) -> Callable[[], None]:
    def count_and_act() -> None:
        world.told.faults[kind] += 1
        act()

    return count_and_act


def _turn(world: World, mood: Any) -> None:
    world.broker.mood = mood


def _lose(world: World, parcel: Parcel) -> None:
    """Request or answer is gone, and the node learns so."""
    world.told.faults["request lost" if parcel.outcome is None else "answer lost"] += 1
    if parcel.key not in world.busy:
        world.parcels.remove(parcel)
    world.node(parcel.node).give_up(parcel)


def _give_up(world: World, parcel: Parcel) -> None:
    """The node waits no longer; its request arrives all the same, later."""
    world.told.faults["request late"] += 1
    world.node(parcel.node).give_up(parcel)


def _double(world: World, parcel: Parcel) -> None:
    """Something between node and coordinator sends the request once more."""
    world.parcels.append(replace(parcel, is_awaited=False))


def _kill(world: World, node: SimulatedNode) -> None:
    node.kill()


def _stray(world: World, live: list[str]) -> None:
    if world.reader.try_second_live_attempt(world.dice.choice(live)):
        world.note("        the database let it through")
        world.wrote()


def _forge(world: World, node: SimulatedNode) -> None:
    attempt = world.dice.choice(list(world.picture.attempts.values()))
    world.broker.push(node.id, attempt.id, attempt.job_id)


def _pretend(world: World, node: SimulatedNode, daemon: Daemon, running: list[str]) -> None:
    """Ask again for what runs here already, and report it with a token nobody was given: both must be refused."""
    who = f"pretender {node.name}"
    if who in world.busy:
        return
    attempt_id, token = world.dice.choice(running), f"{world.dice.getrandbits(256):064x}"
    report = {"attempt_id": attempt_id, "token": token, "outcome": "succeeded", "digest": "0" * 64, "result": {}}
    claim = {"attempt_id": attempt_id, "nonce": token[:32]}
    body = {"epoch": daemon.epoch, "claims": [claim], "reports": [report]}
    work = partial(world.desk.sync, node.credential, body)
    world.call(f"sync {node.name}", who, work, partial(_pretended, world, attempt_id))


def _pretended(world: World, attempt_id: str, outcome: Outcome) -> None:
    if not isinstance(outcome, Done):
        return
    if outcome.value.reports[attempt_id] == "accepted":
        world.blame([Violation("I3 a token that nobody was given counts for nothing", attempt_id)])
    if outcome.value.grants[0]["token"] is not None:
        world.blame([Violation("claims are granted once", f"{attempt_id} was granted to a second one")])

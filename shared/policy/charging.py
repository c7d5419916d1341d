"""What work depends on, by name of breaker, and what the end of an attempt says of which of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from shared.contracts.node import Outcome
from shared.policy.breaker import Charge

LLM, IMAGE, NODE, AGENT = "llm:", "image:", "node:", "agent:"
MADE_BY_FAILURE = (LLM, IMAGE, NODE)
"""Breakers of these kinds come into being with their first failure; all others only when an admin makes them."""

NODES_FAULT = frozenset({"driver_unavailable", "computer_error", "computer_lost", "disk_full"})
"""Reasons to lose an attempt that speak against the node it was on."""
IMAGES_FAULT = "image_missing"
COMMAND_RAN = frozenset({"exit_nonzero", "timeout", "out_of_memory", "output_limit", "disk_limit"})
"""Reasons to fail that a command only gets to in a computer that works."""

MOST_TOLD = 50
LONGEST_NAME = 255
LONGEST_MESSAGE = 500


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended, as far as breakers care. `depends_on` are the names that its job asked for."""

    attempt_id: str
    job_id: str
    node_id: str
    outcome: Outcome
    has_computer: bool
    reason_code: str | None = None
    message: str | None = None
    depends_on: Sequence[str] = ()
    agent: str | None = None
    told: Mapping[str, object] | None = None
    """What the node says of the services that were called."""

    @property
    def image(self) -> str | None:
        """The breaker of the image that the job named."""
        return next((name for name in self.depends_on if name.startswith(IMAGE)), None) if self.has_computer else None


def llm(provider: str, model: str) -> str:
    return f"{LLM}{provider}/{model}"[:LONGEST_NAME]


def image(reference: str) -> str:
    return f"{IMAGE}{reference}"[:LONGEST_NAME]


def node(node_id: str) -> str:
    return f"{NODE}{node_id}"


def agent(name: str) -> str:
    return f"{AGENT}{name}"[:LONGEST_NAME]


def tidy(name: str) -> str:
    """The name as breakers are kept by it; ValueError with the reason when nothing can be called that."""
    if not name or name != name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise ValueError(f"must be 1 to {LONGEST_NAME} printable characters without blanks at its ends")
    return node(name.removeprefix(NODE).lower()) if name.startswith(NODE) else name


def charges(ended: Ended) -> list[Charge]:
    """Whom the end of this attempt is charged to, and who is given credit for it."""
    return [*_of_the_ground(ended), *_of_the_agent(ended), *_of_services(ended)]


def _of_the_ground(ended: Ended) -> Iterable[Charge]:
    """Node and image: to blame for some losses, and to be praised when a command could run at all."""
    here = node(ended.node_id)
    if ended.outcome is Outcome.lost:
        if ended.reason_code in NODES_FAULT:
            yield _failure(ended, here)
        elif ended.reason_code == IMAGES_FAULT:
            # The image of a job that names none is the node's own choice.
            yield _failure(ended, ended.image or here)
    elif ended.outcome is Outcome.succeeded or _ran(ended):
        yield Charge(here, ended.attempt_id)
        if ended.image is not None:
            yield Charge(ended.image, ended.attempt_id)


def _of_the_agent(ended: Ended) -> Iterable[Charge]:
    if ended.agent is None:
        return
    if ended.outcome is Outcome.succeeded:
        yield Charge(agent(ended.agent), ended.attempt_id)
    elif ended.outcome is Outcome.failed:
        yield _failure(ended, agent(ended.agent))


def _of_services(ended: Ended) -> Iterable[Charge]:
    """What the node told of models; of nothing else is a node's word taken."""
    for name, verdict in list((ended.told or {}).items())[:MOST_TOLD]:
        if not name.startswith(LLM) or not len(LLM) < len(name) <= LONGEST_NAME:
            continue
        if verdict == "ok":
            yield Charge(name, ended.attempt_id)
        elif verdict == "failed":
            yield _failure(ended, name, message="a call to the model failed")


def _ran(ended: Ended) -> bool:
    return ended.outcome is Outcome.failed and ended.reason_code in COMMAND_RAN


def _failure(ended: Ended, name: str, *, message: str | None = None) -> Charge:
    facts = {
        "reason_code": ended.reason_code,
        "message": (message or ended.message or "")[:LONGEST_MESSAGE] or None,
        "job_id": ended.job_id,
        "attempt_id": ended.attempt_id,
        "node_id": ended.node_id,
    }
    return Charge(name, ended.attempt_id, facts)

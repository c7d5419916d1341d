"""The socket of everything: the platform's events, for those who chose them, in the caller's space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coordinator.domains.live import words
from coordinator.domains.live.follower import follower_of
from coordinator.domains.live.outbox import Outbox
from coordinator.domains.live.words import Told
from coordinator.http.sockets import Opening
from coordinator.http.websocket import TOO_SLOW, Closing, Connection
from shared.errors import BadRequest, Invalid

EVERYTHING = "*"
NAMES = frozenset({EVERYTHING, *words.EVENT_TYPES, *words.FURTHER_TYPES})


class PlatformSession:
    """One client of `/ws`. Without a choice of its own it hears the ten published types."""

    def __init__(self, opening: Opening) -> None:
        self._actor = opening.actor
        self._space = opening.space
        self._clock = opening.resources.clock
        self._may = {kind: opening.actor.may(right) for kind, right in words.RIGHTS.items()}
        self._chosen: frozenset[str] = frozenset()
        self._outbox: Outbox[str] = Outbox(opening.resources.settings.live_queue)
        self._leave = follower_of(opening.resources).watch_events(self._hear)

    def leave(self) -> None:
        self._leave()

    def said(self, message: Mapping[str, Any]) -> dict[str, Any]:
        match message.get("type"):
            case "subscribe":
                name = _name_in(message)
                self._chosen |= {name}
                return {"type": "subscribed", "data": {"event": name}}
            case "unsubscribe":
                name = _name_in(message)
                self._chosen -= {name}
                return {"type": "unsubscribed", "data": {"event": name}}
        raise BadRequest("the type must be ping, auth, subscribe or unsubscribe", given=str(message.get("type"))[:64])

    async def tell(self, connection: Connection) -> None:
        while True:
            texts = await self._outbox.take()
            if texts is None:
                reason = "too slow: more events waited than there is room for"
                raise Closing(TOO_SLOW, reason, last=words.alert(reason, self._clock.now()))
            for text in texts:
                await connection.send(text)

    def _hear(self, news: Sequence[Told]) -> None:
        mine = [told.text for told in news if self._wants(told.type) and self._may_hear(told)]
        if mine:
            self._outbox.offer(mine)

    def _wants(self, name: str) -> bool:
        if not self._chosen:
            return name in words.EVENT_TYPES
        return name in self._chosen or EVERYTHING in self._chosen

    def _may_hear(self, told: Told) -> bool:
        event = told.event
        kind = event.type.partition(".")[0]
        # The fleet serves all spaces: who may hear of it (by a role held everywhere) hears of it in each.
        if event.space != self._space and kind not in words.OF_THE_FLEET:
            return False
        if not self._may.get(kind, True):
            return False
        owner = words.PERSONAL.get(event.type)
        return owner is None or event.data.get(owner) == self._actor.id


def _name_in(message: Mapping[str, Any]) -> str:
    name = message.get("event")
    if not isinstance(name, str) or name not in NAMES:
        raise Invalid("there is no such event", field="event", reason="must be one of these", known=sorted(NAMES))
    return name

"""What comes to control about approvals and escalations, from holders and from the api."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

from checkrein.bus import subjects
from checkrein.bus.approvals import Acknowledge, Decide, Decided, GateQuery, word_of
from checkrein.bus.messages import MessageError, decode, encode
from checkrein.bus.types import Bus, BusError, Message
from checkrein.control.core import Control
from checkrein.control.types import Acknowledging, Deciding, Input, Misread, Seeking
from checkrein.server.sessions import Sessions

Handler = Callable[[Message], Awaitable[None]]


class Gatekeeper:
    """Reads the messages and feeds them to the state machine; `feed` carries out what it says."""

    def __init__(
        self, bus: Bus, control: Control, sessions: Sessions,
        feed: Callable[[Input], Awaitable[None]],
    ) -> None:  # fmt: skip
        self._bus, self._control, self._sessions, self._feed = bus, control, sessions, feed

    def handlers(self) -> dict[str, Handler]:
        return {
            subjects.ask("*"): self._on_ask,
            subjects.CONTROL_DECIDE: self._on_decide,
            subjects.CONTROL_ACKNOWLEDGE: self._on_acknowledge,
            subjects.CONTROL_APPROVALS: self._on_approvals,
            subjects.CONTROL_ESCALATIONS: self._on_escalations,
        }

    async def _on_ask(self, message: Message) -> None:
        session = session_of(message)
        try:
            word = word_of(message.data)
        except MessageError as error:
            await self._feed(Misread(session, message.subject, str(error)))
            return
        known = self._sessions.known.get(session)
        if known is None or word.agent not in known.agents:
            await self._sessions.look(session)
        await self._feed(Seeking(session, word, message))

    async def _on_decide(self, message: Message) -> None:
        try:
            request = decode(message.data, Decide)
        except MessageError as error:
            await self._refuse(message, error)
            return
        await self._feed(Deciding(request, message))

    async def _on_acknowledge(self, message: Message) -> None:
        try:
            request = decode(message.data, Acknowledge)
        except MessageError as error:
            await self._refuse(message, error)
            return
        await self._feed(Acknowledging(request, message))

    async def _refuse(self, message: Message, error: MessageError) -> None:
        await self._respond(message, Decided(error=str(error)))

    async def _on_approvals(self, message: Message) -> None:
        found = self._control.approvals(_gate_query(message))
        await self._respond(message, found)

    async def _on_escalations(self, message: Message) -> None:
        found = self._control.escalations(_gate_query(message))
        await self._respond(message, found)

    async def _respond(self, message: Message, answer: object) -> None:
        """An answer may be lost: it is asked for again."""
        with suppress(BusError):
            await self._bus.respond(message, encode(answer))


def session_of(message: Message) -> str:
    """Who sent it: the bus lets a session publish under its own name only."""
    return message.subject.partition(".")[2]


def _gate_query(message: Message) -> GateQuery:
    try:
        return decode(message.data, GateQuery) if message.data else GateQuery()
    except MessageError:
        return GateQuery()

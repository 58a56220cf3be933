"""Pacts as they come over the bus link: taken when they are genuine and new, and what holds here is
told, so that a pact whose edge was missed is in force as soon as there is contact."""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from checkrein.bus import subjects
from checkrein.bus.messages import MessageError, SessionGrant, decode, encode
from checkrein.bus.pacts import OLD, REPEATED, Held, Newer, PactRefused
from checkrein.bus.types import Bus, BusError, Message
from checkrein.sdk import quiet
from checkrein.sdk.links.types import Process

if TYPE_CHECKING:
    from checkrein.bus.signed_pacts import PactInbox

HELD_EVERY_S = 5.0
"""How often the server is told which pacts hold here, and asked for newer ones."""
HEARD_BEFORE = (REPEATED, OLD)


class PactNews:
    """On the link's loop only, but for the making. `opened` before anything else, in that loop."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._inbox: PactInbox | None = None
        self._due: asyncio.Event | None = None

    def opened(self) -> None:
        self._due = asyncio.Event()

    def granted(self, grant: SessionGrant) -> None:
        """A session began or was renewed: its pacts, and the key that theirs are signed with."""
        from checkrein.bus.signed_pacts import PactInbox

        key = bytes.fromhex(grant.control_key)
        if self._inbox is None or self._inbox.key != key:
            self._inbox = PactInbox(key, self._process.config.environment)
        for signed in grant.pact_sets.values():
            self._adopt(signed)

    async def listen(self, control: Bus, session: str) -> None:
        """Raises BusError."""

        async def pact(message: Message) -> None:
            self._adopt(message.data)

        async def asked(message: Message) -> None:
            self.tell()

        await control.subscribe(subjects.pact(session), pact)
        await control.subscribe(subjects.PACTS_ASK, asked)

    def tell(self) -> None:
        """Says soon what holds here."""
        if self._due is not None:
            self._due.set()

    async def run(self, agents: list[str], control: Bus, session: str) -> None:
        """Says what holds here when that changes and every few seconds; what is newer comes back.
        For as long as a connection serves."""
        due = self._due
        while due is not None:
            due.clear()
            if control.connected:
                with suppress(BusError, MessageError):
                    await self._tell_once(agents, control, session)
            with suppress(TimeoutError):
                async with asyncio.timeout(HELD_EVERY_S):
                    await due.wait()

    async def ask_once(self, agents: list[str], control: Bus, session: str) -> None:
        """Asks now for what is newer than held here for these agents. Raises BusError."""
        with suppress(MessageError):
            await self._tell_once(agents, control, session)

    async def _tell_once(self, agents: list[str], control: Bus, session: str) -> None:
        inbox = self._inbox
        if inbox is None:
            return
        held = Held(
            session=session, environment=self._process.config.environment,
            at=self._process.world.now_ns(),
            revisions={agent: inbox.revision(agent) for agent in agents},
            holdings=self._process.holdings(),
        )  # fmt: skip
        answer = await control.request(subjects.held(session), encode(held))
        for signed in decode(answer, Newer).sets:
            self._adopt(signed)

    def _adopt(self, signed: bytes) -> None:
        """A set of pacts, from the grant, an edge, or the answer to what we hold."""
        inbox = self._inbox
        if inbox is None:
            return
        try:
            pact_set = inbox.accept(signed)
        except PactRefused as error:
            if error.why not in HEARD_BEFORE:
                quiet.refused_orders[f"pact: {error.why}"] += 1
                quiet.warn_once(f"pact {error.why}", "checkrein: %s", error)
            return
        self._process.adopt(pact_set)
        self.tell()

"""What the agents' processes ask the ledger, passed on to control and back.

The supervisor holds no budget itself: it carries. An asking that cannot be carried is answered as
such at once, and the process asks again if it still needs to.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable

from checkrein.bus import subjects
from checkrein.bus.leases import Recall
from checkrein.bus.messages import MessageError, decode
from checkrein.bus.types import Bus, BusError, Message
from checkrein.sdk.local import Lease, Leased, Recalled
from checkrein.supervise.local import Peer

_log = logging.getLogger(__name__)

AT_ONCE = 8
WAITING_MAX = 4_096
ANSWER_S = 2.0


class Leasing:
    """`ask` takes without waiting; `works` carry."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Peer, Lease]] = deque()
        self._news = asyncio.Event()

    def ask(self, peer: Peer, lease: Lease) -> None:
        if len(self._waiting) >= WAITING_MAX:
            peer.send(Leased(number=lease.number))
            return
        self._waiting.append((peer, lease))
        self._news.set()

    async def work(self, bus_of: Callable[[], tuple[Bus | None, str]]) -> None:
        """Until cancelled. `bus_of`: the connection of the moment, and the session."""
        async with asyncio.TaskGroup() as carriers:
            for _ in range(AT_ONCE):
                carriers.create_task(self._carry(bus_of))

    async def _carry(self, bus_of: Callable[[], tuple[Bus | None, str]]) -> None:
        while True:
            while self._waiting:
                peer, lease = self._waiting.popleft()
                bus, session = bus_of()
                answer = b""
                if bus is not None and bus.connected:
                    try:
                        answer = await bus.request(
                            subjects.lease(session), lease.request, timeout_s=ANSWER_S
                        )
                    except BusError as error:
                        _log.info("the ledger does not answer: %s", error)
                peer.send(Leased(number=lease.number, answer=answer))
            self._news.clear()
            await self._news.wait()

    @staticmethod
    def recalled(message: Message, peers: Iterable[Peer]) -> None:
        """Every process is told; it knows its own lines."""
        try:
            lines = decode(message.data, Recall).lines
        except MessageError as error:
            _log.warning("control recalls what is no recall: %s", error)
            return
        for peer in peers:
            peer.send(Recalled(lines=lines))

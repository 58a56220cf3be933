"""Askings of the ledger, on the bus link's loop."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from checkrein.bus import subjects
from checkrein.bus.leases import Recall
from checkrein.bus.messages import MessageError, decode
from checkrein.bus.types import Bus, BusError, Message
from checkrein.sdk import quiet

WAITING_MAX = 100
ANSWER_S = 2.0

Answered = Callable[[bytes], None]


class Leasing:
    """`ask` from any thread; `run` for as long as a connection serves, one asking at a time."""

    def __init__(self, recalled: Callable[[Sequence[str]], None]) -> None:
        self._recalled = recalled
        self._waiting: deque[tuple[bytes, Answered]] = deque()
        self._news: asyncio.Event | None = None

    def ask(
        self, loop: asyncio.AbstractEventLoop, request: bytes, answered: Answered
    ) -> bool:  # fmt: skip
        """False: nobody can be asked now."""
        news = self._news
        if news is None or len(self._waiting) >= WAITING_MAX:
            return False
        self._waiting.append((request, answered))
        with suppress(RuntimeError):  # the loop is closed: the thread has ended
            loop.call_soon_threadsafe(news.set)
            return True
        return False

    async def run(self, control: Bus, session: str) -> None:
        """Until cancelled; what waits then gets no answer."""
        self._news = news = asyncio.Event()
        try:
            while True:
                while self._waiting:
                    request, answered = self._waiting[0]
                    answer = b""
                    try:
                        answer = await control.request(
                            subjects.lease(session), request, timeout_s=ANSWER_S
                        )
                    except BusError as error:
                        quiet.LOG.debug("checkrein: the ledger does not answer: %s", error)
                    finally:
                        self._waiting.popleft()
                        answered(answer)
                news.clear()
                await news.wait()
        finally:
            self._news = None
            while self._waiting:
                self._waiting.popleft()[1](b"")

    async def recalled(self, message: Message) -> None:
        try:
            self._recalled(decode(message.data, Recall).lines)
        except MessageError as error:
            quiet.warn_once("recall", "checkrein: a recall that is none: %s", error)

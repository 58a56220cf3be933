"""The process's share of budgets that several runs share, and how more of it is asked for.

Reserving from what is leased already costs microseconds. More is asked for in good time through the
link, whose thread does the waiting; only a call for which nothing is left waits itself, two
seconds at most. Whatever fails here denies: a budget that cannot be kept follows the pact's
`unclear`.
"""

import asyncio
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

import msgspec

from checkrein.bus.leases import LeaseAnswer, LeaseRequest
from checkrein.bus.messages import MessageError, decode, encode
from checkrein.policy.accounts import Actual, Amounts, Bound, Short
from checkrein.policy.ledger import Purse
from checkrein.policy.shortage import busy, exhausted, unkept
from checkrein.policy.types import Pact, Verdict
from checkrein.sdk import quiet
from checkrein.world import World

PATIENCE_S = 2.0
"""How long a call may wait for what others hold, or for an answer."""
ASK_S = 2.0
"""After so long without an answer the ledger is asked anew."""
PAUSE_S_MIN, PAUSE_S_MAX = 0.005, 0.1
LAST_WORDS_S = 0.5

Waiter = tuple[asyncio.AbstractEventLoop, asyncio.Event]


class LeaseLink(Protocol):
    """What is asked of a link (see `sdk.links.types.Link`)."""

    @property
    def connected(self) -> bool: ...
    def lease(self, request: bytes, answered: Callable[[bytes], None]) -> bool: ...


class Wish(msgspec.Struct, frozen=True):
    """What a call needs before it may begin."""

    call_id: str
    pact: Pact
    bounds: tuple[Bound, ...]
    amounts: Amounts


class Lacking(Exception):
    """A coroutine must wait for its share of a budget. Never reaches the agent."""

    def __init__(self, paying: "Paying") -> None:
        super().__init__(paying.wish.call_id)
        self.paying = paying


class Paying:
    """A share of a budget that is waited for, in either way; then `refusal` says whether the call
    may not begin."""

    def __init__(self, wish: Wish, purses: "Purses") -> None:
        self.wish, self._purses = wish, purses
        self.refusal: Verdict | None = None

    def wait(self) -> None:
        try:
            self.refusal = self._purses.reserve(self.wish)
        except Exception as error:
            self.refusal = erred(error)

    async def wait_async(self) -> None:
        try:
            self.refusal = await self._purses.reserve_async(self.wish)
        except Exception as error:
            self.refusal = erred(error)


_Steps = Generator[tuple[int | None, float], None, Verdict | None]
"""Yields (the news seen so far, seconds to wait for newer at most), or (None, seconds to wait);
returns what `reserve` does."""


class Purses:
    """One for a process. Safe from any thread."""

    def __init__(self, world: World, link: Callable[[], LeaseLink]) -> None:
        self._world, self._link = world, link
        self.forked()

    def forked(self) -> None:
        """Also in a forked child: what the parent has leased is the parent's."""
        self.purse = Purse(self._world.nonce()[:16])
        self._changed = threading.Condition()
        self._waiters: list[Waiter] = []
        self._news = self._heard = 0
        self._asked_ns: int | None = None

    def reserve(self, wish: Wish) -> Verdict | None:
        """Waits if it must. None: reserved, and to be settled. Else why the call may not begin."""
        steps = self._reserve(wish)
        try:
            while True:
                seen, seconds = next(steps)
                with self._changed:
                    self._changed.wait_for(partial(self._newer, seen), seconds)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return] # a Verdict or None, by its type

    def reserve_now(self, wish: Wish) -> Verdict | None:
        """As `reserve`, but raises Lacking instead of waiting."""
        if self._try(wish) is None:
            return None
        raise Lacking(Paying(wish, self))

    async def reserve_async(self, wish: Wish) -> Verdict | None:
        """As `reserve`, and the loop goes on meanwhile."""
        event = asyncio.Event()
        waiter = (asyncio.get_running_loop(), event)
        steps = self._reserve(wish)
        with self._changed:
            self._waiters.append(waiter)
        try:
            while True:
                seen, seconds = next(steps)
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        while not self._newer(seen):
                            event.clear()
                            if not self._newer(seen):
                                await event.wait()
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return] # as above
        except BaseException:
            self.purse.given_up(wish.bounds)
            raise
        finally:
            with self._changed, suppress(ValueError):
                self._waiters.remove(waiter)

    def settle(self, call_id: str, actual: Actual) -> None:
        self.purse.settle(call_id, actual)
        if self._waiters or self.purse.wants_asking:
            self._tell()
            self._ask_if_wanted()

    def recalled(self, lines: Sequence[str]) -> None:
        """Somebody waits for what these lines hold."""
        self.purse.recall(frozenset(lines))
        self._ask_if_wanted()

    def tick(self) -> None:
        """Every few seconds: gives back what is idle, and says that we are there."""
        if self.purse.holds:
            self.purse.tidy(self._world.monotonic_ns())
            self._ask(every=True)

    def close(self) -> None:
        """The process ends: all is settled and given back, if anybody listens."""
        if not self.purse.holds or not self._link().connected:
            return
        self.purse.close()
        self._asked_ns = None
        asked = self.purse.asked
        self._ask()
        with self._changed:
            self._changed.wait_for(lambda: self._heard > asked, LAST_WORDS_S)

    def _newer(self, seen: int | None) -> bool:
        return seen is not None and self._news != seen

    # -- one reservation ------------------------------------------------------------------------

    def _try(self, wish: Wish, alone: bool = False) -> Short | None:
        now_ns = self._world.monotonic_ns()
        short = self.purse.reserve(wish.call_id, wish.bounds, wish.amounts, now_ns, alone)
        if self.purse.wants_asking:
            self._ask_if_wanted()
        return short

    def _reserve(self, wish: Wish) -> _Steps:
        until_ns = self._world.monotonic_ns() + round(PATIENCE_S * 1e9)
        pause_s = PAUSE_S_MIN
        seen, since = self._news, self.purse.asked
        short = self._try(wish)
        while short is not None and self._link().connected:
            left_s = (until_ns - self._world.monotonic_ns()) / 1e9
            if left_s <= 0:
                break
            yield seen, min(left_s, ASK_S)
            # What is looked at next was asked when it was known what we lack, or it was not.
            seen, fresh, asked = self._news, self._heard > since, self.purse.asked
            short = self._try(wish)
            if short is None or not fresh:
                continue
            if short.over:
                self.purse.given_up(wish.bounds)
                return exhausted(wish.pact, short)
            since = asked
            yield None, min(left_s, pause_s)
            pause_s = min(2 * pause_s, PAUSE_S_MAX)
        if short is None:
            return None
        self.purse.given_up(wish.bounds)
        if self._link().connected and short.said is not None and not short.said.refused:
            return busy(wish.pact, short)
        return self._unkept(wish, short)

    def _unkept(self, wish: Wish, short: Short) -> Verdict | None:
        """Nobody keeps the ledger: the pact's `unclear` decides."""
        if wish.pact.unclear != "allow":
            return unkept(wish.pact, short)
        quiet.warn_once(
            "shared budgets", "checkrein: no ledger can be reached: %s is counted in this process "
            "alone, since the pact says `unclear: allow`", short.account,
        )  # fmt: skip
        lacking = self._try(wish, alone=True)
        return None if lacking is None else exhausted(wish.pact, lacking, asks=False)

    # -- the ledger -----------------------------------------------------------------------------

    def _ask_if_wanted(self) -> None:
        if self.purse.wants_asking:
            self._ask()

    def _ask(self, every: bool = False) -> None:
        """One asking at a time; what comes up meanwhile goes with the next."""
        now_ns = self._world.monotonic_ns()
        with self._changed:
            since_ns = self._asked_ns
            if since_ns is not None and now_ns - since_ns < ASK_S * 1e9:
                return
            link = self._link()
            if not link.connected:
                return
            self._asked_ns = now_ns
            number, claims = self.purse.claims(every)
        if not claims:
            self._asked_ns = None
            return
        request = LeaseRequest(purse=self.purse.id, number=number, claims=claims)
        if not link.lease(encode(request), self._answered):
            self._unanswered()

    def _answered(self, data: bytes) -> None:
        """In the link's thread; empty: there is no answer."""
        try:
            answer = decode(data, LeaseAnswer) if data else LeaseAnswer(error="no answer")
        except MessageError as error:
            answer = LeaseAnswer(error=str(error))
        if answer.error:
            quiet.LOG.debug("checkrein: the ledger did not lease: %s", answer.error)
            self._unanswered()
            return
        if answer.purse != self.purse.id:
            return
        self.purse.hear(answer.grants)
        with self._changed:
            self._asked_ns = None
            self._heard = max(self._heard, answer.number)
        self._tell()
        self._ask_if_wanted()

    def _unanswered(self) -> None:
        self.purse.unheard()
        self._asked_ns = None

    def _tell(self) -> None:
        with self._changed:
            self._news += 1
            self._changed.notify_all()
            for loop, event in self._waiters:
                with suppress(RuntimeError):  # the loop is closed: nobody waits there
                    loop.call_soon_threadsafe(event.set)


def erred(error: Exception) -> Verdict:
    """A guard that errs says no."""
    quiet.fault("a shared budget", error)
    return Verdict(
        kind="deny", guard="budgets", rule="budgets.erred", advice="ESCALATE",
        reason=f"the shared budget failed, so no: {type(error).__name__}: {error}",
    )  # fmt: skip

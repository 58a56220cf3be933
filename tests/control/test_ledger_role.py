"""Leases over the bus: answered when written down, by one control at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.control.test_role import Buses, role
from tests.control.test_role import buses as buses

from checkrein.bus import subjects
from checkrein.bus.leases import (
    AccountState,
    LeaseAnswer,
    LeaseRequest,
    LedgerRequest,
    Recall,
    account_key,
)
from checkrein.bus.memory import MemoryServer
from checkrein.bus.messages import SessionRecord, decode, encode
from checkrein.bus.types import Bucket, Bus, BusError, Message, Unreachable
from checkrein.control.ledger import Kept
from checkrein.control.types import Audit
from checkrein.policy.accounts import Account, Amounts, Ceiling, Claim, Grant, window_of
from checkrein.server.ledger import LedgerDesk
from checkrein.server.sessions import Sessions
from checkrein.world import REAL

HOUR_NS = 3600 * 10**9
LIMIT: Ceiling = (100, None, None)


def hour(offset_ns: int = 0, agent: str = "bot") -> Account:
    return Account("hour", "test", agent, window_of("hour", REAL.now_ns() + offset_ns))


async def know(bus: Bus, session: str, agents: list[str]) -> None:
    record = SessionRecord(session=session, kind="sdk", agents=agents, user="", expires_at=0)
    bucket = await bus.bucket(subjects.BUCKET_SESSIONS)
    await bucket.put(session, encode(record))


class Holder:
    """One purse on one session."""

    def __init__(self, bus: Bus, session: str = "s1") -> None:
        self.bus, self.session = bus, session
        self.number = 0

    async def ask(self, *claims: Claim, timeout_s: float = 5.0) -> LeaseAnswer:
        self.number += 1
        request = LeaseRequest(purse=self.session, number=self.number, claims=list(claims))
        data = await self.bus.request(
            subjects.lease(self.session), encode(request), timeout_s=timeout_s
        )
        return decode(data, LeaseAnswer)

    async def grant(self, account: Account, need: int, used: int = 0) -> Grant:
        (found,) = (await self.ask(self.claim(account, need, used))).grants
        return found

    def claim(self, account: Account, need: int, used: int = 0) -> Claim:
        amounts = Amounts(tool_calls=need)
        return Claim(
            f"{self.session}.1", account, LIMIT, used=Amounts(tool_calls=used), need=amounts,
            want=amounts,
        )  # fmt: skip


async def test_a_lease_is_written_down_and_outlives_control(buses: Buses, tmp_path: Path) -> None:
    account = hour()
    await know(buses.holder, "s1", ["bot"])
    await know(buses.holder, "s2", ["bot"])
    async with role(buses, tmp_path):
        first = await Holder(buses.holder).grant(account, 60)
        assert first.granted.tool_calls == 60
        bucket = await buses.holder.bucket(subjects.BUCKET_LEDGER)
        entry = await bucket.get(account_key(account))
        assert entry is not None
        assert decode(entry.value or b"", Kept).lines["s1.1"].granted.tool_calls == 60
    async with role(buses, tmp_path):
        other = await Holder(buses.holder, "s2").grant(account, 41)
        assert other.short
        assert other.charged.tool_calls == 60


async def audited(buses: Buses) -> bool:
    """Whether anything stands in the audit stream, which control makes when it first writes."""
    try:
        return await buses.control.last_position("AUDIT") >= 1
    except BusError:
        return False


async def test_a_raise_is_audited_and_counts_once(buses: Buses, tmp_path: Path) -> None:
    account = hour()
    await know(buses.holder, "s1", ["bot"])
    async with role(buses, tmp_path):
        holder = Holder(buses.holder)
        assert (await holder.grant(account, 101)).short
        request = LedgerRequest(
            account=account, raise_id="r1", amount=Amounts(tool_calls=1), by="ann", reason="month"
        )
        for _ in range(2):
            data = await buses.holder.request(subjects.CONTROL_LEDGER, encode(request))
            assert decode(data, AccountState).raised.tool_calls == 1
        assert (await holder.grant(account, 101)).granted.tool_calls == 101
        async with asyncio.timeout(10):
            while not await audited(buses):
                await asyncio.sleep(0.01)
        look = LedgerRequest(account=account)
        data = await buses.holder.request(subjects.CONTROL_LEDGER, encode(look))
        state = decode(data, AccountState)
        assert (state.charged.tool_calls, state.lines) == (101, 1)


async def test_whose_budget_and_which_hour(buses: Buses, tmp_path: Path) -> None:
    await know(buses.holder, "s1", ["bot"])
    async with role(buses, tmp_path):
        holder = Holder(buses.holder)
        assert "not one of session" in (await holder.grant(hour(agent="other"), 1)).refused
        assert "has not begun" in (await holder.grant(hour(2 * HOUR_NS), 1)).refused
        late = await holder.grant(hour(-2 * HOUR_NS), 10, used=3)
        assert (late.granted.tool_calls, late.refused) == (3, ""), "what was used counts, no more"
        (foreign,) = (await holder.ask(Claim("s2.1", hour(), LIMIT))).grants
        assert foreign.refused
        stranger = await Holder(buses.holder, "s9").ask()
        assert "not known" in stranger.error
        data = await buses.holder.request(subjects.lease("s1"), b"\xff")
        assert decode(data, LeaseAnswer).error


async def test_whoever_holds_too_much_is_told(buses: Buses, tmp_path: Path) -> None:
    account = hour()
    for session in ("s1", "s2"):
        await know(buses.holder, session, ["bot"])
    heard: asyncio.Queue[list[str]] = asyncio.Queue()

    async def recalled(message: Message) -> None:
        await heard.put(decode(message.data, Recall).lines)

    await buses.holder.subscribe(subjects.recall("s1"), recalled)
    async with role(buses, tmp_path):
        await Holder(buses.holder).grant(account, 100)
        assert (await Holder(buses.holder, "s2").grant(account, 10)).short
        async with asyncio.timeout(10):
            assert await heard.get() == ["s1.1"]


# -- the desk alone, on a bus in memory ------------------------------------------------------------


@asynccontextmanager
async def desks(
    server: MemoryServer, count: int = 1
) -> AsyncIterator[tuple[list[LedgerDesk], list[Audit]]]:
    """Desks that are all up at once, as must not be."""
    audited: list[Audit] = []
    found = []
    async with asyncio.TaskGroup() as group:
        tasks = []
        for _ in range(count):
            bus = server.connect()
            sessions = await Sessions.open(bus, REAL)
            desk = await LedgerDesk.open(bus, sessions, REAL, audited.append)
            tasks += [group.create_task(work) for work in desk.works()]
            found.append(desk)
        yield found, audited
        for task in tasks:
            task.cancel()


async def test_two_controls_at_once_do_not_lend_the_same_money() -> None:
    server, account = MemoryServer(), hour()
    bus = server.connect()
    told: dict[str, int] = {}
    again = 0

    async with desks(server, 2) as (pair, _):
        for number in range(8):
            await know(bus, f"s{number}", ["bot"])
        answers: list[LeaseAnswer] = []

        async def respond(message: Message, data: bytes) -> None:
            answers.append(decode(data, LeaseAnswer))

        for desk in pair:
            await desk._sessions.read_all()
            desk._bus.respond = respond  # type: ignore[method-assign] # captured here
        for turn in range(60):
            holder = Holder(bus, f"s{turn % 8}")
            claim = holder.claim(account, turn // 8 * 3 + 3)
            request = LeaseRequest(purse=holder.session, number=turn + 1, claims=[claim])
            message = Message(subjects.lease(holder.session), encode(request), reply="r")
            await pair[turn % 2]._on_lease(message)
            if turn % 3 == 0:
                await asyncio.sleep(0)
        async with asyncio.timeout(10):
            while len(answers) < 60:
                await asyncio.sleep(0)
    for answer in answers:
        again += bool(answer.error)
        for grant in answer.grants:
            told[grant.line] = max(told.get(grant.line, 0), grant.granted.tool_calls)
    assert 0 < sum(told.values()) <= 100
    assert again, "the two never met: the test shows nothing"


async def test_nothing_is_answered_before_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    server, account = MemoryServer(), hour()
    bus = server.connect()
    await know(bus, "s1", ["bot"])
    async with desks(server) as ((desk,), _):
        subscriptions = await desk.listen()
        real, fails = desk._bucket.create, 3

        class Failing:
            """A bucket that cannot be reached a few times."""

            def __init__(self, bucket: Bucket) -> None:
                self._bucket = bucket

            async def create(self, key: str, value: bytes) -> int:
                nonlocal fails
                fails -= 1
                if fails == 0:
                    await real(key, value)  # written, and its answer lost
                if fails >= 0:
                    raise Unreachable("no answer")
                return await real(key, value)

            def __getattr__(self, name: str) -> object:
                return getattr(self._bucket, name)

        monkeypatch.setattr(desk, "_bucket", Failing(desk._bucket))
        holder = Holder(bus)
        with pytest.raises(Unreachable):
            await holder.ask(holder.claim(account, 10), timeout_s=0.01)
        grant = await holder.grant(account, 10)
        assert grant.granted.tool_calls == 10
        entry = await desk._bucket.get(account_key(account))
        assert entry is not None
        for subscription in subscriptions:
            await subscription.close()


async def test_what_cannot_be_read_is_no_fresh_budget() -> None:
    server, account = MemoryServer(), hour()
    bus = server.connect()
    await know(bus, "s1", ["bot"])
    bucket = await bus.bucket(subjects.BUCKET_LEDGER)
    await bucket.put(account_key(account), b"\xff")
    async with desks(server) as ((desk,), _):
        subscriptions = await desk.listen()
        grant = await Holder(bus).grant(account, 10)
        assert "cannot be read" in grant.refused
        data = await bus.request(
            subjects.CONTROL_LEDGER, encode(LedgerRequest(account=account, raise_id="r"))
        )
        assert "cannot be read" in decode(data, AccountState).error
        for subscription in subscriptions:
            await subscription.close()

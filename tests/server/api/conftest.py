"""The api role for real on a loopback port, over buses in memory, with an archive and a control
role played by a few lines each."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from checkrein.bus import subjects
from checkrein.bus.approvals import Decided
from checkrein.bus.memory import MemoryBus, MemoryServer
from checkrein.bus.messages import (
    Answer,
    CommandRequest,
    CommandRun,
    CommandState,
    LiveChanged,
    LiveQuery,
    LiveRun,
    Query,
    RunRecord,
    Stored,
    decode,
    encode,
)
from checkrein.bus.types import Message, Subscription
from checkrein.events.envelope import CHAIN_START, Envelope, advance, as_raw, pack, partition_of
from checkrein.server.api import run
from checkrein.server.context import RoleContext
from checkrein.store import coverage
from checkrein.store.position import parse_position, position_of
from checkrein.store.runs import RunSummary, as_row, fold
from checkrein.world import REAL

DEADLINE_S = 5.0
TASK = "4bf92f3577b34da6a3ce929d0e0e4736"


def event(seq: int, kind: str = "step.start", **fields: Any) -> dict[str, Any]:
    """One event's map, with the common fields filled in."""
    return {
        "recorder": "rec-1", "seq": seq, "ts": REAL.now_ns(), "environment": "development",
        "room": "refunds", "agent": "support-bot", "run_id": "0198a000-0000-7000-8000-000000000001",
        "task_id": TASK, "step": 1, "type": kind, **fields,
    }  # fmt: skip


@dataclass
class FakeArchive:
    """Answers the named queries from a list of events."""

    bus: MemoryBus
    events: list[dict[str, Any]] = field(default_factory=list)
    asked: list[Query] = field(default_factory=list)
    error: str = ""
    page: int = 1000

    async def start(self) -> None:
        await self.bus.subscribe("history.*", self.answer)

    async def answer(self, message: Message) -> None:
        query = decode(message.data, Query)
        self.asked.append(query)
        if self.error:
            await self.bus.respond(message, encode(Answer(error=self.error)))
            return
        rows = self.rows(query.name, query.parameters)
        after = query.parameters.get("after")
        if after:
            rows = [row for row in rows if _place(row) > parse_position(after)]
        rest = rows[: min(self.page, query.parameters.get("limit", 10**6))]
        more = len(rest) < len(rows) and "position" in rest[-1]
        answer = Answer(rows=rest, next_after=rest[-1]["position"] if more else None)
        await self.bus.respond(message, encode(answer))

    def rows(self, name: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        if name in ("run", "runs", "find_run"):
            return self._runs(name, parameters)
        if name == "marks":
            found: dict[tuple[str, str, int], int] = {}
            for e in self.events:
                lane = (e["agent"], e["recorder"], partition_of(e["task_id"]))
                found[lane] = max(found.get(lane, 0), e["seq"])
            return [
                {"agent": a, "recorder": r, "partition": p, "seq": s}
                for (a, r, p), s in found.items()
            ]
        if name == "counts":
            return [{"rows": len(self.events), "bytes": 1, "runs": 1}]
        if name == "content":
            return []
        if name.startswith("coverage"):
            of = [e for e in self.events if parameters.get("agent", e["agent"]) == e["agent"]]
            if name == "coverage_paths":
                return coverage.paths(of)
            gateways = coverage.gateways_of(of)
            return coverage.counted(of, gateways, by_run=name == "coverage_runs")
        wanted = {k: v for k, v in parameters.items() if k in ("run_id", "task_id", "agent")}
        return [
            {**e, "position": position_of(e["ts"], e["recorder"], e["seq"], e["agent"])}
            for e in self.events
            if all(e[k] == v for k, v in wanted.items())
            and e["type"] in parameters.get("types", [e["type"]])
        ]

    def _runs(self, name: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        folded: dict[str, RunSummary] = {}
        for e in self.events:
            folded[e["run_id"]] = fold(folded.get(e["run_id"]), e)
        rows = [as_row(summary) for summary in folded.values()]
        if name == "run":
            return [row for row in rows if row["run_id"] == parameters["run_id"]]
        return [row for row in rows if row["run_id"].startswith(parameters.get("prefix", ""))]


@dataclass
class FakeControl:
    """Holds the runs it is given, and confirms every command at once."""

    bus: MemoryBus
    live: list[LiveRun] = field(default_factory=list)
    commands: list[CommandRequest] = field(default_factory=list)
    states: dict[str, CommandState] = field(default_factory=dict)
    asked_for: set[str] = field(default_factory=set)
    confirmed: str = "supervisor"
    gates: list[Subscription] = field(default_factory=list)

    async def start(self) -> None:
        await self.bus.subscribe(subjects.CONTROL_RUNS, self._runs)
        await self.bus.subscribe(subjects.CONTROL_COMMAND, self._command)
        await self.bus.subscribe(subjects.CONTROL_COMMANDS, self._commands)
        for subject, answer in (
            (subjects.CONTROL_APPROVALS, self._no_gates), (subjects.CONTROL_DECIDE, self._nothing),
            (subjects.CONTROL_ESCALATIONS, self._no_gates),
            (subjects.CONTROL_ACKNOWLEDGE, self._nothing),
        ):  # fmt: skip
            self.gates.append(await self.bus.subscribe(subject, answer))

    async def without_gates(self) -> None:
        """Leaves approvals and escalations to a real control, or to nobody."""
        for subscription in self.gates:
            await subscription.close()

    async def _no_gates(self, message: Message) -> None:
        await self.bus.respond(message, encode([]))

    async def _nothing(self, message: Message) -> None:
        await self.bus.respond(message, encode(Decided(error="nothing waits for an answer")))

    async def _runs(self, message: Message) -> None:
        query = decode(message.data, LiveQuery)
        found = sorted(self.live, key=lambda run: run.record.run_id)
        if query.ids:
            found = [run for run in found if run.record.run_id in query.ids]
        else:
            found = [run for run in found if run.record.run_id > query.after][: query.limit]
        await self.bus.respond(message, encode(found))

    async def _commands(self, message: Message) -> None:
        query = decode(message.data, LiveQuery)
        self.asked_for.update(query.ids)
        found = [s for s in self.states.values() if not query.ids or s.command_id in query.ids]
        await self.bus.respond(message, encode(found[::-1][: query.limit]))

    async def change(self, state: CommandState) -> None:
        """Something became of a command."""
        self.states[state.command_id] = state
        changes = LiveChanged(commands=[state.command_id])
        await self.bus.publish(subjects.LIVE_CHANGED, encode(changes))

    async def _command(self, message: Message) -> None:
        request = decode(message.data, CommandRequest)
        self.commands.append(request)
        state = self.state(request)
        self.states[state.command_id] = state
        await self.bus.respond(message, encode(state))

    def state(self, request: CommandRequest) -> CommandState:
        return CommandState(
            command_id=request.command_id, verb=request.verb, target=request.target,
            reason=request.reason, issued_by=request.issued_by, asked_at=REAL.now_ns(),
            done=bool(self.confirmed),
            runs=[
                CommandRun(
                    run_id=run.record.run_id, agent=run.record.agent, epoch=2, delivered_ms=1.5,
                    obeyed_ms=3.25 if self.confirmed else None, how={"fence": 1.0, "freeze": 3.25},
                    confirmed=self.confirmed, outcome="obeyed" if self.confirmed else "",
                )
                for run in self.live
            ],
        )  # fmt: skip


def _place(row: dict[str, Any]) -> tuple[int, str, int, str]:
    return parse_position(row["position"])


def live_run(run_id: str, agent: str = "support-bot", **fields: Any) -> LiveRun:
    record = RunRecord(
        run_id=run_id, task_id=TASK, agent=agent, room="refunds", environment="development",
        session="session-1", holder="supervisor", started_at=REAL.now_ns(), level="L2",
    )  # fmt: skip
    standing = {
        "status": "running", "step": 3, "epoch": 1, "can_halt": True,
        "can_halt_why": "answered the probe 0.4 s ago", "probed_ms_ago": 400.0, "beat_ms_ago": 90.0,
    }  # fmt: skip
    return LiveRun(record=record, **{**standing, **fields})


class Stand:
    """Everything a test of the api role touches."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.events_server, self.control_server = MemoryServer(), MemoryServer()
        self.bus = self.events_server.connect()
        self.control_bus = self.control_server.connect()
        self.archive = FakeArchive(self.events_server.connect())
        self.control = FakeControl(self.control_server.connect())
        self.port = _free_port()
        self.config: dict[str, Any] = {}
        self.stop = asyncio.Event()
        self.ready = asyncio.Event()
        self.chains: dict[tuple[str, str], tuple[int, bytes]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        return (self.data / "operator.token").read_text().strip()

    def client(self, **options: Any) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=10, **options)

    def context(self) -> RoleContext:
        return RoleContext(
            world=REAL, role="api", data=self.data, bus=self.events_server.connect(),
            control_bus=self.control_server.connect(), stop=self.stop, ready=self.ready.set,
            http=("127.0.0.1", self.port), bus_urls=("nats://127.0.0.1:1",),
            control_urls=("nats://127.0.0.1:2",), config=self.config,
        )  # fmt: skip

    async def publish(self, *events: dict[str, Any], agent: str = "") -> int:
        """Puts events of one lane on the bus as their recorder would; their place in the stream."""
        first = events[0]
        lane = (first["agent"], first["recorder"])
        prev, chain = self.chains.get(lane, (0, CHAIN_START))
        raws = [as_raw(e) for e in events]
        for raw in raws:
            chain = advance(chain, raw)
        partition = partition_of(first["task_id"])
        envelope = Envelope(
            first["recorder"], first["agent"], partition, prev, chain,
            [e["seq"] for e in events], raws,
        )  # fmt: skip
        self.chains[lane] = (events[-1]["seq"], chain)
        subject = subjects.events(agent or first["agent"], partition, first["recorder"])
        return await self.bus.append(subject, pack(envelope))

    async def store(self, *events: dict[str, Any]) -> None:
        """The archive has these now, and says so."""
        self.archive.events += events
        last = events[-1]
        stored = Stored(
            recorder=last["recorder"], upto={partition_of(last["task_id"]): last["seq"]}
        )
        await self.bus.publish(subjects.stored(last["agent"], last["recorder"]), encode(stored))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def eventually(true: Callable[[], Awaitable[Any]], deadline_s: float = DEADLINE_S) -> Any:
    """What `true` gives as soon as it is truthy; fails when that does not come."""
    async with asyncio.timeout(deadline_s):
        while True:
            found = await true()
            if found:
                return found
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(stand: Stand) -> AsyncIterator[Stand]:
    """The role, until the block is left."""
    await stand.bus.stream(subjects.EVENTS)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run(stand.context()))
        async with asyncio.timeout(DEADLINE_S):
            await stand.ready.wait()
        try:
            yield stand
        finally:
            stand.stop.set()
            async with asyncio.timeout(DEADLINE_S):
                await task


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    made = Stand(tmp_path)
    await made.archive.start()
    await made.control.start()
    async with running(made):
        yield made
    for bus in (made.archive.bus, made.control.bus, made.bus, made.control_bus):
        await bus.close()

"""A control, small but real in what matters: it signs orders, keeps the level, hears receipts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from nacl.signing import SigningKey

from checkrein.bus import orders, subjects
from checkrein.bus.memory import MemoryBus, MemoryServer
from checkrein.bus.messages import (
    Beat,
    BeatAnswer,
    Order,
    OrderRun,
    Progress,
    Registered,
    Registration,
    RunRecord,
    SessionGrant,
    decode,
    encode,
    progress_of,
)
from checkrein.bus.types import Message
from checkrein.supervise.journal import Journal, ListRecording
from checkrein.supervise.link import Link
from checkrein.supervise.supervisor import Supervisor
from checkrein.world import REAL

SESSION = "s1"


@dataclass
class Control:
    server: MemoryServer = field(default_factory=lambda: MemoryServer(REAL))
    key: SigningKey = field(default_factory=SigningKey.generate)
    runs: dict[str, RunRecord] = field(default_factory=dict)
    beats: list[Beat] = field(default_factory=list)
    receipts: list[Progress] = field(default_factory=list)
    standing: dict[str, bytes] = field(default_factory=dict)
    epoch: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)
    silent: bool = False

    async def open(self) -> None:
        self.bus = MemoryBus(self.server)
        self.desired = await self.bus.bucket(subjects.BUCKET_DESIRED)
        await self.bus.subscribe("reg.*", self._registered)
        await self.bus.subscribe("beat.*", self._beaten)
        await self.bus.subscribe("rcpt.*", self._receipt)

    def order(
        self, verb: Any, *runs: str, expires_at: int = 0, **arguments: Any
    ) -> tuple[str, bytes]:
        """A new order for these runs: its command's id, and it as it travels."""
        self.epoch += 1
        order = Order(
            command_id=f"c{self.epoch}",
            session=SESSION,
            verb=verb,
            runs=[OrderRun(run, self.epoch) for run in runs],
            reason="drill",
            issued_by="human:ann",
            issued_at=REAL.now_ns(),
            expires_at=expires_at,
            nonce=REAL.nonce(),
            arguments=arguments,
        )
        return order.command_id, orders.sign(order, self.key)

    async def send(self, verb: Any, *runs: str, edge: bool = True) -> str:
        """The level, then the edge."""
        command_id, signed = self.order(verb, *runs)
        if verb in orders.STATE_VERBS:
            for run in runs:
                await self.desired.put(subjects.desired_key(SESSION, run), signed)
        if edge:
            await self.bus.publish(subjects.command(SESSION), signed)
        return command_id

    def stages(self, command_id: str, run_id: str) -> list[str]:
        """The stages reached, `!` when confirmed."""
        return [
            f"{r.stage}{'!' if r.confirmed else ''}"
            for r in self.receipts
            if r.command_id == command_id and r.run_id == run_id
        ]

    async def wait(self, true: Any, seconds: float = 15.0) -> None:
        async with asyncio.timeout(seconds):
            while not true():
                self.news.clear()
                await self.news.wait()

    async def reached(self, command_id: str, run_id: str, stage: str) -> Progress:
        def found() -> list[Progress]:
            return [
                r
                for r in self.receipts
                if (r.command_id, r.run_id, r.stage) == (command_id, run_id, stage)
            ]

        await self.wait(found)
        return found()[0]

    async def _registered(self, message: Message) -> None:
        registration = decode(message.data, Registration)
        self.runs.update({run.run_id: run for run in registration.runs})
        mine = [
            self.standing[run.run_id] for run in registration.runs if run.run_id in self.standing
        ]
        await self.bus.respond(message, encode(Registered(orders=mine)))
        self.news.set()

    async def _beaten(self, message: Message) -> None:
        beat = decode(message.data, Beat)
        self.beats.append(beat)
        if self.silent:
            self.news.set()
            return
        answer = BeatAnswer(
            at=REAL.now_ns(),
            unknown=[one.run_id for one in beat.runs if one.run_id not in self.runs],
            ended=[one.run_id for one in beat.ended],
        )
        await self.bus.respond(message, encode(answer))
        self.news.set()

    async def _receipt(self, message: Message) -> None:
        self.receipts += progress_of(message.data)
        self.news.set()

    def grant(self) -> SessionGrant:
        return SessionGrant(
            session=SESSION, bus_urls=[], control_urls=["memory"], jwt="", seed="",
            control_key=bytes(self.key.verify_key).hex(), expires_at=0,
        )  # fmt: skip


@dataclass
class Bench:
    """A supervisor linked to a control, in memory."""

    control: Control
    supervisor: Supervisor
    recording: ListRecording
    link: Link
    connections: list[MemoryBus] = field(default_factory=list)


@asynccontextmanager
async def linked(**more: Any) -> AsyncIterator[Bench]:
    control = Control()
    await control.open()
    recording = ListRecording(REAL)
    supervisor = Supervisor(REAL, Journal(REAL, recording), **more)
    connections: list[MemoryBus] = []

    async def ask(agents: list[str], session: str) -> SessionGrant:
        return control.grant()

    async def connect(grant: SessionGrant) -> MemoryBus:
        connections.append(MemoryBus(control.server))
        return connections[-1]

    link = Link(supervisor, ask, connect)
    bench = Bench(control, supervisor, recording, link, connections)
    try:
        async with supervisor.serving(), asyncio.TaskGroup() as tasks:
            tasks.create_task(link.run())
            await link.linked.wait()
            try:
                yield bench
            finally:
                link.stop()
    finally:
        await link.close()
        await control.bus.close()

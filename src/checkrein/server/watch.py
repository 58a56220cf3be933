"""The role `watch`: reads every event, runs the detectors, publishes signals and incidents, and
asks control to halt what runs away.

What may be relied on: every event of the stream EVENTS is looked at once, in the order of its
lane; a restart neither repeats nor loses a signal (`detect.watcher`); nothing waits for this role.
It acts on no run itself: it asks `control` as people do, under the name `rule:<detector>`.

State is written to `data/watch/state.msgpack` every few seconds and when stopping. Without it, or
with one of another version, the stream is read again from its beginning.
"""

import asyncio
import logging
import os
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Literal

import msgspec

from checkrein.bus import subjects
from checkrein.bus.messages import CommandRequest, CommandState, MessageError, decode, encode
from checkrein.bus.pacts import PactSet, PactText, place_of
from checkrein.bus.types import Bucket, BusError, Entry
from checkrein.detect.catalogue import detectors
from checkrein.detect.engine import Engine
from checkrein.detect.incidents import Case, shown
from checkrein.detect.watcher import Outgoing, Watcher, envelope_of
from checkrein.policy.pact import PactError, default_pact
from checkrein.policy.pact_chain import EVERYONE, read_chain
from checkrein.policy.types import Pact
from checkrein.server.context import RoleContext
from checkrein.server.violations import Violations

_log = logging.getLogger(__name__)

SNAPSHOT_S = 5.0
SNAPSHOT_SHARE_MAX = 0.02
"""Writing state may take this share of the time; with much state it is written less often."""
TICK_S = 1.0
SENDING_MAX = 64
ASKING_MAX = 64
ASK_TRIES_MAX = 5
RETRY_S = 0.5
BUSY_MS_MAX = 5
IDLE_TICKS_MAX = 3
INCIDENTS_KEPT_MAX = 2_000
STATE_FILE = "state.msgpack"


async def run(context: RoleContext) -> None:
    """Serves until `context.stop`. Raises BusError when the buses cannot be prepared. Beside it
    the logs of the embedded servers are followed (`server.violations`)."""
    await Watch(context).run()


class Pacts:
    """What is and was in force, by agent and environment, as the bucket of levels has it;
    `default` holds for all others. The last few of each are known: events tell of decisions that
    were taken by them."""

    def __init__(self) -> None:
        self._pacts: dict[tuple[str, str], list[tuple[int, Pact]]] = {}
        self._default = default_pact()

    def of(self, agent: str, environment: str, version: str = "", at_ns: int | None = None) -> Pact:
        """The one of that version; else the one in force at that time. Without a time, and for what
        is older than all that is known: the one in force now."""
        place = place_of(environment)
        everyones = self._pacts.get((EVERYONE, place)) or []
        known = self._pacts.get((agent, place)) or everyones
        if not known:
            return self._default
        if version:
            for _, pact in (*reversed(known), *reversed(everyones)):
                if pact.version == version:
                    return pact
        for since_ns, pact in reversed(known):
            if at_ns is not None and since_ns <= at_ns:
                return pact
        return known[-1][1]

    def take(self, entry: Entry) -> tuple[str, str, Pact] | None:
        """A change of the bucket; what is now in force for an agent, if it has a pact. One that
        cannot be read changes nothing, as everywhere else."""
        agent, environment = subjects.pact_key_of(entry.key)
        if entry.value is None:
            self._pacts.pop((agent, environment), None)
            return None
        try:
            level = decode(entry.value, PactSet)
            known = [(each.since, _read(each.enforced)) for each in level.earlier]
            pact = _read(level.enforced)
        except (PactError, MessageError) as error:
            _log.error("a pact in force cannot be read, the one before holds here: %s", error)
            return None
        self._pacts[agent, environment] = [*known, (level.issued_at, pact)]
        return agent, environment, pact


def _read(texts: list[PactText]) -> Pact:
    return read_chain([(each.name, each.text) for each in texts])


class Watch:
    """One instance of the role. All state is touched by its own loop only."""

    def __init__(self, context: RoleContext) -> None:
        self._context = context
        self._bus, self._control = context.bus, context.control_bus
        self._world = context.world
        self._anchor_ns = context.world.now_ns() - context.world.monotonic_ns()
        self._pacts = Pacts()
        self._file = context.data / context.role / STATE_FILE
        self.watcher = self._new_watcher()
        self._news = asyncio.Event()
        self._orders, self._changes = asyncio.Event(), asyncio.Event()
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._kept: dict[str, int] = {}

    async def run(self) -> None:
        await self._bus.stream(subjects.EVENTS)
        incidents = await self._control.bucket(subjects.BUCKET_INCIDENTS)
        pacts = await self._control.bucket(subjects.BUCKET_PACT_LEVELS)
        for entry in await pacts.entries():
            self._pacts.take(entry)
        for entry in await incidents.entries():
            self._kept[entry.key] = entry.revision
        await self._take_up()
        async with asyncio.TaskGroup() as group:
            working = [
                group.create_task(self._read()),
                group.create_task(self._follow_pacts(pacts)),
                group.create_task(self._tick()),
                group.create_task(self._save()),
                group.create_task(Violations(self._context).run()),
            ]
            sending = [
                group.create_task(self._send()),
                group.create_task(self._ask(group)),
                group.create_task(self._keep(incidents)),
            ]
            self._context.ready()
            await self._context.stop.wait()
            await _cancelled(working)
            with suppress(TimeoutError):
                async with asyncio.timeout(2.0):
                    await self._all_sent()
            await _cancelled([*sending, *self._asking.values()])
        self._write(self.watcher.snapshot())

    # --- the stream ------------------------------------------------------------------------------

    def _now_ns(self) -> int:
        """A wall clock that never steps: right at the start, then as steady as the monotonic one.
        Silence is measured by it."""
        return self._anchor_ns + self._world.monotonic_ns()

    def _new_watcher(self) -> Watcher:
        def report(detector: str, error: str) -> None:
            _log.error("detector %s: %s", detector, error)

        engine = Engine(detectors(), self._pacts.of, report)
        return Watcher(engine, lambda who, what: _log.warning("%s: %s", who, what))

    async def _take_up(self) -> None:
        """Goes on from the last snapshot, if there is one that can be read."""
        last = await self._bus.last_position(subjects.EVENTS.name)
        with suppress(FileNotFoundError):
            try:
                self.watcher.restore(self._file.read_bytes())
            except ValueError as error:
                _log.warning("%s cannot be used, reading all again: %s", self._file, error)
                self.watcher = self._new_watcher()
        if self.watcher.position > last:
            _log.warning("the stream ends at %d, before the snapshot's %d: it is another one",
                         last, self.watcher.position)  # fmt: skip
            self.watcher.position = 0
        self.watcher.catch_up_to = last

    async def _read(self) -> None:
        watcher, monotonic_ns = self.watcher, self._world.monotonic_ns
        while True:
            try:
                since_ns = monotonic_ns()
                async for message in self._bus.read(subjects.EVENTS.name, after=watcher.position):
                    watcher.take(message, self._now_ns())
                    self._wake()
                    if monotonic_ns() - since_ns > BUSY_MS_MAX * 1_000_000:
                        await asyncio.sleep(0)
                        since_ns = monotonic_ns()
            except BusError as error:
                _log.warning("reading the stream: %s", error)
                await self._world.sleep(RETRY_S)

    async def _tick(self) -> None:
        idle, position = 0, -1
        while True:
            await self._world.sleep(TICK_S)
            watcher = self.watcher
            if watcher.catching_up:
                # What stood last in the stream may have expired: then nothing more will come.
                idle = idle + 1 if watcher.position == position and self._bus.connected else 0
                position = watcher.position
                if idle >= IDLE_TICKS_MAX:
                    watcher.catch_up_to = 0
            watcher.tick(self._now_ns())
            self._wake()

    async def _follow_pacts(self, bucket: Bucket) -> None:
        while True:
            with suppress(BusError):
                async for entry in bucket.watch():
                    changed = self._pacts.take(entry) if entry.key else None
                    if changed is not None:
                        self.watcher.engine.pact_changed(*changed)
            await self._world.sleep(RETRY_S)

    def _wake(self) -> None:
        """Wakes those who have something to send now."""
        watcher = self.watcher
        if watcher.catching_up:
            return
        if watcher.asks:
            self._orders.set()
        if watcher.outbox:
            self._news.set()
        if watcher.cases:
            self._changes.set()

    # --- what is sent ----------------------------------------------------------------------------

    async def _send(self) -> None:
        """Publishes the outbox until it is empty; then waits for news."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self.watcher.outbox and not self.watcher.catching_up:
                try:
                    async with asyncio.TaskGroup() as group:
                        for key, outgoing in islice(self.watcher.outbox.items(), SENDING_MAX):
                            group.create_task(self._publish(key, outgoing))
                except* BusError as errors:
                    _log.warning("signals wait for the bus: %s", errors.exceptions[0])
                    await self._world.sleep(RETRY_S)

    async def _publish(self, key: str, outgoing: Outgoing) -> None:
        await self._bus.append(*envelope_of(outgoing))
        self.watcher.sent(key)

    async def _ask(self, group: asyncio.TaskGroup) -> None:
        """Asks control for what the engine wants halted; signals do not hold it up."""
        while True:
            await self._orders.wait()
            self._orders.clear()
            for run_id, request in list(self.watcher.asks.items()):
                if run_id not in self._asking and len(self._asking) < ASKING_MAX:
                    self._asking[run_id] = group.create_task(self._ask_one(run_id, request))

    async def _ask_one(self, run_id: str, request: CommandRequest) -> None:
        """Asks until control has taken the order, or the run has ended, or control has said five
        times that it is not its to halt (a replayed run, or one that is not registered yet)."""
        refusals = 0
        while run_id in self.watcher.asks and refusals < ASK_TRIES_MAX:
            try:
                answer = await self._control.request(
                    subjects.CONTROL_COMMAND, encode(request), timeout_s=5.0
                )
                state = decode(answer, CommandState)
            except (BusError, MessageError) as error:
                _log.warning("control does not answer, run %s is to halt: %s", run_id, error)
                await self._world.sleep(RETRY_S)
                continue
            if state.runs or not state.error:
                break
            refusals += 1
            _log.info("run %s is not control's to halt: %s", run_id, state.error)
            await self._world.sleep(RETRY_S * refusals)
        self.watcher.asked(run_id)
        self._asking.pop(run_id, None)
        self._wake()

    async def _keep(self, bucket: Bucket) -> None:
        """Writes changed incidents to their bucket; what people have decided there stays."""
        while True:
            await self._changes.wait()
            self._changes.clear()
            for case in list(self.watcher.cases.values()):
                try:
                    await self._keep_one(bucket, case)
                except BusError as error:
                    _log.warning("incidents wait for the bus: %s", error)
                    await self._world.sleep(RETRY_S)
                    self._changes.set()
                    break

    async def _keep_one(self, bucket: Bucket, case: Case) -> None:
        standing = await bucket.get(case.incident_id)
        if standing is not None and standing.value:
            with suppress(msgspec.MsgspecError):
                decided = msgspec.msgpack.decode(standing.value, type=_Decided)
                case.status, case.owner = decided.status, decided.owner
                case.outcome = case.outcome or decided.outcome
        as_written = (case.count, case.outcome)
        value = msgspec.msgpack.encode(shown(case))
        self._kept[case.incident_id] = await bucket.put(case.incident_id, value)
        if as_written == (case.count, case.outcome):
            self.watcher.kept(case)
        while len(self._kept) > INCIDENTS_KEPT_MAX:
            oldest = min(self._kept, key=self._kept.__getitem__)
            del self._kept[oldest]
            await bucket.delete(oldest)

    async def _all_sent(self) -> None:
        watcher = self.watcher
        while not watcher.catching_up and (watcher.outbox or watcher.asks or watcher.cases):
            self._wake()
            await self._world.sleep(0.01)

    # --- what is remembered ----------------------------------------------------------------------

    async def _save(self) -> None:
        wait_s = SNAPSHOT_S
        while True:
            await self._world.sleep(wait_s)
            begun_ns = self._world.monotonic_ns()
            data = self.watcher.snapshot()
            took_s = (self._world.monotonic_ns() - begun_ns) / 1e9
            wait_s = max(SNAPSHOT_S, took_s / SNAPSHOT_SHARE_MAX)
            try:
                await asyncio.to_thread(self._write, data)
            except OSError as error:
                _log.error("%s cannot be written, a restart will read more again: %s",
                           self._file, error)  # fmt: skip

    def _write(self, data: bytes) -> None:
        """Whole or not at all: a new file, synced, then renamed over the old one."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._file)
        _sync_folder(self._file.parent)


class _Decided(msgspec.Struct):
    """What people may have changed in an incident."""

    status: Literal["open", "acknowledged", "closed"] = "open"
    owner: str = ""
    outcome: str = ""


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def _cancelled(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)

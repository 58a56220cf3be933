"""The shipper: carries what recorders hold to the bus, in the background.

`ShipperCore` (in `lanes`) decides; this drives it for any number of recorders on one connection,
those of this process and those of others. No event is lost between a recorder and the store: what
is not confirmed is read again by the next shipper. It may arrive more than once.
"""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterable
from typing import NamedTuple

from checkrein.bus import messages, subjects
from checkrein.bus.types import Bus, BusError, Handler, Message, Refused, Subscription
from checkrein.sdk.aside import aside
from checkrein.sdk.lane import Send
from checkrein.sdk.lanes import LINGER_NS, ShipperCore
from checkrein.sdk.reader import RingReader
from checkrein.sdk.recorder import Recorder
from checkrein.world import World

__all__ = ["Shipper", "ShipperCore", "ShipperStats"]

IN_FLIGHT_MAX = 64
"""Envelopes under way over all recorders of a shipper."""
TICK_S, TICK_IDLE_S, SLEEP_S = 0.005, 0.025, 0.25
BUSY_NS = 250_000_000
CONFIRM_NS = 1_000_000_000
ASK_NS_MIN, ASK_NS_MAX = 2_000_000_000, 8_000_000_000
OWNER_NS = 1_000_000_000
CLOSE_S = 2.0
SLICE_BYTES = 512 * 1024
SLICE_BYTES_HERE = 64 * 1024
"""Read at one look at a recorder of this process, before the agent's threads are let in again."""

_log = logging.getLogger("checkrein.shipper")


class ShipperStats(NamedTuple):
    """Events, over all recorders that this shipper has carried: `sent` (repeats not counted),
    `acked` by the bus, `stored`, `lag` (recorded and not yet in the store), `lost` (told by `loss`
    events)."""

    recorders: int
    sent: int
    acked: int
    stored: int
    lag: int
    lost: int


class _Load:
    """One recorder on its way."""

    def __init__(self, reader: RingReader, recorder: Recorder | None, remove: bool) -> None:
        self.reader = reader
        self.recorder = recorder
        self.remove = remove
        cursor = reader.cursor
        self.core = ShipperCore(
            reader.meta.recorder, agent=reader.meta.agent, upto=cursor.upto, state=cursor.state
        )
        self.confirmed = (cursor.upto, cursor.state)
        self.confirm_at_ns = 0
        self.confirming = False
        self.owner_at_ns = 0
        self.recovering = False
        self.dead = False
        self.drained = False
        self.asks: dict[str, tuple[int, int]] = {}

    @property
    def more(self) -> bool:
        return self.dead or self.reader.has_more() or self.core.read_after < self.reader.last_seq


class Shipper:
    """Ships `readers` over `bus`; more can be added and taken away while it runs.

    A recorder whose process is dead (or has closed it) is shipped to its end, and once the store
    has everything its folder is deleted, unless it was added with `remove=False`.
    """

    def __init__(self, readers: Iterable[RingReader], bus: Bus, world: World) -> None:
        self._bus = bus
        self._world = world
        self._loads: dict[str, _Load] = {}
        self._wake = asyncio.Event()
        self._turned = asyncio.Condition()
        self._hurry = 0
        self._in_flight = 0
        self._busy_ns = 0
        self._subscriptions: dict[str, Subscription | None] = {}
        self._said: set[str] = set()
        self._turns = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._gone = ShipperStats(0, 0, 0, 0, 0, 0)
        for reader in readers:
            self.add(reader)

    def add(
        self, reader: RingReader, recorder: Recorder | None = None, *, remove: bool = True
    ) -> None:
        """From the shipper's loop. `recorder`: the writer, when it is in this process; then an idle
        shipper sleeps until the next event instead of looking every 25 ms."""
        self._loads[reader.meta.recorder] = _Load(reader, recorder, remove)
        if recorder is not None:
            loop = asyncio.get_running_loop()
            recorder.on_waiting(lambda: _call_soon(loop, self._wake.set))
        self._wake.set()

    async def discard(self, recorder_id: str) -> None:
        """Lets go of a recorder as far as it has come; somebody else may go on from there."""
        load = self._loads.pop(recorder_id, None)
        if load is not None:
            if load.recorder is not None:
                load.recorder.on_waiting(None)
            while load.confirming or load.recovering:
                await self._world.sleep(TICK_S)
            await self._confirm(load)
            self._retire(load)
            load.reader.close()

    @property
    def recorders(self) -> set[str]:
        """The ids of the recorders being shipped."""
        return set(self._loads)

    def stats(self) -> ShipperStats:
        gone = self._gone
        cores = [load.core for load in self._loads.values()]
        lag = sum(
            max(0, load.reader.last_seq - load.core.cursor()[0]) for load in self._loads.values()
        )
        return ShipperStats(
            len(cores),
            gone.sent + sum(core.sent for core in cores),
            gone.acked + sum(core.acked_events for core in cores),
            gone.stored + sum(core.stored_events for core in cores),
            lag,
            gone.lost + sum(core.lost for core in cores),
        )

    async def flush(self, timeout_s: float) -> bool:
        """Waits until the bus has everything that is recorded now, at most so long. True if so.
        (The store may not have it yet; until then the recorders keep it.)"""
        self._hurry += 1
        self._wake.set()
        after = self._turns + 1  # a whole turn that began after this call
        try:
            async with asyncio.timeout(timeout_s), self._turned:
                await self._turned.wait_for(lambda: self._turns > after and self._all_acked())
        except TimeoutError:
            return False
        finally:
            self._hurry -= 1
        return True

    async def run(self, stop: asyncio.Event) -> None:
        """Ships until `stop` is set, then persists how far it has come and closes the readers.
        Call `flush` first for what should still go. Raises nothing of the bus's errors."""
        async with asyncio.TaskGroup() as group:
            self._start(group, self._stop_on(stop))
            self._bus.on_connection(self._on_connection)
            while not stop.is_set():
                now_ns = self._world.monotonic_ns()
                self._wake.clear()
                for load in list(self._loads.values()):
                    try:
                        self._turn(load, group, now_ns)
                    except Exception as error:
                        self._drop(load, error)
                self._turns += 1
                async with self._turned:
                    self._turned.notify_all()
                await self._pause()
            await self._wait_for_flights()
            for task in self._tasks:
                task.cancel()
        for recorder_id in list(self._loads):
            await self.discard(recorder_id)
        for subscription in self._subscriptions.values():
            if subscription is not None:
                with contextlib.suppress(BusError):
                    await subscription.close()
        self._subscriptions.clear()

    def _turn(self, load: _Load, group: asyncio.TaskGroup, now_ns: int) -> None:
        """One look at one recorder: read, send, ask, confirm, and see whether it has ended."""
        if load.recovering:
            return
        core, reader = load.core, load.reader
        if load.more and core.wants_bytes:
            slice_bytes = SLICE_BYTES_HERE if load.recorder else SLICE_BYTES
            records = reader.read(core.read_after, min(core.wants_bytes, slice_bytes))
            load.drained = not records
            if records:
                core.take(records, now_ns)
                self._busy_ns = now_ns
        if self._in_flight < IN_FLIGHT_MAX:
            for send in core.due(now_ns, hurry=self._hurry > 0):
                self._in_flight += 1
                self._start(group, self._send(load, send))
        for agent in core.agents - self._subscriptions.keys():
            self._subscriptions[agent] = None
            self._start(group, self._listen(agent))
        if now_ns >= load.confirm_at_ns:
            load.confirm_at_ns = now_ns + CONFIRM_NS
            self._ask(load, group, now_ns)
            if not load.confirming and core.cursor() != load.confirmed:
                load.confirming = True
                self._start(group, self._confirm(load))
        ends = (load.drained and core.all_safe) if load.dead else reader.closed_by_writer
        if ends or now_ns >= load.owner_at_ns:
            load.owner_at_ns = now_ns + OWNER_NS
            self._see_whether_ended(load, group)

    async def _send(self, load: _Load, send: Send) -> None:
        try:
            await self._bus.append(send.subject, send.data, send.message_id)
        except BusError as error:
            load.core.failed(send.message_id, self._world.monotonic_ns())
            if isinstance(error, Refused):
                self._say(f"the bus refuses {send.subject}: {error}; kept, and tried again")
        except Exception as error:
            load.core.failed(send.message_id, self._world.monotonic_ns())
            self._say(f"sending to {send.subject}: {type(error).__name__}: {error}; tried again")
        else:
            load.core.acked(send.message_id, self._world.monotonic_ns())
        finally:
            self._in_flight -= 1
            self._wake.set()

    async def _listen(self, agent: str) -> None:
        """Hears what the store has of this agent, for all recorders."""
        subject = f"stored.{subjects.token(agent)}.>"
        try:
            self._subscriptions[agent] = await self._bus.subscribe(subject, self._on_stored(agent))
        except BusError as error:
            self._say(f"cannot listen to {subject}: {error}; the store is asked instead")

    def _on_stored(self, agent: str) -> Handler:
        async def heard(message: Message) -> None:
            stored = messages.decode(message.data, messages.Stored)
            load = self._loads.get(stored.recorder)
            if load is not None:
                load.core.stored(agent, stored.upto, self._world.monotonic_ns())
                self._wake.set()

        return heard

    def _ask(self, load: _Load, group: asyncio.TaskGroup, now_ns: int) -> None:
        """Asks the store about agents with events on their way: news of it may have been lost."""
        if load.core.all_safe:
            return
        for agent in load.core.agents:
            at, pause = load.asks.get(agent, (0, ASK_NS_MIN))
            if now_ns >= at and self._bus.connected:
                load.asks[agent] = now_ns + pause, min(pause * 2, ASK_NS_MAX)
                self._start(group, self._ask_about(load, agent))

    async def _ask_about(self, load: _Load, agent: str) -> None:
        subject = subjects.stored_ask(agent, load.core.recorder)
        try:
            answer = messages.decode(await self._bus.request(subject, b""), messages.Stored)
        except (BusError, messages.MessageError):
            return
        now_ns = self._world.monotonic_ns()
        before = load.core.stored_events
        load.core.stored(agent, answer.upto, now_ns)
        if load.core.answered(agent, now_ns):
            _log.warning("the store lacks what the bus had taken from %s: sent again", agent)
        if load.core.stored_events != before:
            load.asks[agent] = now_ns + ASK_NS_MIN, ASK_NS_MIN
        self._wake.set()

    async def _confirm(self, load: _Load) -> None:
        """Tells the recorder what is safe. In a thread: it may wait for the disk."""
        upto, state = cursor = load.core.cursor()
        load.confirming = True
        try:
            await aside(load.reader.confirm, upto, state)
            load.confirmed = cursor
        except (OSError, ValueError) as error:
            self._say(f"cannot note progress in {load.reader.directory}: {error}")
        finally:
            load.confirming = False
            self._wake.set()

    def _see_whether_ended(self, load: _Load, group: asyncio.TaskGroup) -> None:
        if not load.dead:
            if not load.reader.owner_alive():
                load.recovering = True
                self._start(group, self._recover(load))
            elif load.reader.closed_by_writer:
                load.dead, load.drained = True, False
            return
        done = load.drained and load.core.all_safe and not load.confirming
        if done and load.remove:
            self._loads.pop(load.core.recorder, None)
            self._retire(load)
            load.reader.remove()

    async def _recover(self, load: _Load) -> None:
        try:
            recovered = await aside(load.reader.recover)
            for first, last in recovered.torn:
                load.core.chains_broken()
                self._say(f"{load.reader.directory}: numbers {first} to {last} are not on disk")
            load.dead, load.drained = True, False
        except (OSError, ValueError) as error:
            self._say(f"cannot recover {load.reader.directory}: {error}; tried again")
        finally:
            load.recovering = False
            self._wake.set()

    def _retire(self, load: _Load) -> None:
        gone, core = self._gone, load.core
        self._gone = ShipperStats(
            0, gone.sent + core.sent, gone.acked + core.acked_events,
            gone.stored + core.stored_events, 0, gone.lost + core.lost,
        )  # fmt: skip

    def _drop(self, load: _Load, error: Exception) -> None:
        """One recorder that cannot be read must not stop the others."""
        self._say(f"{load.reader.directory}: given up: {type(error).__name__}: {error}")
        self._loads.pop(load.core.recorder, None)
        self._retire(load)
        load.reader.close()

    def _all_acked(self) -> bool:
        return all(
            not load.recovering and (load.drained or not load.more) and not load.core.unacked
            for load in self._loads.values()
        )

    async def _pause(self) -> None:
        """Until something happens: 5 ms while events come, else longer; asleep when every recorder
        is of this process and will wake us."""
        now_ns = self._world.monotonic_ns()
        behind = any(load.more and load.core.wants_bytes for load in self._loads.values())
        if behind and now_ns - self._busy_ns < LINGER_NS:
            await asyncio.sleep(0)
            return
        wait_s = TICK_S if now_ns - self._busy_ns < BUSY_NS else TICK_IDLE_S
        if wait_s != TICK_S and all(load.recorder for load in self._loads.values()):
            wait_s = SLEEP_S
            for load in self._loads.values():
                load.reader.ask_to_be_woken()
            if any(load.reader.has_more() for load in self._loads.values()):
                return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._wake.wait()

    def _start(self, group: asyncio.TaskGroup, work: Coroutine[None, None, None]) -> None:
        task = group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _on_connection(self, connected: bool) -> None:
        if connected:
            for load in self._loads.values():
                load.core.hasten(self._world.monotonic_ns())
        self._wake.set()

    async def _stop_on(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()

    async def _wait_for_flights(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                while self._in_flight or any(
                    load.confirming or load.recovering for load in self._loads.values()
                ):
                    self._wake.clear()
                    await self._wake.wait()

    def _say(self, text: str) -> None:
        """Once for each text: trouble with the bus repeats at every try."""
        if text not in self._said and len(self._said) < 1000:
            self._said.add(text)
            _log.warning("%s", text)


def _call_soon(loop: asyncio.AbstractEventLoop, call: object) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody sleeps there any more
        loop.call_soon_threadsafe(call)  # type: ignore[arg-type] # a bound method

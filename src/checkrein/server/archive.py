"""The role `archive`: what comes over the bus is made durable, then acknowledged, and can be asked.

What may be relied on: an event is acknowledged to the bus, and confirmed to its recorder
(`Stored`), only after the store has it on disk; it is stored once however often it is delivered;
what cannot be stored is kept with the reason in the stream DEAD; what is missing in a lane is told
by a `loss` event. If the store fails or its disk is full, nothing is acknowledged, the bus keeps
everything, queries go on, `counts` says so, and writing goes on by itself when it can.
"""

import asyncio
import contextlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from checkrein.bus import subjects
from checkrein.bus.messages import Stored, encode
from checkrein.bus.types import BusError, Consumer, Message
from checkrein.events.envelope import Envelope, pack
from checkrein.server.archive_answers import Questions
from checkrein.server.archive_intake import (
    RECORDER,
    DeadLetter,
    Intake,
    Taken,
    forgeries,
)
from checkrein.server.context import RoleContext
from checkrein.server.said import message_of
from checkrein.store import RowRefused, Store, StoreError, StoreFull, open_store
from checkrein.store.types import Row

_log = logging.getLogger(__name__)

BATCH_MESSAGES_MAX = 128
BATCH_BYTES_MAX = 8 * 1024**2
WAITING_BYTES_MAX = 24 * 1024**2
FLUSH_GAP_S = 0.1
"""While events keep coming, writes begin at least this far apart; after a pause the first is
written at once."""
ACK_WAIT_S = 10.0
RETRY_S = 1.0
REST_S = 5.0
QUERIES_AT_ONCE = 4

T = TypeVar("T")


async def run(context: RoleContext) -> None:
    """Serves until `context.stop`; raises StoreError when the store cannot be opened."""
    with (
        ThreadPoolExecutor(1, "archive-write") as writing,
        ThreadPoolExecutor(QUERIES_AT_ONCE, "archive-read") as reading,
    ):
        loop = asyncio.get_running_loop()
        store = await loop.run_in_executor(
            writing, open_store, context.store_url or "memory://", context.world
        )
        try:
            await Archive(context, store, writing, reading).run()
        finally:
            await loop.run_in_executor(writing, store.close)


class Archive:
    """`writing` has one thread: all that writes, or touches the intake, goes through it."""

    def __init__(
        self,
        context: RoleContext,
        store: Store,
        writing: ThreadPoolExecutor,
        reading: ThreadPoolExecutor,
    ) -> None:
        self._context, self._store = context, store
        self._writing, self._reading = writing, reading
        self._bus, self._stop = context.bus, context.stop
        self._loop = asyncio.get_running_loop()
        self._intake = Intake(self._marks, context.world.now_ns, context.world.monotonic_ns)
        self._gaps_file = context.data / context.role / "gaps.msgpack"
        self._waiting: list[Message] = []
        self._writing_now: list[Message] = []
        self._waiting_bytes = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._tally: Counter[str] = Counter()
        self._trouble = ""
        self._trouble_since_ns = 0

    async def run(self) -> None:
        await self._bus.stream(subjects.EVENTS)
        await self._bus.stream(subjects.DEAD)
        await self._context.control_bus.stream(subjects.AUDIT)
        await self._in_writer(self._take_up_gaps)
        consumer = await self._bus.consumer(subjects.EVENTS.name, "archive", ack_wait_s=ACK_WAIT_S)
        async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            stack.push_async_callback(consumer.close)

            questions = Questions(self._bus, self._store, self._reading, self._status, group)
            for listening in (
                await self._bus.subscribe("history.*", questions.take, queue="archive"),
                await self._bus.subscribe("stored.ask.*.*", self._say_stored, queue="archive"),
            ):
                stack.push_async_callback(listening.close)
            self._context.ready()
            collecting = group.create_task(self._collect(consumer))
            holding = group.create_task(self._hold(consumer))
            keeping = group.create_task(self._keep(consumer))
            await self._stop.wait()
            self._news.set()
            await keeping
            collecting.cancel()
            holding.cancel()
            with contextlib.suppress(BusError):
                await consumer.later(self._waiting, 0)

    # --- from the bus to the store ---------------------------------------------------------------

    async def _collect(self, consumer: Consumer) -> None:
        """Fetches ahead of the writer, up to WAITING_BYTES_MAX."""
        while True:
            while self._waiting_bytes > WAITING_BYTES_MAX:
                self._room.clear()
                await self._room.wait()
            try:
                messages = await consumer.fetch(BATCH_MESSAGES_MAX, 1.0)
            except BusError as error:
                _log.warning("archive: waiting for the bus: %s", error)
                await self._context.world.sleep(RETRY_S)
                continue
            self._waiting += messages
            self._waiting_bytes += sum(len(message.data) for message in messages)
            if messages:
                self._news.set()

    async def _hold(self, consumer: Consumer) -> None:
        """Tells the bus that what waits here is being worked on: after a burst it may wait longer
        than the bus would before it sends everything again, which would make the wait longer."""
        while True:
            await self._context.world.sleep(ACK_WAIT_S / 3)
            with contextlib.suppress(BusError):
                await consumer.hold([*self._writing_now, *self._waiting])

    async def _keep(self, consumer: Consumer) -> None:
        """Writes what has been collected, batch by batch, until told to stop."""
        begun = -FLUSH_GAP_S
        rested = True
        while not self._stop.is_set():
            if not self._waiting and not await self._news_within(REST_S):
                rested = rested or await self._rest()
                await self._write(consumer, [])  # gaps whose time is up
                continue
            await self._pause(begun + FLUSH_GAP_S - self._loop.time())
            begun, rested = self._loop.time(), False
            await self._write(consumer, self._next_batch())

    async def _news_within(self, seconds: float) -> bool:
        self._news.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        return bool(self._waiting)

    async def _pause(self, seconds: float) -> None:
        """Waits, unless there is enough for a full batch already or it is time to stop."""
        deadline = self._loop.time() + seconds
        while not self._stop.is_set() and self._waiting_bytes < BATCH_BYTES_MAX:
            left = deadline - self._loop.time()
            if left <= 0 or len(self._waiting) >= BATCH_MESSAGES_MAX:
                return
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._news.wait()

    def _next_batch(self) -> list[Message]:
        count = size = 0
        for message in self._waiting[:BATCH_MESSAGES_MAX]:
            if count and size + len(message.data) > BATCH_BYTES_MAX:
                break
            count += 1
            size += len(message.data)
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        self._writing_now = batch
        self._waiting_bytes -= size
        self._room.set()
        return batch

    async def _write(self, consumer: Consumer, messages: Sequence[Message]) -> None:
        """Makes one batch durable and acknowledges it, however often that has to be tried. Returns
        without having done so only when told to stop: the bus then delivers it again."""
        taken = await self._insist(lambda: self._in_writer(self._intake.take, messages))
        if taken is None:
            return
        if taken.gaps_changed:
            await self._insist(lambda: self._in_writer(self._write_down_gaps))
        copied = await self._insist(lambda: self._copy(taken))
        new = await self._insist(lambda: self._in_writer(self._store_rows, taken))
        if copied is None or new is None:
            return
        if taken.dead and await self._insist(lambda: self._bury(taken.dead)) is None:
            return
        await self._insist(lambda: self._acknowledge(consumer, messages, taken))
        self._tally["stored"] += new
        self._tally["repeated"] += len(taken.rows) - new

    async def _insist(self, doing: Callable[[], Any]) -> Any:
        """The result of `doing`, tried again until it works; None when told to stop before."""
        while True:
            try:
                result = await doing()
            except (StoreError, BusError, OSError) as error:
                self._say_trouble(error)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_S):
                        await self._stop.wait()
                if self._stop.is_set():
                    return None
                continue
            self._say_trouble(None)
            return True if result is None else result

    def _say_trouble(self, error: Exception | None) -> None:
        if error is None:
            if self._trouble:
                _log.warning("archive: writing again")
            self._trouble = ""
            return
        full = isinstance(error, StoreFull)
        trouble = f"the disk of the store is full: {error}" if full else str(error)
        if not self._trouble:
            self._trouble_since_ns = self._context.world.monotonic_ns()
            _log.error(
                "archive: cannot write, will go on by itself; events wait on the bus, nothing is "
                "lost: %s%s", trouble, "; make room there" if full else "",
            )  # fmt: skip
        self._trouble = trouble

    def _store_rows(self, taken: Taken) -> int:
        """In the writing thread. A row that the store can never take becomes a dead letter."""
        while True:
            try:
                return self._store.write(taken.rows)
            except RowRefused as refused:
                name = (refused.agent, refused.recorder, refused.seq)
                left = [row for row in taken.rows if _name(row) != name]
                if len(left) == len(taken.rows):
                    raise
                taken.dead.append(_letter(refused, next(r for r in taken.rows if _name(r) == name)))
                taken.rows = left

    async def _copy(self, taken: Taken) -> None:
        """Refusals go to the audit stream, before anything is acknowledged."""
        for row in taken.rows:
            fields = row.fields
            if fields["type"] == "scope.decision" and fields.get("verdict") != "allow":
                name = f"{fields['agent']}/{fields['recorder']}/{fields['seq']}"
                await self._context.control_bus.append("audit.scope", encode(fields), name)

    async def _bury(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            name = f"{letter.subject}/{letter.position}/{letter.place}"
            await self._bus.append(subjects.dead(letter.agent), encode(letter), name)
            self._tally["refused"] += 1
            _log.warning(
                "archive: refused %s of message %d on %s: %s",
                letter.place, letter.position, letter.subject, letter.reason,
            )  # fmt: skip
        for event in forgeries(letters, self._context.world.now_ns()):
            await self._bus.append(*message_of(event))

    async def _acknowledge(
        self, consumer: Consumer, messages: Sequence[Message], taken: Taken
    ) -> None:
        await consumer.ack(messages)
        confirmed = await self._in_writer(self._confirm, taken)
        for (agent, recorder), upto in confirmed.items():
            await self._bus.publish(
                subjects.stored(agent, recorder), encode(Stored(recorder=recorder, upto=upto))
            )
        for finding in taken.told:
            self._tally[finding.kind] += 1
        for row in taken.rows:
            if row.fields["recorder"] == RECORDER and row.fields["type"] == "loss":
                _log.warning("archive: %s", _loss_text(row))
                await self._show(row)

    async def _show(self, row: Row) -> None:
        """A `loss` is stored already; on the bus it is seen by those who watch."""
        agent, seq = row.fields["agent"], row.fields["seq"]
        event = msgspec.Raw(msgspec.msgpack.encode(row.fields))
        envelope = Envelope(RECORDER, agent, row.partition, 0, b"", [seq], [event])
        await self._bus.append(
            subjects.events(agent, row.partition, RECORDER),
            pack(envelope),
            f"{RECORDER}/{agent}/{seq}",
        )

    def _confirm(self, taken: Taken) -> dict[tuple[str, str], dict[int, int]]:
        self._intake.durable(taken.lanes)
        names = {key[:2] for key in taken.lanes}
        return {name: self._intake.upto(*name) for name in names}

    async def _rest(self) -> bool:
        try:
            await self._in_writer(self._store.rest)
        except StoreError as error:
            _log.info("archive: %s", error)
            return False
        return True

    # --- lanes and gaps --------------------------------------------------------------------------

    def _marks(self, agent: str, recorder: str) -> dict[int, tuple[int, bytes]]:
        rows = self._store.query("marks", {"agent": agent, "recorder": recorder})
        return {row["partition"]: (row["seq"], bytes.fromhex(row["chain"])) for row in rows}

    def _write_down_gaps(self) -> None:
        write_durably(self._gaps_file, self._intake.gaps())

    def _take_up_gaps(self) -> None:
        try:
            self._intake.restore_gaps(self._gaps_file.read_bytes())
        except FileNotFoundError:
            return
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            _log.error(
                "archive: %s is damaged, open gaps are forgotten: %s", self._gaps_file, error
            )

    async def _say_stored(self, message: Message) -> None:
        try:
            _, _, agent, recorder = message.subject.split(".")
            agent, recorder = subjects.name_of(agent), subjects.name_of(recorder)
            upto = await self._in_writer(self._intake.upto, agent, recorder)
        except (ValueError, StoreError) as error:
            _log.warning("archive: cannot answer %s: %s", message.subject, error)
            return
        with contextlib.suppress(BusError):
            await self._bus.respond(message, encode(Stored(recorder=recorder, upto=upto)))

    def _status(self) -> dict[str, Any]:
        """What `counts` tells of the archive itself."""
        since_ns = self._context.world.monotonic_ns() - self._trouble_since_ns
        return {
            "writing": not self._trouble,
            "trouble": self._trouble,
            "trouble_s": round(since_ns / 1e9, 1) if self._trouble else 0.0,
            "waiting_messages": len(self._waiting),
            "waiting_bytes": self._waiting_bytes,
            **{name: self._tally[name] for name in _TALLIES},
        }

    async def _in_writer(self, call: Callable[..., T], *arguments: Any) -> T:
        return await self._loop.run_in_executor(self._writing, call, *arguments)


_TALLIES = ("stored", "repeated", "refused", "lost", "found", "changed")


def write_durably(path: Path, data: bytes) -> None:
    """Replaces a small file so that after a crash it is the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    with open(fresh, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _name(row: Row) -> tuple[str, str, int]:
    return row.fields["agent"], row.fields["recorder"], row.fields["seq"]


def _letter(refused: RowRefused, row: Row) -> DeadLetter:
    data = msgspec.msgpack.encode({k: repr(v) for k, v in row.fields.items()})
    return DeadLetter(
        subject=subjects.events(refused.agent, row.partition, refused.recorder), position=0,
        place=f"event {refused.seq} of {refused.recorder}", reason=refused.why,
        agent=refused.agent, recorder=refused.recorder, seq=refused.seq,
        data=data[:200_000], bytes=len(data),
    )  # fmt: skip


def _loss_text(row: Row) -> str:
    fields = row.fields
    return (
        f"events {fields['first']} to {fields['last']} of recorder {fields['lost_recorder']} "
        f"({fields['agent']}): {fields['count']} {fields['why']}"
    )

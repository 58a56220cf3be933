"""Ships every recorder below some folders, in a process of its own at a worse priority.

A process and not a thread, for two reasons: orders must never wait for a lock that shipping holds,
and a thread at a worse priority that holds Python's lock would make the supervisor as slow.

Recorders appear while it works (each process makes one). One whose process has died is shipped to
its end; one that everything is stored of is deleted by the shipper.
"""

import asyncio
import logging
import os
import select
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from checkrein.bus.messages import SessionGrant
from checkrein.bus.types import Bus, BusError
from checkrein.supervise.launch import name_process
from checkrein.world import World

if TYPE_CHECKING:
    from checkrein.sdk.shipper import Shipper

_log = logging.getLogger(__name__)
NICE = 10
LOOK_S = 0.1
RETRY_S = 0.5
STORED_S = 30.0
"""How long it goes on by itself, after the program's end, until the store has everything."""
STARTS_MAX = 4
FRAME_BYTES_MAX = 1024 * 1024


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Nothing will be added: bring it to the bus within `bus_s` and say so, then wait for the store
    without anybody waiting for you."""

    bus_s: float


class Use(msgspec.Struct, frozen=True, tag="use"):
    """Connect with this session."""

    grant: SessionGrant


_ENCODE = msgspec.msgpack.Encoder().encode
_DECODER = msgspec.msgpack.Decoder(Stop | Use)


class Shipping:
    """The supervisor's handle: `start` it before there are threads, tell it of every `granted`
    session, `look` now and then, `stop` it. If its supervisor dies it ends; what the store has not
    confirmed stays on disk."""

    def __init__(self, world: World, folders: Sequence[Path], ended: Callable[[], None]) -> None:
        self._world = world
        self._folders = list(folders)
        self._ended = ended
        self._words = -1
        self._answers = -1
        self._grant: SessionGrant | None = None
        self._starts = 0
        self.pid = 0

    def start(self) -> None:
        read, self._words = os.pipe()
        self._answers, answer = os.pipe()
        self._starts += 1
        pid = os.fork()
        if pid == 0:
            try:
                os.close(self._words)
                os.close(self._answers)
                _Work(self._world, self._folders, read, answer).main()
                self._ended()
            finally:
                os._exit(0)
        os.close(read)
        os.close(answer)
        self.pid = pid

    def granted(self, grant: SessionGrant) -> None:
        names = dict.fromkeys(grant.pacts, "")  # whom it is for; the pacts are not needed
        self._grant = msgspec.structs.replace(grant, pacts=names)
        self._say(Use(self._grant))

    def look(self) -> None:
        """Starts it again if it was killed; says once when that does not help."""
        if not self.pid or not self._gone():
            return
        self._close()
        if self._starts >= STARTS_MAX:
            _log.error("shipping was ended again and again; events stay on disk for the next run")
            return
        self.start()
        if self._grant is not None:
            self._say(Use(self._grant))

    async def stop(self, bus_s: float) -> bool:
        """Returns when the bus has all that is recorded (True), after `bus_s` at most. The process
        goes on by itself until the store has it, too, and then deletes what is done with."""
        if not self.pid:
            return False
        self._say(Stop(bus_s))
        os.close(self._words)
        self._words = -1
        said = await asyncio.to_thread(_hear_within, self._answers, bus_s + 0.5)
        self._close()
        return said

    def _close(self) -> None:
        for fd in (self._words, self._answers):
            if fd >= 0:
                os.close(fd)
        self._words = self._answers = -1
        self.pid = 0

    def _gone(self) -> bool:
        try:
            pid, _ = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return True
        return pid != 0

    def _say(self, word: Stop | Use) -> None:
        data = _ENCODE(word)
        with suppress(OSError):  # it has died: `look` starts it again
            os.write(self._words, len(data).to_bytes(4, "big") + data)


class _Work:
    """The shipping process."""

    def __init__(self, world: World, folders: list[Path], words: int, answers: int) -> None:
        self._world = world
        self._folders = folders
        self._words = words
        self._answers = answers
        self._heard = b""
        self._grant: SessionGrant | None = None
        self._changed = asyncio.Event()
        self._stopping = False
        self._bus_s = 0.0
        self._until_ns = 0

    def main(self) -> None:
        os.setpgid(0, 0)
        name_process("checkrein-ship")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)  # it ends when its supervisor does
        signal.set_wakeup_fd(-1)
        with suppress(OSError):
            os.nice(NICE)
        try:
            asyncio.run(self._main())
        except Exception:
            _log.exception("shipping has ended")

    def _hear(self) -> None:
        try:
            data = os.read(self._words, 65536)
        except BlockingIOError:
            return
        if not data:
            asyncio.get_running_loop().remove_reader(self._words)
            self._stopping = True  # at once, unless it was told how long it may go on
        self._heard += data
        while len(self._heard) >= 4:
            size = int.from_bytes(self._heard[:4], "big")
            if len(self._heard) < 4 + size:
                break
            word: Stop | Use = _DECODER.decode(self._heard[4 : 4 + size])
            self._heard = self._heard[4 + size :]
            match word:
                case Use(grant):
                    self._grant = grant
                case Stop(bus_s):
                    self._stopping = True
                    self._bus_s = bus_s
                    self._until_ns = self._world.monotonic_ns() + round(STORED_S * 1e9)
                    asyncio.get_running_loop().call_later(bus_s, self._let_go)
        self._changed.set()

    async def _main(self) -> None:
        os.set_blocking(self._words, False)
        asyncio.get_running_loop().add_reader(self._words, self._hear)
        while not self._over():
            grant = self._grant
            if grant is None:
                if self._stopping:
                    return  # nobody to ship to
                await self._wait(60.0)
                continue
            try:
                bus = await _connect(grant)
            except BusError as error:
                _log.info("no events bus: %s", error)
                await self._wait(RETRY_S)
                continue
            try:
                await self._ship(bus, grant)
            except Exception:
                _log.exception("shipping failed; beginning again from what is on disk")
                await self._wait(RETRY_S)
            finally:
                await bus.close()

    async def _ship(self, bus: Bus, grant: SessionGrant) -> None:
        """Until the end, or until the buses have moved or the session is for more agents: a
        connection keeps the permissions that it was made with."""
        from checkrein.sdk.shipper import Shipper

        shipper = Shipper([], bus, self._world)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(shipper.run(stop))
            try:
                while not self._over() and self._will_do(grant):
                    if self._grant is not None:
                        _renew(bus, self._grant)
                    self._take_up(shipper)
                    if self._stopping and not shipper.recorders:
                        break
                    if self._stopping and self._answers >= 0:
                        await self._tell_when_sent(shipper)
                    await self._wait(LOOK_S)
            finally:
                stop.set()

    def _take_up(self, shipper: "Shipper") -> None:
        """Recorders that have appeared, or that somebody else has let go of."""
        from checkrein.sdk.reader import RingReader
        from checkrein.sdk.ring import RingError

        for folder in self._folders:
            names = os.listdir(folder) if folder.is_dir() else []
            for name in names:
                if name not in shipper.recorders and (folder / name / "meta").exists():
                    try:
                        shipper.add(RingReader(folder / name))
                    except (RingError, OSError, ValueError) as error:
                        _log.info("cannot ship %s yet: %s", folder / name, error)

    async def _tell_when_sent(self, shipper: "Shipper") -> None:
        if await shipper.flush(self._bus_s):
            with suppress(OSError):
                os.write(self._answers, b".")
        self._let_go()

    def _let_go(self) -> None:
        """Nobody waits for us any more, nor for what we might print."""
        if self._answers >= 0:
            os.close(self._answers)
            self._answers = -1
            _let_go_of_the_terminal()

    def _will_do(self, grant: SessionGrant) -> bool:
        now = self._grant
        return now is None or (
            now.bus_urls == grant.bus_urls and now.pacts.keys() <= grant.pacts.keys()
        )

    def _over(self) -> bool:
        return self._stopping and self._world.monotonic_ns() >= self._until_ns

    async def _wait(self, seconds: float) -> None:
        if self._stopping:
            seconds = min(seconds, LOOK_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()


def _let_go_of_the_terminal() -> None:
    """Whoever reads the program's output sees its end now."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    os.close(nothing)


def _hear_within(fd: int, seconds: float) -> bool:
    """Whether a byte comes before the end, or the time is over."""
    ready, _, _ = select.select([fd], [], [], seconds)
    return bool(ready) and os.read(fd, 1) != b""


async def _connect(grant: SessionGrant) -> Bus:
    from checkrein.bus import nats, subjects
    from checkrein.bus.credentials import Credential

    return await nats.connect(
        grant.bus_urls, Credential(grant.jwt, grant.seed), name=f"shipping {grant.session}",
        inbox_prefix=subjects.inbox(grant.session),
    )  # fmt: skip


def _renew(bus: Bus, grant: SessionGrant) -> None:
    from checkrein.bus.credentials import Credential

    renew = getattr(bus, "renew", None)
    if renew is not None:
        renew(Credential(grant.jwt, grant.seed))

"""Ships every recorder below some folders, in a process of its own at a worse priority.

A process and not a thread, for two reasons: orders must never wait for a lock that shipping holds, and
a thread at a worse priority that holds Python's lock would make the whole supervisor as slow.

Recorders appear while it works (each process makes one). One whose process has died is shipped to
its end; one that everything is stored of is deleted by the shipper.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from checkrein.bus.messages import SessionGrant
from checkrein.bus.types import Bus, BusError
from checkrein.supervise.launch import name_process
from checkrein.world import World

_log = logging.getLogger(__name__)
NICE = 10
LOOK_S = 0.1
RETRY_S = 0.5
STOP_S = 5.0
STARTS_MAX = 4
FRAME_BYTES_MAX = 1024 * 1024


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Ship what is recorded until now, for at most so long, then end."""

    drain_s: float


class Use(msgspec.Struct, frozen=True, tag="use"):
    """Connect with this session."""

    grant: SessionGrant


_ENCODE = msgspec.msgpack.Encoder().encode
_DECODER = msgspec.msgpack.Decoder(Stop | Use)


class Shipping:
    """The supervisor's handle: `start` it before there are threads, tell it of every `granted`
    session, `look` now and then, `stop` it. If its supervisor dies it ends; what the store has not
    confirmed stays on disk."""

    def __init__(self, world: World, folders: Sequence[Path]) -> None:
        self._world = world
        self._folders = list(folders)
        self._words = -1
        self._grant: SessionGrant | None = None
        self._starts = 0
        self.pid = 0

    def start(self) -> None:
        read, self._words = os.pipe()
        self._starts += 1
        pid = os.fork()
        if pid == 0:
            try:
                os.close(self._words)
                _Work(self._world, self._folders, read).main()
            finally:
                os._exit(0)
        os.close(read)
        self.pid = pid

    def granted(self, grant: SessionGrant) -> None:
        self._grant = msgspec.structs.replace(grant, pacts={})
        self._say(Use(self._grant))

    def look(self) -> None:
        """Starts it again if it was killed; says once when that does not help."""
        if not self.pid or not self._gone():
            return
        os.close(self._words)
        self.pid = 0
        if self._starts >= STARTS_MAX:
            _log.error("shipping was ended again and again; events stay on disk for the next run")
            return
        self.start()
        if self._grant is not None:
            self._say(Use(self._grant))

    async def stop(self, drain_s: float) -> None:
        """Returns when it has ended, after `drain_s` and a little at most."""
        if not self.pid:
            return
        self._say(Stop(drain_s))
        os.close(self._words)
        until_ns = self._world.monotonic_ns() + round((drain_s + STOP_S) * 1e9)
        while not self._gone():
            if self._world.monotonic_ns() > until_ns:
                with suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
            await self._world.sleep(0.01)
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

    def __init__(self, world: World, folders: list[Path], words: int) -> None:
        self._world = world
        self._folders = folders
        self._words = words
        self._heard = b""
        self._grant: SessionGrant | None = None
        self._changed = asyncio.Event()
        self._stopping = False
        self._drain_until_ns = 0

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
            self._stopping = True  # its drain time stands if it was told one, else it is now
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
                case Stop(drain_s):
                    self._stopping = True
                    self._drain_until_ns = self._world.monotonic_ns() + round(drain_s * 1e9)
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
        """Until the end, or until the buses have moved."""
        from checkrein.sdk.shipper import Shipper

        shipper = Shipper([], bus, self._world)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(shipper.run(stop))
            try:
                while not self._over() and self._same_buses(grant):
                    if self._grant is not None:
                        _renew(bus, self._grant)
                    self._take_up(shipper)
                    if self._stopping and not shipper.recorders:
                        break
                    await self._wait(LOOK_S)
            finally:
                stop.set()

    def _take_up(self, shipper: object) -> None:
        """Recorders that have appeared, or that somebody else has let go of."""
        from checkrein.sdk.reader import RingReader
        from checkrein.sdk.ring import RingError
        from checkrein.sdk.shipper import Shipper

        assert isinstance(shipper, Shipper)  # noqa: S101 # for the type only: imported late
        for folder in self._folders:
            names = os.listdir(folder) if folder.is_dir() else []
            for name in names:
                if name not in shipper.recorders and (folder / name / "meta").exists():
                    try:
                        shipper.add(RingReader(folder / name))
                    except (RingError, OSError, ValueError) as error:
                        _log.info("cannot ship %s yet: %s", folder / name, error)

    def _same_buses(self, grant: SessionGrant) -> bool:
        return self._grant is None or self._grant.bus_urls == grant.bus_urls

    def _over(self) -> bool:
        return self._stopping and self._world.monotonic_ns() >= self._drain_until_ns

    async def _wait(self, seconds: float) -> None:
        if self._stopping:
            seconds = min(seconds, LOOK_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()


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

"""The supervisor's end of `sdk.local`: a Unix socket on which the agent's processes speak.

Who may speak: processes of our own user (the folder is 0700 and the kernel tells the peer's uid)
that are in a tree we hold (the kernel tells the peer's pid). All others are hung up on and counted.
What a process says is believed only about the unit it is in.
"""

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec

from checkrein.bus.pacts import Holding
from checkrein.sdk.local import (
    FRAME_BYTES_MAX,
    FromAgent,
    FromSupervisor,
    Hello,
    Welcome,
)

_log = logging.getLogger(__name__)
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(FromAgent)
PEERS_MAX = 4096
OUTBOX_BYTES_MAX = 4 * 1024 * 1024
_CREDENTIALS = struct.Struct("3i")


class Peer:
    """One connected process of an agent. Sending never waits: a peer that does not read is hung up
    on when more than OUTBOX_BYTES_MAX wait for it (a frozen one reads nothing, and may)."""

    def __init__(self, pid: int, writer: asyncio.StreamWriter) -> None:
        self.pid = pid
        self.recorder = ""
        self.holdings: list[Holding] = []
        """Which pacts it says it lives by."""
        self._writer = writer

    def send(self, message: FromSupervisor) -> None:
        if self._writer.is_closing():
            return
        if self._writer.transport.get_write_buffer_size() > OUTBOX_BYTES_MAX:
            self.close()
            return
        data = _ENCODER.encode(message)
        self._writer.write(len(data).to_bytes(4, "big") + data)

    def close(self) -> None:
        self._writer.close()


class Household(Protocol):
    """Whom the socket speaks for."""

    def unit_of(self, pid: int) -> str | None:
        """The unit whose tree holds this process; None: nobody's."""

    def came(self, unit: str, peer: Peer, hello: Hello) -> Welcome: ...

    def said(self, unit: str, peer: Peer, message: FromAgent) -> None: ...

    def left(self, unit: str, peer: Peer) -> None: ...


class LocalServer:
    """Serves `path` until closed."""

    def __init__(self, path: Path, household: Household) -> None:
        self.path = path
        self._household = household
        self._server: asyncio.Server | None = None
        self._peers: set[Peer] = set()
        self._vouched: dict[bytes, int] = {}
        self.refused = 0

    def vouch(self, name: bytes, pid: int) -> None:
        """A connection under this abstract name, made by ourselves, is the process's `pid`: that of
        a confined one."""
        while len(self._vouched) >= PEERS_MAX:
            del self._vouched[next(iter(self._vouched))]
        self._vouched[name] = pid

    async def open(self) -> None:
        """Raises OSError when the folder cannot be made or the path is too long for a socket."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(self.path.parent, 0o700)  # once, before anything is served
        with suppress(FileNotFoundError):
            self.path.unlink()
        self._server = await asyncio.start_unix_server(
            self._serve, str(self.path), limit=FRAME_BYTES_MAX + 4, backlog=1024
        )
        os.chmod(self.path, 0o600)  # as above

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            for peer in list(self._peers):
                peer.close()
            await self._server.wait_closed()
        with suppress(FileNotFoundError):
            self.path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._converse(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
            _log.warning("an agent's process sent what is no frame: %s", error)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pid, uid = peer_of(writer.get_extra_info("socket"))
        if pid == os.getpid():
            pid = self._vouched.pop(writer.get_extra_info("peername") or b"", pid)
        unit = self._household.unit_of(pid) if uid == os.getuid() else None
        if unit is None or len(self._peers) >= PEERS_MAX:
            self.refused += 1
            _log.warning("refused a process on the agent's socket: pid %d, uid %d", pid, uid)
            return
        hello = await read_frame(reader)
        if not isinstance(hello, Hello):
            raise ValueError(f"first came {type(hello).__name__}, not Hello")
        peer = Peer(pid, writer)
        peer.recorder = hello.recorder
        self._peers.add(peer)
        try:
            peer.send(self._household.came(unit, peer, hello))
            while True:
                self._household.said(unit, peer, await read_frame(reader))
        finally:
            self._peers.discard(peer)
            self._household.left(unit, peer)


async def read_frame(reader: asyncio.StreamReader) -> FromAgent:
    """Raises ValueError on an oversized frame, msgspec's errors on a malformed one."""
    size = int.from_bytes(await reader.readexactly(4), "big")
    if size > FRAME_BYTES_MAX:
        raise ValueError(f"a frame of {size} bytes, more than {FRAME_BYTES_MAX}")
    message: FromAgent = _DECODER.decode(await reader.readexactly(size))
    return message


def peer_of(sock: socket.socket) -> tuple[int, int]:
    """The pid and uid at the other end, as the kernel noted them when it connected."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(data)
    return pid, uid


def short_path(folder: Path, fallback: Callable[[], Path]) -> Path:
    """A socket's path may have 107 bytes; a longer one goes to `fallback`'s folder."""
    path = folder / "agent.sock"
    return path if len(os.fsencode(path)) <= 100 else fallback() / "agent.sock"


def holdings_of(peers: Iterable[Peer]) -> list[Holding]:
    """What these processes say they enforce, those that say the same as one."""
    counts: dict[Holding, int] = {}
    for peer in peers:
        for holding in peer.holdings:
            counts[holding] = counts.get(holding, 0) + 1
    return [msgspec.structs.replace(holding, processes=count) for holding, count in counts.items()]

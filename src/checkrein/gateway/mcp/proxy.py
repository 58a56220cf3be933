"""`checkrein mcp`: stands in place of a tool server that a client would start itself.

It starts the server, and hands every line of either side to the gateway, which judges it and says
where it goes on (`tunnel`). It reads no message itself and decides nothing: without a gateway there
is nothing that may pass, and a client is told so in the protocol's own words.

Only the standard library is imported, and no more of it than needed: a client waits for the start.
"""

import asyncio
import contextlib
import json
import os
import signal
import stat
import sys
import threading
from dataclasses import dataclass, field
from typing import BinaryIO
from urllib.parse import quote, urlsplit

LINE_BYTES_MAX = 4 * 1024 * 1024 + 64
CONNECT_S = 5.0
TERM_S = 2.0
REFUSED = -32050
NO_GATEWAY = 1


class NoGateway(Exception):
    """Nobody judges, so nothing passes: why, and what to do."""


@dataclass(frozen=True)
class Way:
    """Where the gateway is (`http://…`, `https://…` or `unix:PATH`), and as whom to ask it."""

    gateway: str
    key: str
    run: str = ""
    headers: dict[str, str] = field(default_factory=dict)


class Proxy:
    """Between a client (our own standard input and output), a server and the gateway."""

    def __init__(self, name: str, command: tuple[str, ...], way: Way | None, why: str = "") -> None:
        self._name, self._command, self._way, self._why = name, command, way, why

    async def run(self) -> int:
        """Until the client, the server or the gateway is gone; the exit code."""
        client_in, client_out = await _standard_streams()
        if self._way is None:
            return await _refuse_all(client_in, client_out, self._why)
        try:
            up, down = await _open(self._way, self._name)
        except NoGateway as error:
            return await _refuse_all(client_in, client_out, str(error))
        try:
            server = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                limit=LINE_BYTES_MAX, start_new_session=True, env=_for_the_server(),
            )  # fmt: skip
        except OSError as error:
            down.close()
            why = f"{self._command[0]} cannot be started: {error.strerror}"
            return await _refuse_all(client_in, client_out, why)
        return await self._between(client_in, client_out, server, up, down)

    async def _between(
        self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter,
        server: asyncio.subprocess.Process, up: asyncio.StreamReader, down: asyncio.StreamWriter,
    ) -> int:  # fmt: skip
        assert server.stdin is not None  # noqa: S101 # asked for
        assert server.stdout is not None  # noqa: S101 # asked for
        told: list[str] = []
        ways = [
            asyncio.ensure_future(_up(client_in, b"c", down)),
            asyncio.ensure_future(_up(server.stdout, b"s", down)),
            asyncio.ensure_future(_down(up, client_out, server.stdin, told)),
        ]
        stopped = asyncio.get_running_loop().create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, _set, stopped)
        done, _ = await asyncio.wait([*ways, stopped], return_when=asyncio.FIRST_COMPLETED)
        failed = ways[2] in done
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        down.close()
        code = await _ended(server)
        if failed:
            why = told[0] if told else "the gateway is gone"
            _say(f"{why}: nothing passes without it, so the tool server {self._name} was ended")
            return NO_GATEWAY
        return code if ways[1] in done and code is not None and code > 0 else 0


async def _up(reader: asyncio.StreamReader, whose: bytes, writer: asyncio.StreamWriter) -> None:
    """Lines of one side to the gateway, until that side ends."""
    while line := await reader.readline():
        if line.strip():
            data = whose + (line if line.endswith(b"\n") else line + b"\n")
            writer.write(b"%x\r\n%s\r\n" % (len(data), data))
            await writer.drain()


async def _down(
    reader: asyncio.StreamReader, client: asyncio.StreamWriter, server: asyncio.StreamWriter,
    told: list[str],
) -> None:  # fmt: skip
    """What the gateway lets pass, to whom it is for; until it ends, or has a word for us."""
    rest = b""
    while size := int((await reader.readline()).split(b";")[0] or b"0", 16):
        piece = await reader.readexactly(size)
        await reader.readexactly(2)
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            match line[:1]:
                case b"c":
                    client.write(line[1:] + b"\n")
                    await client.drain()
                case b"s":
                    server.write(line[1:] + b"\n")
                    await server.drain()
                case b"x" if len(line) > 1:
                    told.append(line[1:].decode("utf-8", "replace"))
                    return


async def _open(way: Way, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The one request that carries all. Raises NoGateway."""
    try:
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await _connected(way.gateway)
            head = {
                "Host": urlsplit(way.gateway).netloc or "gateway",
                "Authorization": f"Bearer {way.key}", "Transfer-Encoding": "chunked",
                "Content-Type": "application/octet-stream", **way.headers,
            }  # fmt: skip
            if way.run:
                head["X-Checkrein-Run"] = way.run
            lines = [f"POST /mcp-stdio/{quote(name, safe='')} HTTP/1.1"]
            lines += [f"{key}: {value}" for key, value in head.items()]
            writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace"))
            status = (await reader.readline()).split()
            length = 0
            while (line := await reader.readline()).strip():
                key, _, value = line.partition(b":")
                if key.lower() == b"content-length" and value.strip().isdigit():
                    length = int(value)
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
        why = error.strerror if isinstance(error, OSError) else None
        raise NoGateway(
            f"no gateway answers at {way.gateway} ({why or type(error).__name__}); start one with "
            "`checkrein up`, or name it with --gateway or CHECKREIN_GATEWAY"
        ) from error
    if len(status) < 2 or status[1] != b"200":
        raise NoGateway(_refusal(await reader.readexactly(min(length, 65_536)), way.gateway))
    return reader, writer


async def _connected(gateway: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if gateway.startswith("unix:"):
        return await _connected_by_path(gateway.removeprefix("unix:"))
    parts = urlsplit(gateway)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{gateway!r} is no address")
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    return await asyncio.open_connection(
        parts.hostname, port, ssl=True if secure else None, limit=LINE_BYTES_MAX
    )


async def _connected_by_path(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """However long the path is: a socket's own name may have no more than 107 bytes."""
    folder, name = path.rsplit("/", 1)
    descriptor = os.open(folder or "/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        if sys.platform == "linux":
            path = f"/proc/self/fd/{descriptor}/{name}"
        return await asyncio.open_unix_connection(path, limit=LINE_BYTES_MAX)
    finally:
        os.close(descriptor)


def _refusal(body: bytes, gateway: str) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{gateway} does not answer like a gateway of ours"


async def _refuse_all(
    client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter, why: str
) -> int:
    """Answers every request with the reason, until the client ends. The server is not started."""
    _say(why)
    while line := await client_in.readline():
        try:
            message = json.loads(line)
        except ValueError:
            continue
        if isinstance(message, dict) and "id" in message and "method" in message:
            told = {"code": REFUSED, "message": f"checkrein: {why}"}
            answer = {"jsonrpc": "2.0", "id": message["id"], "error": told}
            client_out.write(json.dumps(answer).encode() + b"\n")
            await client_out.drain()
    return NO_GATEWAY


async def _ended(server: asyncio.subprocess.Process) -> int | None:
    """Closes the server's input, then asks it to end, then ends it and all it has started."""
    if server.stdin is not None:
        server.stdin.close()
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        if number is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(server.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TERM_S):
                await server.wait()
            break
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(server.pid, signal.SIGKILL)
    return server.returncode


async def _standard_streams() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(LINE_BYTES_MAX)
    source, target = _as_pipe(0), _as_pipe(1)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), source)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, target)
    return reader, asyncio.StreamWriter(transport, protocol, None, loop)


def _as_pipe(descriptor: int) -> BinaryIO:
    """One of our standard streams, as something that can be waited for. A file or /dev/null cannot:
    a thread carries it to a pipe."""
    if stat.S_ISFIFO(mode := os.fstat(descriptor).st_mode) or stat.S_ISSOCK(mode):
        return os.fdopen(os.dup(descriptor), "wb" if descriptor else "rb", buffering=0)
    far, near = os.pipe() if descriptor == 0 else reversed(os.pipe())
    ends = (descriptor, near) if descriptor == 0 else (near, descriptor)
    threading.Thread(target=_carry, args=ends, daemon=True).start()
    return os.fdopen(far, "wb" if descriptor else "rb", buffering=0)


def _carry(source: int, target: int) -> None:
    with contextlib.suppress(OSError):
        while piece := os.read(source, 65_536):
            while piece:
                piece = piece[os.write(target, piece) :]
    if target > 2:
        os.close(target)


def _for_the_server() -> dict[str, str]:
    """The client's environment, without what speaks for the agent."""
    ours = ("CHECKREIN_KEY", "CHECKREIN_TOKEN")
    return {name: value for name, value in os.environ.items() if name not in ours}


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _say(text: str) -> None:
    sys.stderr.write(f"checkrein mcp: {text}\n")
    sys.stderr.flush()

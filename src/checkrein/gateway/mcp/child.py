"""A tool server that the gateway itself starts: a child that speaks lines of JSON.

It gets a plain environment: nothing of ours, none of the providers' keys; what it needs is in its
command or in `key_env`. It ends with its session.
"""

import asyncio
import logging
import os
import signal
from contextlib import suppress
from typing import Any

from checkrein.gateway.mcp.link import failed
from checkrein.gateway.mcp.pipe import PipeLink
from checkrein.gateway.mcp.rpc import MESSAGE_BYTES_MAX
from checkrein.gateway.settings import McpServer
from checkrein.gateway.types import Refusal

TERM_S = 2.0
BAD_LINES_MAX = 100
_PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "LOGNAME", "VIRTUAL_ENV",
           "PYTHONPATH", "NODE_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "HTTP_PROXY",
           "NO_PROXY")  # fmt: skip
_log = logging.getLogger(__name__)


def environment(server: McpServer) -> dict[str, str]:
    names = (*_PASSED, server.key_env) if server.key_env else _PASSED
    return {name: os.environ[name] for name in names if name in os.environ}


class Child:
    """A process and its link. `gone` is set when it has ended, however."""

    def __init__(self, server: McpServer, process: asyncio.subprocess.Process) -> None:
        self._server, self._process = server, process
        self.link = PipeLink(server.name, server.timeout_s, self._write)
        self._reading = [
            asyncio.ensure_future(self._read()), asyncio.ensure_future(self._complaints()),
        ]  # fmt: skip

    async def _write(self, line: bytes) -> None:
        stdin = self._process.stdin
        if stdin is None or stdin.is_closing():
            raise BrokenPipeError("its input is closed")
        stdin.write(line + b"\n")
        await stdin.drain()

    async def _read(self) -> None:
        stdout, bad = self._process.stdout, 0
        while stdout is not None:
            try:
                line = await stdout.readline()
            except (ValueError, OSError) as error:
                self.link.broke(f"a line of it could not be read: {error}"[:200])
                break
            if not line.endswith(b"\n"):
                break
            if not line.strip():
                continue
            try:
                await self.link.took(line)
            except Refusal as refusal:
                bad += 1
                _log.warning("tool server %s: %s", self._server.name, refusal.reason)
                if bad >= BAD_LINES_MAX:
                    self.link.broke("it writes what is no message")
                    break
        code = self._process.returncode
        self.link.broke("it has ended" + (f" with {code}" if code is not None else ""))

    async def _complaints(self) -> None:
        """Its standard error goes to our log, a bounded part of each piece."""
        stderr = self._process.stderr
        while stderr is not None and (piece := await stderr.read(4096)):
            text = piece.decode("utf-8", "replace").rstrip()
            _log.info("tool server %s says: %s", self._server.name, text[:500])

    async def close(self) -> None:
        """Closes its input, then asks it to end, then ends it. Never raises."""
        process = self._process
        self.link.broke("its session is over")
        if process.stdin is not None:
            process.stdin.close()
        for how in (None, signal.SIGTERM, signal.SIGKILL):
            if how is not None:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, how)
            with suppress(TimeoutError):
                async with asyncio.timeout(TERM_S):
                    await process.wait()
                break
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # whatever it has started
        for task in self._reading:
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)


async def start(server: McpServer) -> Child:
    """Raises Refusal when it cannot be started."""
    options: dict[str, Any] = {"start_new_session": True, "limit": MESSAGE_BYTES_MAX}
    try:
        process = await asyncio.create_subprocess_exec(
            *server.command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, env=environment(server), **options,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise failed(server.name, f"{server.command[0]} cannot be started: {error}") from error
    return Child(server, process)

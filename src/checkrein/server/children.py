"""Child processes that are kept running: started, watched, started again with back-off.

Each child is in a session of its own (a Ctrl-C in the terminal is for `up` alone) and dies with its
parent, so that a killed `up` leaves nothing behind.
"""

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_log = logging.getLogger(__name__)
_BACKOFF_S = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0)
_STEADY_S = 20.0
_LOG_BYTES_MAX = 8 * 1024 * 1024
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class ChildSpec:
    """`command` is asked anew at each start. `nice` is added to our own. `stop_s`: how long a child
    may take to finish after SIGTERM before it is killed."""

    name: str
    command: Callable[[], list[str]]
    log: Path
    nice: int = 0
    stop_s: float = 10.0
    says_ready: bool = False


Say = Callable[[str, str], None]
"""`say(child, what happened)`, for the terminal."""


class Child:
    """One kept process. `ready` is set while it says that it serves."""

    def __init__(self, spec: ChildSpec, say: Say) -> None:
        self.spec = spec
        self.ready = asyncio.Event()
        self.restarts = 0
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    async def keep(self) -> None:
        """Runs the child until `stop`, starting it again whenever it ends."""
        loop = asyncio.get_running_loop()
        failures = 0
        while not self._stopping:
            started = loop.time()
            try:
                code = await self._run_once()
            except OSError as error:
                code = -1
                self._say(self.spec.name, f"cannot be started: {error}")
            self.ready.clear()
            if self._stopping:
                return
            if loop.time() - started > _STEADY_S:
                failures = 0
            delay = _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)]
            failures += 1
            self.restarts += 1
            self._say(self.spec.name, f"{_how_it_ended(code)}; starting again in {delay:g} s")
            if failures > 2:
                self._say(self.spec.name, f"its last words, from {self.spec.log}:\n{self._tail()}")
            await asyncio.sleep(delay)

    def restart(self) -> None:
        """Ends the process with SIGTERM; `keep` starts it again. Nothing while it is not up."""
        if self._process is not None and self._process.poll() is None:
            with suppress(ProcessLookupError):
                self._process.terminate()

    async def stop(self) -> None:
        """SIGTERM, then after `stop_s` SIGKILL. Returns when the process is gone."""
        self._stopping = True
        process = self._process
        if process is None or process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        deadline = asyncio.get_running_loop().time() + self.spec.stop_s
        while process.poll() is None:
            if asyncio.get_running_loop().time() > deadline:
                self._say(self.spec.name, f"did not stop within {self.spec.stop_s:g} s: killed")
                process.kill()
                deadline = float("inf")
            await asyncio.sleep(0.01)

    async def _run_once(self) -> int:
        reading, writing = os.pipe()
        environment = dict(os.environ)
        if self.spec.says_ready:
            environment["CHECKREIN_READY_FD"] = str(writing)
        try:
            with self._open_log() as log:
                self._process = subprocess.Popen(  # noqa: ASYNC220, S603 # returns at once; our own command
                    self.spec.command(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    pass_fds=(writing,) if self.spec.says_ready else (),
                    start_new_session=True,
                    preexec_fn=self._in_child,  # no other thread forks here
                )
        finally:
            os.close(writing)
        try:
            if not self.spec.says_ready:
                self.ready.set()
            return await self._until_it_ends(reading)
        finally:
            os.close(reading)

    async def _until_it_ends(self, reading: int) -> int:
        process = self._process
        assert process is not None  # noqa: S101 # just started
        os.set_blocking(reading, False)
        handle = os.pidfd_open(process.pid)
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(handle, ended.set)

        def heard() -> None:
            with suppress(BlockingIOError):
                if os.read(reading, 64):
                    self.ready.set()
            loop.remove_reader(reading)

        loop.add_reader(reading, heard)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(handle)
            loop.remove_reader(reading)
            os.close(handle)
        return process.wait()

    def _in_child(self) -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if self.spec.nice:
            os.nice(self.spec.nice)

    def _open_log(self) -> BinaryIO:
        self.spec.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(OSError):
            if self.spec.log.stat().st_size > _LOG_BYTES_MAX:
                self.spec.log.replace(self.spec.log.with_suffix(".old.log"))
        return open(self.spec.log, "ab")  # closed by the caller

    def _tail(self, lines: int = 12) -> str:
        with suppress(OSError):
            text = self.spec.log.read_bytes()[-8192:].decode(errors="replace")
            return "\n".join("    " + line for line in text.splitlines()[-lines:])
        return ""


def _how_it_ended(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            return f"died by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"

"""Starting a program under control: a child that is held before it becomes the program.

The child is forked first and waits: in its own process group, in its cgroup, with the terminal.
Only when it is told its environment does it become the program, so there is no moment at which the
program runs and is not held. If whoever forked it dies before that, it ends without a trace.
"""

import ctypes
import errno
import gc
import os
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

import msgspec

from checkrein.supervise import proc
from checkrein.supervise.cgroup import Leaf
from checkrein.supervise.confine import enter
from checkrein.supervise.confine.plan import Plan
from checkrein.supervise.confine.shelf import Shelf

EXIT_NOT_CONFINED = 125
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
_GO_BYTES_MAX = 16 * 1024 * 1024
_ERROR_BYTES_MAX = 4096
_IN_WORDS = b"!"


class CannotStart(Exception):
    """The program could not be executed. `exit_code` is what a shell would answer."""

    def __init__(self, program: str, number: int) -> None:
        super().__init__(f"cannot run {program}: {os.strerror(number)}")
        self.exit_code = EXIT_NOT_FOUND if number == errno.ENOENT else EXIT_NOT_EXECUTABLE


class CannotConfine(CannotStart):
    """The program was to be confined, and could not be. The message says why."""

    def __init__(self, why: str) -> None:
        Exception.__init__(self, f"not started: {why}")
        self.exit_code = EXIT_NOT_CONFINED


class Go(msgspec.Struct, frozen=True):
    """What the held child is told: what to become, the signal that it gets when its supervisor
    dies (0: none), and how it is to be confined; `watch`: not at all, but what it connects to is to
    be told."""

    argv: list[str]
    environment: dict[str, str]
    death_signal: int = 0
    confine: Plan | None = None
    watch: bool = False


class Held:
    """A child that waits to become a program. `release` or `drop` it."""

    def __init__(self, pid: int, go_fd: int, error_fd: int) -> None:
        self.pid = pid
        self._go_fd = go_fd
        self._error_fd = error_fd

    def release(self, go: Go) -> None:
        """Lets it become the program; returns when it has. Raises CannotStart (then it is dead)."""
        data = msgspec.msgpack.encode(go)
        with suppress(BrokenPipeError):
            _write_all(self._go_fd, len(data).to_bytes(4, "big") + data)
        os.close(self._go_fd)
        answer = os.read(self._error_fd, _ERROR_BYTES_MAX)
        os.close(self._error_fd)
        if answer.startswith(_IN_WORDS):
            raise CannotConfine(answer[len(_IN_WORDS) :].decode("utf-8", "replace"))
        if answer:
            raise CannotStart(go.argv[0], int(answer))

    def drop(self) -> None:
        """It will not be needed: it ends by itself."""
        os.close(self._go_fd)
        os.close(self._error_fd)


def fork_held(
    leaf: Leaf | None = None, terminal: int = -1, shelf: Shelf | None = None
) -> Held:  # fmt: skip
    """`terminal`: descriptor of the terminal whose foreground the child's group becomes, -1 for
    none; `shelf`: where a confined child leaves the supervisor's end. Call from the thread that
    lives as long as the supervisor does."""
    go_read, go_write = os.pipe()
    error_read, error_write = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(go_write)
        os.close(error_read)
        _become(leaf, terminal, go_read, error_write, shelf)
    os.close(go_read)
    os.close(error_write)
    with suppress(OSError):
        os.setpgid(pid, pid)
    return Held(pid, go_write, error_read)


def _become(
    leaf: Leaf | None, terminal: int, go_fd: int, error_fd: int, shelf: Shelf | None
) -> NoReturn:  # fmt: skip
    try:
        os.setpgid(0, 0)
        if leaf is not None:
            leaf.add(0)
        if terminal >= 0:
            take_foreground(terminal, os.getpid())
        go = _hear(go_fd)
        _plain_signals()
        if shelf is not None:
            _wall_in(go, shelf)
        if go.death_signal:
            proc.die_with_parent(go.death_signal)  # after the walls: changed rights clear it
        os.execvpe(go.argv[0], go.argv, go.environment)  # noqa: S606 # running a program is the point
    except enter.DoesNotHold as error:
        with suppress(OSError):
            os.write(error_fd, (_IN_WORDS + str(error).encode())[:_ERROR_BYTES_MAX])
    except OSError as error:
        with suppress(OSError):
            os.write(error_fd, str(error.errno or errno.EIO).encode())
    except BaseException:
        with suppress(OSError):
            os.write(error_fd, str(errno.EIO).encode())
    os._exit(EXIT_NOT_FOUND)


def _wall_in(go: Go, shelf: Shelf) -> None:
    if go.confine is not None:
        enter.confine(go.confine, shelf.far)
    elif go.watch:
        with suppress(OSError):  # then what it connects to is only looked up, twice a second
            enter.watch(shelf.far)


def _hear(fd: int) -> Go:
    size = int.from_bytes(_read_exactly(fd, 4), "big")
    return msgspec.msgpack.decode(_read_exactly(fd, min(size, _GO_BYTES_MAX)), type=Go)


def _read_exactly(fd: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = os.read(fd, count - len(data))
        if not more:
            os._exit(0)  # nobody needs this child any more
        data += more
    return data


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _plain_signals() -> None:
    """Signals as a shell would hand them on: what Python changed for itself is undone."""
    for number in signal.valid_signals():
        with suppress(OSError, ValueError):
            if callable(signal.getsignal(number)) or number in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    soft = _files_soft_before
    if soft is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


_files_soft_before: int | None = None


def allow_many_files() -> None:
    """Raises this process's own bound on open files to what it may have; programs started from here
    get the former one back."""
    global _files_soft_before
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            _files_soft_before = soft


def calm() -> None:
    """For a process that must answer at once: collecting garbage waits until there is a lot of it,
    and never looks at what is there already."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)


def take_foreground(terminal: int, group: int) -> None:
    """Makes a process group the terminal's foreground, also from the background."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
    try:
        with suppress(OSError):
            os.tcsetpgrp(terminal, group)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def own_terminal() -> int:
    """The terminal whose foreground we are, by the first standard stream that is one; else -1."""
    for fd in (0, 1, 2):
        with suppress(OSError):
            if os.isatty(fd) and os.tcgetpgrp(fd) == os.getpgrp():
                return fd
    return -1


def program_of(argv: Sequence[str]) -> str:
    return os.path.basename(argv[0]) if argv else ""


def name_process(name: str) -> None:
    """How this process shows in `ps` and `top` (15 bytes)."""
    ctypes.CDLL(None).prctl(15, name.encode()[:15], 0, 0, 0)

"""The supervisor's end: every `connect` of a confined program is made here, by the supervisor, on
the program's own socket and with an address that the program cannot change any more.

A filter of system calls sees pointers, not what they point to; letting a call go on after looking
would leave the program a moment to put another address there. So nothing is let go on: the address
is copied, judged, and used from the copy. The program's thread waits in the kernel meanwhile.

The same serves for watching: then all is let go on, and what was seen is told.
"""

import asyncio
import ctypes
import errno
import fcntl
import os
import select
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

import msgspec

from checkrein.supervise.confine import kernel
from checkrein.supervise.confine.addresses import (
    ADDRESS_BYTES_MAX,
    Address,
    Allowed,
    address_of,
    way,
)

_RECEIVE, _SEND, _STILL_VALID = 0xC0502100, 0xC0182101, 0x40082102
_NOTICE = struct.Struct("=QII iI Q 6Q")
_ANSWER = struct.Struct("=Qqi I")
_CONTINUE = 1
_SO_NETNS_COOKIE = 71
_RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x04, 0x08
_OPENAT2 = 437
_WAITING_MAX = 64


class Notice(msgspec.Struct, frozen=True):
    """A thread that waits in the kernel for an answer about its system call."""

    id: int
    thread: int
    number: int
    arguments: tuple[int, ...]


class Seen(msgspec.Struct, frozen=True):
    """What a program tried. `kind`: connection, datagram, or the system call's name. `refused`: it
    did not get there."""

    kind: str
    to: str
    pid: int
    refused: bool
    address: Address | None = None


class Door:
    """Answers on a running event loop until `close`. `tell` hears of what is refused (or, when only
    watching, of everything), `vouch(name, pid)` of who is about to speak at the supervisor's
    socket under which name."""

    def __init__(
        self, listener: int, allowed: Allowed | None, tell: Callable[[Seen], None],
        vouch: Callable[[bytes, int], None], nonce: Callable[[], str],
    ) -> None:  # fmt: skip
        self._listener = listener
        self._allowed = allowed
        self._tell, self._vouch, self._nonce = tell, vouch, nonce
        self._names = {number: name for name, number in kernel.numbers().items()}
        self._waiting = threading.Semaphore(_WAITING_MAX)
        self.cookie: int | None = None
        """The network that the program's sockets must be of; None: the host's."""
        os.set_blocking(listener, False)

    def open(self) -> None:
        asyncio.get_running_loop().add_reader(self._listener, self._hear)

    def close(self) -> None:
        if self._listener >= 0:
            asyncio.get_running_loop().remove_reader(self._listener)
            os.close(self._listener)
            self._listener = -1

    def _hear(self) -> None:
        notice = self._receive() if self._asked() else None
        if notice is None:
            return
        name = self._names.get(notice.number, str(notice.number))
        try:
            if self._allowed is None:
                self._watch(notice, name)
            elif name == "connect":
                self._connect(notice, self._allowed)
            elif name == "listen":
                self._answer(notice, self._listen(notice))
            else:
                self._answer(notice, errno.EPERM)
        except OSError as error:
            self._answer(notice, error.errno or errno.EACCES)
        except Exception:
            self._answer(notice, errno.EACCES)
            raise

    # -- acts ----------------------------------------------------------------------------------

    def _connect(self, notice: Notice, allowed: Allowed) -> None:
        address = self._address(notice, 1, 2)
        pid = process_of(notice.thread)
        folder = _folder(pid)
        how = way(allowed, address, folder)
        if how == "no":
            self._tell(Seen("connection", str(address), pid, True, address))
            self._answer(notice, errno.EACCES)
            return
        theirs = self._their_socket(notice, pid)
        wrong = self._unfit(theirs, how)
        if wrong:
            theirs.close()
            self._answer(notice, wrong)
        elif how == "disconnect":
            self._finish(notice, theirs, lambda: _disconnect(theirs))
        elif how == "supervisor":
            name = b"\0checkrein-" + self._nonce().encode()
            theirs.bind(name)
            self._vouch(name, pid)
            self._finish(notice, theirs, lambda: theirs.connect_ex(allowed.socket))
        elif how == "own":
            path = os.path.join(folder, address.path)
            self._finish(notice, theirs, lambda: _connect_below(theirs, allowed.tmp, path))
        else:
            mapped = theirs.family == socket.AF_INET6 and ":" not in address.host
            host = f"::ffff:{address.host}" if mapped else address.host
            self._finish(notice, theirs, lambda: theirs.connect_ex((host, address.port)))

    def _finish(
        self, notice: Notice, theirs: socket.socket, connect: Callable[[], int]
    ) -> None:  # fmt: skip
        """Connects and answers. A socket that blocks would block us: a thread waits for it."""

        def finish() -> None:
            number = errno.EACCES
            try:
                number = connect()
            except OSError as error:
                number = error.errno or errno.EACCES
            finally:
                theirs.close()
                self._waiting.release()
                self._answer(notice, number)

        if not self._waiting.acquire(blocking=False):
            theirs.close()
            self._answer(notice, errno.EAGAIN)
        elif fcntl.fcntl(theirs, fcntl.F_GETFL) & os.O_NONBLOCK:
            finish()
        else:
            threading.Thread(target=finish, daemon=True, name="door").start()

    def _listen(self, notice: Notice) -> int:
        """Among its own processes it may listen; on the host's network it may not."""
        pid = process_of(notice.thread)
        theirs = self._their_socket(notice, pid)
        with theirs:
            if theirs.family != socket.AF_UNIX:
                self._tell(Seen("listen", "a port of this machine", pid, True))
                return errno.EACCES
            theirs.listen(min(notice.arguments[1], 4096))
        return 0

    def _unfit(self, theirs: socket.socket, how: str) -> int:
        """Why this socket is none to connect so: an errno, 0 when it is one."""
        unix = theirs.family == socket.AF_UNIX
        if how in ("supervisor", "own"):
            return 0 if unix else errno.EAFNOSUPPORT
        if how == "inet" and self.cookie is not None and cookie_of(theirs) != self.cookie:
            return errno.EACCES
        return errno.EAFNOSUPPORT if unix and how == "inet" else 0

    def _watch(self, notice: Notice, name: str) -> None:
        """Tells, and lets go on. Never in the program's way, whatever happens here."""
        try:
            pid = process_of(notice.thread)
            if name in ("connect", "sendto"):
                address = self._address(notice, *((1, 2) if name == "connect" else (4, 5)))
                kind = "connection" if name == "connect" else "datagram"
                if address.kind != "none":
                    self._tell(Seen(kind, str(address), pid, False, address))
            else:
                self._tell(Seen(name, "", pid, False))
        except OSError:
            pass
        finally:
            self._go_on(notice)

    # -- the kernel ----------------------------------------------------------------------------

    def _receive(self) -> Notice | None:
        buffer = bytearray(_NOTICE.size)
        try:
            fcntl.ioctl(self._listener, _RECEIVE, buffer, True)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):  # it was killed meanwhile
                return None
            raise
        number, thread, _, call, _, _, *arguments = _NOTICE.unpack(buffer)
        return Notice(number, thread, call, tuple(arguments))

    def _asked(self) -> bool:
        """Whether somebody waits. When nobody is left who runs under the filter, its end is
        readable for ever, and on older kernels receiving would wait as long."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        events = next((found for _, found in poll.poll(0)), 0)
        if events & select.POLLHUP and not events & select.POLLIN:
            self.close()
        return bool(events & select.POLLIN)

    def _address(self, notice: Notice, at: int, size_at: int) -> Address:
        """A copy of what the pointer in argument `at` points to. Raises OSError."""
        size = min(notice.arguments[size_at] & 0xFFFFFFFF, ADDRESS_BYTES_MAX)
        fd = os.open(f"/proc/{notice.thread}/mem", os.O_RDONLY)
        try:
            data = os.pread(fd, size, notice.arguments[at])
        finally:
            os.close(fd)
        self._check(notice)
        return address_of(data)

    def _their_socket(self, notice: Notice, pid: int) -> socket.socket:
        """Their socket, as a descriptor of ours. Raises OSError."""
        pidfd = os.pidfd_open(pid)
        try:
            number = notice.arguments[0] & 0xFFFFFFFF
            fd = kernel.call("pidfd_getfd", pidfd, number, 0)
        finally:
            os.close(pidfd)
        try:
            self._check(notice)
            return socket.socket(fileno=fd)
        except OSError:
            with suppress(OSError):
                os.close(fd)
            raise

    def _check(self, notice: Notice) -> None:
        """Its thread still waits: so the pid was its own all the while. Raises OSError."""
        fcntl.ioctl(self._listener, _STILL_VALID, struct.pack("=Q", notice.id))

    def _answer(self, notice: Notice, number: int) -> None:
        self._send(_ANSWER.pack(notice.id, 0, -number, 0))

    def _go_on(self, notice: Notice) -> None:
        self._send(_ANSWER.pack(notice.id, 0, 0, _CONTINUE))

    def _send(self, answer: bytes) -> None:
        with suppress(OSError):  # it is gone, or was answered
            fcntl.ioctl(self._listener, _SEND, answer)


def process_of(thread: int) -> int:
    """The process that a thread belongs to. Raises OSError."""
    with open(f"/proc/{thread}/status", "rb") as file:
        for line in file:
            if line.startswith(b"Tgid:"):
                return int(line.split()[1])
    raise ProcessLookupError(errno.ESRCH, "no such thread")


def cookie_of(sock: socket.socket) -> int | None:
    """Which network a socket is of; None where this kernel does not tell."""
    try:
        return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")
    except OSError:
        return None


def _folder(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return "/"


def _disconnect(theirs: socket.socket) -> int:
    """`connect` to no family at all: what an address chooser does between two tries."""
    libc = ctypes.CDLL(None, use_errno=True)
    nowhere = struct.pack("H14x", socket.AF_UNSPEC)
    return 0 if libc.connect(theirs.fileno(), nowhere, len(nowhere)) == 0 else ctypes.get_errno()


def _connect_below(theirs: socket.socket, folder: str, path: str) -> int:
    """To a socket in a folder of its own, through no symbolic link. An errno, 0 when connected."""
    below = os.path.relpath(os.path.normpath(path), folder)
    base = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = struct.pack(
            "QQQ", os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_NO_SYMLINKS | _RESOLVE_BENEATH
        )
        libc = ctypes.CDLL(None, use_errno=True)
        fd = libc.syscall(_OPENAT2, base, os.fsencode(below), how, ctypes.c_size_t(len(how)))
        if fd < 0:
            return ctypes.get_errno()
        try:
            return theirs.connect_ex(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
    finally:
        os.close(base)

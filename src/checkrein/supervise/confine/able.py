"""What this machine can do, tried in children that end at once."""

import errno
import os
import socket
from collections.abc import Callable

import msgspec

from checkrein.supervise.confine import kernel, landlock, namespace, seccomp

WORDS_BYTES_MAX = 500


class Able(msgspec.Struct, frozen=True, kw_only=True):
    """`landlock`: the version of it, 0 for none. `filters` and `namespaces` are empty when they
    work, else why not."""

    landlock: int
    filters: str
    namespaces: str

    @property
    def levels(self) -> tuple[str, ...]:
        """What can be reached, the strongest first."""
        if self.landlock < landlock.ABI_SCOPES or self.filters:
            return ()
        return ("L2",) if self.namespaces else ("L3", "L2")

    @property
    def missing(self) -> str:
        """Why the strongest is out of reach; empty when it is not."""
        if self.filters:
            return f"system calls cannot be filtered: {self.filters}"
        if self.landlock < landlock.ABI_SCOPES:
            return (
                f"Landlock is at version {self.landlock}, and {landlock.ABI_SCOPES} is needed "
                "(Linux 6.12 with CONFIG_SECURITY_LANDLOCK, and `landlock` in the kernel's lsm=)"
            )
        if self.namespaces:
            return f"no network namespace can be made: {self.namespaces}"
        return ""


def look() -> Able:
    """Call from a process with one thread."""
    return Able(
        landlock=landlock.abi(),
        filters=_tried(_filters) or _reached(),
        namespaces=_tried(_namespaces),
    )


def _filters() -> None:
    """A filter that tells the parent, and the parent's right to take the child's sockets."""
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    seccomp.install(seccomp.fence(kernel.machine(), kernel.numbers(), own_network=True))


def _reached() -> str:
    """Whether a child's sockets can be taken, and its memory read. Empty when they can."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    pidfd = os.pidfd_open(pid)
    try:
        os.close(kernel.call("pidfd_getfd", pidfd, 0, 0))
        os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY))
    except OSError as error:
        if error.errno != errno.EBADF:  # nobody has a standard input here: no matter
            return f"a child's sockets cannot be taken over: {error.strerror}"
    finally:
        os.close(pidfd)
        os.close(write)
        os.waitpid(pid, 0)
    return ""


def _namespaces() -> None:
    namespace.leave()
    namespace.raise_loopback()
    namespace.hide([])
    namespace.listen("127.0.0.1", 0)


def _tried(attempt: Callable[[], object]) -> str:
    """Empty when it works, else why not."""
    here, there = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        words = ""
        try:
            here.close()
            attempt()
        except OSError as error:
            words = error.strerror or str(error) or "no reason given"
        except BaseException as error:
            words = repr(error)
        there.sendall(words.encode()[:WORDS_BYTES_MAX] or b"\n")
        os._exit(0)
    there.close()
    told = b""
    while more := here.recv(WORDS_BYTES_MAX):
        told += more
    here.close()
    os.waitpid(pid, 0)
    return told.decode("utf-8", "replace").strip() if told else "its child died"

"""Sockets that a role listens on, with errors that say what to do."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BACKLOG = 1024
PATH_BYTES_MAX = 108


class AddressTaken(Exception):
    """An address cannot be listened on. Says which, and why."""


@contextmanager
def listen(address: tuple[str, int], option: str) -> Iterator[socket.socket]:
    """A TCP listener, closed at the end. Raises AddressTaken."""
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise AddressTaken(
            f"cannot listen on {host}:{port}: {error.strerror}. Choose another with {option}"
        ) from error
    with listener:
        yield listener


@contextmanager
def listen_unix(path: Path) -> Iterator[socket.socket]:
    """A listener on a Unix socket that only its owner may open; what is left of an earlier one is
    taken away. Raises AddressTaken."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        _bind(listener, path)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise AddressTaken(f"cannot listen on {path}: {error.strerror or error}") from error
    finally:
        os.umask(before)
    with listener:
        try:
            yield listener
        finally:
            with suppress(OSError):
                path.unlink()


def _bind(listener: socket.socket, path: Path) -> None:
    """Also where the path is longer than the 107 bytes that a socket's address holds: then it is
    named through its folder's descriptor."""
    if len(os.fsencode(path)) < PATH_BYTES_MAX:
        listener.bind(str(path))
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        listener.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)

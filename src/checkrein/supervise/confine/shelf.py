"""Where the supervisor's ends of a confinement lie: a pair of sockets that whoever started the run
keeps open. What was put there is looked at, never taken, so that a supervisor started anew finds
it, too."""

import array
import json
import os
import socket
from contextlib import suppress

_FDS_MAX = 4


class Shelf:
    """Made before the supervisor is; inherited by every supervisor, and by the held child."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.near.setblocking(False)

    def look(self) -> tuple[str, list[int]] | None:
        """The level and fresh descriptors; None while nothing has been put there."""
        try:
            data, ancillary, _, _ = self.near.recvmsg(
                4096, socket.CMSG_SPACE(4 * _FDS_MAX), socket.MSG_PEEK | socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return None
        fds = array.array("i")
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        try:
            return str(json.loads(data)["level"]), list(fds)
        except (ValueError, KeyError):
            for fd in fds:
                with suppress(OSError):
                    os.close(fd)
            return None

    def clear(self) -> None:
        """Takes what lies there away, for good."""
        with suppress(OSError):
            self.near.recv(4096)


def put(far: socket.socket, level: str, fds: list[int]) -> None:
    """Raises OSError."""
    content = array.array("i", fds).tobytes()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, content)]
    far.sendmsg([json.dumps({"level": level}).encode()], rights)

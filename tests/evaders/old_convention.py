"""The system call in another numbering, in which filters may not know it (x32)."""

import ctypes
import platform
import struct

from tests.evaders.canary import Canary

X32 = 0x40000000


def main(canary: Canary) -> bool:
    if platform.machine() != "x86_64":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    link = libc.syscall(X32 | 41, 2, 1, 0)
    address = struct.pack("=H", 2) + struct.pack("!H4s8x", canary.tcp, bytes([127, 0, 0, 1]))
    return bool(libc.syscall(X32 | 42, link, address, len(address)) == 0)

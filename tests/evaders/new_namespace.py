"""Rights of its own, in a namespace of its own."""

import ctypes
import os

from tests.evaders.canary import Canary

NEW_USER, NEW_NET = 0x10000000, 0x40000000


def main(canary: Canary) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.readlink("/proc/self/ns/net")
    libc.unshare(NEW_USER | NEW_NET)
    return os.readlink("/proc/self/ns/net") != before

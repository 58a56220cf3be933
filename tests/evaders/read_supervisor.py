"""The supervisor's memory read by a system call."""

import ctypes
from pathlib import Path

from tests.evaders.canary import Canary, supervisor

BYTES = 64


class Piece(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


def main(canary: Canary) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    pid = supervisor()
    into = ctypes.create_string_buffer(BYTES)
    here = Piece(ctypes.addressof(into), BYTES)
    start = Path(f"/proc/{pid}/maps").read_text().split("-", 1)[0]
    there = Piece(int(start, 16), BYTES)
    return libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0) == BYTES

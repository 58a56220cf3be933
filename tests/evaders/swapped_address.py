"""An address that is allowed when it is looked at, and another one a moment later."""

import ctypes
import struct
import threading

from tests.evaders.canary import Canary, tcp

TRIES = 150


def main(canary: Canary) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    good = struct.pack("=H", 2) + struct.pack("!H4s8x", canary.gateway, bytes([127, 0, 0, 1]))
    bad = struct.pack("=H", 2) + struct.pack("!H4s8x", canary.tcp, bytes([127, 0, 0, 1]))
    address = ctypes.create_string_buffer(good, len(good))
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            address.raw = bad
            address.raw = good

    swapping = threading.Thread(target=swap)
    swapping.start()
    for _ in range(TRIES):
        link = libc.socket(2, 1, 0)
        libc.connect(link, address, len(good))
        libc.close(link)
    over.set()
    swapping.join()
    return tcp(canary.tcp)

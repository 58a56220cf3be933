"""A daemon: forked twice, in a session of its own."""

import os

from tests.evaders.canary import Canary, tcp


def main(canary: Canary) -> bool:
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            reached = False
            try:
                reached = tcp(canary.tcp)
            finally:
                os.write(write, b"1" if reached else b"0")
                os._exit(0)
        os._exit(0)
    os.wait()
    return os.read(read, 1) == b"1"

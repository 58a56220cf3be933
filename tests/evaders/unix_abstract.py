"""A Unix socket that has no place in the file system."""

import socket

from tests.evaders.canary import Canary, call


def main(canary: Canary) -> bool:
    return call(socket.AF_UNIX, b"\0" + canary.abstract.encode())

"""Somebody else's Unix socket."""

import socket

from tests.evaders.canary import Canary, call


def main(canary: Canary) -> bool:
    return call(socket.AF_UNIX, canary.unix)

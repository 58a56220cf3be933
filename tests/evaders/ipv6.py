"""The other protocol."""

import socket

from tests.evaders.canary import Canary, call


def main(canary: Canary) -> bool:
    return call(socket.AF_INET6, ("::1", canary.tcp6))

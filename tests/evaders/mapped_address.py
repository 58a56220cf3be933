"""The other protocol's form of the same address."""

import socket

from tests.evaders.canary import Canary, call


def main(canary: Canary) -> bool:
    return call(socket.AF_INET6, ("::ffff:127.0.0.1", canary.tcp))

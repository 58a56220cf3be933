"""A connection that is opened by sending."""

import socket

from tests.evaders.canary import Canary

FAST_OPEN = 0x20000000


def main(canary: Canary) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as link:
        link.settimeout(3)
        link.sendto(b"the secret", FAST_OPEN, ("127.0.0.1", canary.tcp))
        return bool(link.recv(1))

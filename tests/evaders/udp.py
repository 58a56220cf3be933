"""A question to a name server that is none."""

import socket

from tests.evaders.canary import Canary


def main(canary: Canary) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        return link.sendto(b"the.secret.example", ("127.0.0.1", canary.udp)) > 0

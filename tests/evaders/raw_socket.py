"""Packets made by hand."""

import socket
import time

from tests.evaders.canary import Canary


def main(canary: Canary) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as link:
        header = (canary.udp + 1).to_bytes(2) + canary.udp.to_bytes(2) + (18).to_bytes(2) + bytes(2)
        link.sendto(header + b"the secret", ("127.0.0.1", 0))
        time.sleep(1)  # held open for a while, as a scanner does
    return True

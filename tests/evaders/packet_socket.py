"""A look at everybody's traffic."""

import socket
import time

from tests.evaders.canary import Canary


def main(canary: Canary) -> bool:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)):
        time.sleep(1)
    return True

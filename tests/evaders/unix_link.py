"""Somebody else's Unix socket, through a link in a folder of its own."""

import os
import socket
import tempfile

from tests.evaders.canary import Canary, call


def main(canary: Canary) -> bool:
    link = os.path.join(tempfile.mkdtemp(), "own")
    os.symlink(canary.unix, link)
    return call(socket.AF_UNIX, link)

"""Started again with nothing of its environment, and no site packages."""

import os
import subprocess
import sys

from tests.evaders.canary import CONNECTS, Canary


def main(canary: Canary) -> bool:
    python = os.path.realpath(sys.executable)
    done = subprocess.run([python, "-I", "-S", "-E", "-c", CONNECTS, str(canary.tcp)], check=False,
                          capture_output=True, env={})  # fmt: skip
    return done.returncode == 0

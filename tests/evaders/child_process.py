"""A child process that is no agent of ours."""

import subprocess
import sys

from tests.evaders.canary import CONNECTS, Canary


def main(canary: Canary) -> bool:
    done = subprocess.run([sys.executable, "-c", CONNECTS, str(canary.tcp)], check=False,
                          capture_output=True)  # fmt: skip
    return done.returncode == 0

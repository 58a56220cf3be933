"""A program that stands in no file system."""

import os
import subprocess
import sys

from tests.evaders.canary import CONNECTS, Canary


def main(canary: Canary) -> bool:
    made = os.memfd_create("innocent")
    with open(os.path.realpath(sys.executable), "rb") as program:
        while data := program.read(1 << 20):
            os.write(made, data)
    path = f"/proc/self/fd/{made}"
    environment = {"PYTHONHOME": sys.base_prefix}
    done = subprocess.run([path, "-c", CONNECTS, str(canary.tcp)], check=False, pass_fds=(made,),
                          capture_output=True, env=environment)  # fmt: skip
    return done.returncode == 0

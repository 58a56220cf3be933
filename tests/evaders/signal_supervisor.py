"""A signal to the supervisor (one that does nothing: being allowed to is enough)."""

import os

from tests.evaders.canary import Canary, supervisor


def main(canary: Canary) -> bool:
    os.kill(supervisor(), 0)
    return True

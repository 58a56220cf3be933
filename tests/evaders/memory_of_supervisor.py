"""The supervisor's memory, where its keys are."""

import os

from tests.evaders.canary import Canary, supervisor


def main(canary: Canary) -> bool:
    os.close(os.open(f"/proc/{supervisor()}/mem", os.O_RDONLY))
    return True

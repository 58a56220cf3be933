"""Many processes at once: one of them may be overlooked."""

import os

from tests.evaders.canary import Canary, tcp

PROCESSES = 30


def main(canary: Canary) -> bool:
    reached = []
    for _ in range(PROCESSES):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = 0 if tcp(canary.tcp) else 1
            finally:
                os._exit(code)
        reached.append(pid)
    return any(os.waitpid(pid, 0)[1] == 0 for pid in reached)

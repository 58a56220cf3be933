"""Runs evaders, each in a process of its own, all at once: `python -m tests.evaders.driver`, with
`CANARIES`, JSON of name to what `canary.Canary` holds. Prints `NAME reached` or `NAME kept in: why`
for each."""

import importlib
import json
import os
import sys

from tests.evaders.canary import Canary


def main() -> None:
    canaries = {name: Canary(**given) for name, given in json.loads(os.environ["CANARIES"]).items()}
    children = []
    for name, canary in canaries.items():
        pid = os.fork()
        if pid == 0:
            try:
                attempt(name, canary)
            finally:
                os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)


def attempt(name: str, canary: Canary) -> None:
    try:
        reached = importlib.import_module(f"tests.evaders.{name}").main(canary)
        said = "reached" if reached else "kept in"
    except BaseException as error:
        said = f"kept in: {error!r}"
    os.write(1, f"{name} {said}\n".encode())


if __name__ == "__main__":
    main()
    sys.stdout.flush()

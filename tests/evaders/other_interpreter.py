"""A second interpreter in a thread of the same process, which knows nothing of the first one."""

import _xxsubinterpreters as interpreters  # type: ignore[import-not-found] # CPython's own
import threading

from tests.evaders.canary import CONNECTS, Canary


def main(canary: Canary) -> bool:
    failed: list[Exception] = []
    code = f"import sys\nsys.argv = ['-', '{canary.tcp}']\n{CONNECTS}"

    def run() -> None:
        try:
            interpreters.run_string(interpreters.create(), code)
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return not failed

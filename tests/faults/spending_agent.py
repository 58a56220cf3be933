"""Makes tool calls until it is told that nothing is left, and writes each into the file named; the
last line says why it ended. A second file named is waited for, so that many begin together. An
agent for `test_shared_budget`."""

import sys
import threading
from pathlib import Path

import checkrein

WAITS_MAX = 4


@checkrein.tool(kind="read")
def look(number: int) -> str:
    return f"page {number}"


def main() -> None:
    pause, waits, number = threading.Event(), 0, 0
    checkrein.init(agent="spender")
    with open(sys.argv[1], "a", buffering=1) as out, checkrein.run(goal="spend it all"):
        out.write("ready\n")
        while not all(Path(gate).exists() for gate in sys.argv[2:]):
            pause.wait(0.01)
        while waits < WAITS_MAX:
            number += 1
            try:
                look(number)
            except checkrein.Denied as denied:
                if denied.advice != "WAIT":
                    out.write(f"end {denied.rule}\n")
                    return
                waits += 1
            else:
                out.write("call\n")
            pause.wait(0.01)
        out.write("end waiting\n")


if __name__ == "__main__":
    main()

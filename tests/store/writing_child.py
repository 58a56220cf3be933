"""Writes batches for ever and says which are acknowledged; to be killed."""

import sys

from tests.store.sample import event, rows, tool_call

from checkrein.store import open_store
from checkrein.world import REAL

FILLER = "some text that is longer than a kilobyte " * 40


def batch(number: int, calls: int) -> list[dict[str, object]]:
    """Batch `number` of the child: tool calls of one run, numbered on."""
    size = calls * 6 + 1
    first = number * size + 1
    events = [fields for n in range(calls) for fields in tool_call(first + n * 6)]
    return [*events, event(first + size - 1, "output", content=f"{FILLER}{number}")]


def main(url: str, first: int, calls: int) -> None:
    store = open_store(url, REAL)
    number = first
    while True:
        store.write(rows(batch(number, calls)))
        if number % 3 == 0:
            store.query("runs", {"limit": 1})
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        number += 1


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

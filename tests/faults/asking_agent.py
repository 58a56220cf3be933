"""An agent whose every refund must be approved: writes down what it did, one line a refund."""

import os
import sys
from pathlib import Path

import checkrein

PACT = """
pact: refunds
tools:
  refund: {kind: compensable, undo: reverse_refund, ask: args.cents > 2000}
escalate:
  - {when: args.cents > 2400, to: payments-oncall, within: 5m}
"""


def main(done: Path, orders: list[str]) -> None:
    @checkrein.tool(kind="compensable")
    def refund(order: str, cents: int) -> str:
        with done.open("a") as file:
            file.write(f"{order} {cents}\n")
        return "done"

    with checkrein.run(goal="refunds", traceparent=os.environ.get("TRACEPARENT", "")):
        for order in orders:
            try:
                refund(order=order, cents=2500)
            except checkrein.Denied as denied:
                with done.open("a") as file:
                    file.write(f"denied {order}: {denied}\n")


if __name__ == "__main__":
    checkrein.init(
        agent=os.environ.get("AGENT", "refunder"), pact=os.environ.get("CHECKREIN_PACT", "")
    )
    main(Path(sys.argv[1]), sys.argv[2:])

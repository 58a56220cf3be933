"""An agent whose every refund must be approved: writes down what it did, one line a refund."""

import os
import sys
from pathlib import Path

import checkrein
from checkrein.policy.guard import RunGuard
from checkrein.policy.pact import load
from checkrein.policy.types import Action, Verdict
from checkrein.sdk import client as clients
from checkrein.sdk.guard import Seat

PACT = "pact: refunds\ntools:\n  refund: {kind: compensable, undo: reverse_refund}\n"


class Asker(RunGuard):
    """Judges as the pact does, and asks about refunds."""

    def judge(self, action: Action, now_ns: int) -> Verdict:
        verdict = super().judge(action, now_ns)
        if verdict.kind == "allow" and action.name == "refund":
            return self.verdict(
                kind="ask", guard="tools", rule="tools.refund.ask", reason="over 20 dollars"
            )
        return verdict


def make_seat(text: str, source: str) -> Seat:
    pact = load(PACT, "the test's pact")
    return Seat(Asker(pact), pact)


clients.make_seat = make_seat


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
    checkrein.init(agent="refunder")
    main(Path(sys.argv[1]), sys.argv[2:])

"""An agent under sequence rules on a clock of its own."""

from typing import Any

from checkrein.policy.sequences.compiling import Sequences, compile_sequences
from checkrein.policy.types import Deed, Finding

SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS


def compiled(*rules: str) -> Sequences:
    return compile_sequences(rules)


class Agent:
    def __init__(self, *rules: str, task: "Agent | None" = None, run_id: str = "r") -> None:
        self.rules: Sequences = task.rules if task else compiled(*rules)
        self.state = self.rules.new_state()
        self.task: Any = task.task if task else None
        self.run_id = run_id
        self.now_ns = MINUTE_NS
        self.calls = 0

    def deed(self, tool: str, kind: Any = None, **args: Any) -> Deed:
        self.calls += 1
        facts = {"args": args, "tool": tool, "kind": kind or "", "run_id": self.run_id}
        return Deed(
            tool=tool, args=args, kind=kind, call_id=f"c{self.calls}", at_ns=self.now_ns,
            facts=facts,
        )  # fmt: skip

    def waits(self, seconds: float) -> None:
        self.now_ns += round(seconds * SECOND_NS)

    def asks(self, tool: str, kind: Any = None, **args: Any) -> Finding | None:
        """Judged, not made."""
        return self.rules.judge(self.state, self.deed(tool, kind, **args), self.task)

    def begins(self, tool: str, kind: Any = None, **args: Any) -> Deed:
        deed = self.deed(tool, kind, **args)
        self.rules.began(self.state, deed, self.task)
        return deed

    def ends(self, deed: Deed, ok: bool = True) -> None:
        self.rules.ended(self.state, deed, ok, self.task)

    def did(self, tool: str, ok: bool = True, kind: Any = None, **args: Any) -> None:
        """Made, whatever the rules say."""
        self.ends(self.begins(tool, kind, **args), ok)

    def uses(self, tool: str, ok: bool = True, **args: Any) -> str:
        """Judged, and made if nothing but a steer speaks against it; the verdict's kind."""
        found = self.asks(tool, **args)
        if found is None or found.kind == "steer":
            self.did(tool, ok, **args)
        return found.kind if found else "allow"

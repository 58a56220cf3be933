"""An agent under sequence rules on a clock of its own."""

import ast
from collections.abc import Mapping
from typing import Any

from checkrein.policy.conditions.types import Condition, ConditionError, EvaluationError, Kind
from checkrein.policy.sequences.compiling import Sequences, compile_sequences
from checkrein.policy.types import Deed, Finding

SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS


class Dots(dict[str, Any]):
    def __getattr__(self, name: str) -> Any:
        found = self[name]
        return Dots(found) if isinstance(found, dict) else found


class Plain:
    """A condition as Python reads it, for what is common to both languages."""

    def __init__(self, text: str, names: Mapping[str, Kind]) -> None:
        try:
            code = text.replace("&&", " and ").replace("||", " or ").replace("\n", " ").strip()
            tree = ast.parse(code, "condition", "eval")
            self._code = compile(tree, "condition", "eval")
        except SyntaxError as error:
            raise ConditionError("this is no expression", 1, error.offset or 1) from None
        self.text = text
        self.kind = Kind("dyn")
        self.names = frozenset(n.id for n in ast.walk(tree) if isinstance(n, ast.Name))
        for name in self.names - set(names):
            raise ConditionError(f"unknown name `{name}`", 1, text.index(name) + 1)

    def __call__(self, facts: Mapping[str, Any]) -> Any:
        try:
            known = {k: Dots(v) if isinstance(v, dict) else v for k, v in facts.items()}
            return eval(self._code, {}, known)
        except Exception as error:
            raise EvaluationError(str(error)) from None


def plain(text: str, names: Mapping[str, Kind], result: Any = "bool") -> Condition:
    return Plain(text, names)


def names_of(tool: str) -> Mapping[str, Kind]:
    return {"args": Kind("dyn"), "tool": Kind("string"), "step": Kind("int")}


def compiled(*rules: str) -> Sequences:
    return compile_sequences(rules, names_of, plain)


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
        facts = {"args": args, "tool": tool, "step": self.calls, "run_id": self.run_id}
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

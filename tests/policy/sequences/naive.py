"""Sequence rules evaluated by looking through the whole history, each time anew: what they mean,
with nothing shared with the product but the parsed tree."""

import operator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from checkrein.policy.sequences.reading import read_rule
from checkrein.policy.sequences.types import Both, Either, Formerly, Not, Once, Tally
from checkrein.policy.types import Deed

COMPARE = {
    ">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt,
    "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
RANK = {"": 0, "steer": 1, "ask": 2, "deny": 3}


class Err(Exception):
    """No answer."""


@dataclass
class Event:
    """One call: when it began and came back in the order of all that happened (None: not yet)."""

    deed: Deed
    run: str
    began: int
    ended: int | None = None
    ok: bool = False


class Naive:
    """Rules over one list of events."""

    def __init__(self, rules: list[str]) -> None:
        self.rules = [read_rule(text) for text in rules]
        self.events: list[Event] = []
        self.tick = 0

    def began(self, deed: Deed, run: str) -> Event:
        self.tick += 1
        event = Event(deed, run, self.tick)
        self.events.append(event)
        return event

    def ended(self, event: Event, ok: bool) -> None:
        self.tick += 1
        event.ended, event.ok = self.tick, ok

    def judge(self, deed: Deed, run: str) -> str:
        """The strictest verdict, "" for none."""
        strictest = ""
        for rule in self.rules:
            if not tool_of(rule.tools, deed, True):
                continue
            try:
                if (
                    rule.condition is not None
                    and value(rule.condition.text, deed, deed) is not True
                ):
                    continue
                said = rule.verb if self.holds(rule.applies, deed, run, True) else ""
            except Err:
                said = "deny"
            strictest = max(strictest, said, key=RANK.__getitem__)
        return strictest

    def holds(self, tree: Any, deed: Deed, run: str, up: bool) -> bool:
        if isinstance(tree, Not):
            return not self.holds(tree.part, deed, run, not up)
        if isinstance(tree, Both):
            return all(self.holds(part, deed, run, up) for part in tree.parts)
        if isinstance(tree, Either):
            return any(self.holds(part, deed, run, up) for part in tree.parts)
        seen = [each for each in self.events if tree.in_task or each.run == run]
        if isinstance(tree, Formerly):
            return self.formerly(tree, seen, deed, up)
        if isinstance(tree, Once):
            return self.once(tree, seen, deed, up)
        return self.tally(tree, seen, deed, up)

    def formerly(self, tree: Formerly, seen: list[Event], deed: Deed, up: bool) -> bool:
        self.sought(tree, deed)
        for done in seen:
            if not done.ok or not meant(tree.past, done.deed, deed, up):
                continue
            if not young(tree, done, deed):
                continue
            if tree.since is not None:
                self.sought_in(tree.since, deed)
                others = [e for e in seen if meant(tree.since, e.deed, deed, not up)]
                if any(other.ended is None or other.ended > done.began for other in others):
                    continue
            return True
        return False

    def once(self, tree: Once, seen: list[Event], deed: Deed, up: bool) -> bool:
        self.sought(tree, deed)
        done = [each for each in seen if meant(tree.past, each.deed, deed, up)]
        if not any(young(tree, each, deed) for each in done):
            return False
        if tree.since is None or any(each.ended is None for each in done):
            return True
        self.sought_in(tree.since, deed)
        undone = [e.began for e in seen if e.ok and meant(tree.since, e.deed, deed, not up)]
        return not undone or max(each.ended or 0 for each in done) > max(undone)

    def tally(self, tree: Tally, seen: list[Event], deed: Deed, up: bool) -> bool:
        grows = up if tree.relation in (">", ">=") else not up
        if tree.relation in ("==", "!="):
            grows = True
        self.sought(tree, deed)
        counted = [
            each.deed
            for each in seen
            if (grows or each.ok)
            and young(tree, each, deed)
            and meant(tree.past, each.deed, deed, grows)
        ]
        if grows and meant(tree.past, deed, deed, True):
            counted.append(deed)
        total = Fraction(0)
        for each in counted:
            amount = 1 if tree.amount is None else number(tree.amount.text, each)
            if amount is not None:
                total += amount
            elif grows:
                raise Err
        return bool(COMPARE[tree.relation](total, Fraction(str(tree.limit))))

    def sought(self, tree: Any, deed: Deed) -> None:
        self.sought_in(tree.past, deed)

    def sought_in(self, past: Any, deed: Deed) -> None:
        """What the judged call is asked for must be there, whoever matches."""
        if past.condition is not None and "call.args.k" in past.condition.text:
            value("args.k", deed, deed)


def young(tree: Any, event: Event, deed: Deed) -> bool:
    return tree.within_ns is None or deed.at_ns - event.deed.at_ns <= tree.within_ns


def tool_of(tools: Any, deed: Deed, uncertain: bool) -> bool:
    for name in tools.names:
        if name == deed.tool or (name.endswith("*") and deed.tool.startswith(name[:-1])):
            return True
    if not tools.kinds:
        return False
    return uncertain if deed.kind is None else deed.kind in tools.kinds


def meant(past: Any, event: Deed, deed: Deed, uncertain: bool) -> bool:
    """Whether a past call is meant. Each part of a condition is asked by itself: where one has no
    value the call is meant if `uncertain`, unless another says no."""
    if not tool_of(past.tools, event, uncertain):
        return False
    for part in past.condition.text.split("&&") if past.condition else ():
        try:
            if value(part, event, deed) is not True:
                return False
        except Err:
            if not uncertain:
                return False
    return True


def value(text: str, event: Deed, deed: Deed) -> Any:
    """The few forms that the test's rules use: `args.k == call.args.k`, `args.n > 3`, `args.n`."""
    for sign in ("==", ">"):
        left, found, right = text.partition(sign)
        if found:
            return COMPARE[sign](value(left, event, deed), value(right, event, deed))
    text = text.strip()
    if text.isdigit():
        return int(text)
    args = deed.args if text.startswith("call.") else event.args
    name = text.rpartition(".")[2]
    if name not in args:
        raise Err
    return args[name]


def number(text: str, event: Deed) -> Fraction | None:
    try:
        return Fraction(str(value(text, event, event)))
    except Err:
        return None

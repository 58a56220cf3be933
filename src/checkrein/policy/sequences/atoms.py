"""What a rule asks of the past, compiled: whether it holds, and in plain words why.

Every atom answers in a time that does not depend on how much has happened. What may go wrong
(`Unclear`, or what a condition raises) is raised: the rule then denies.
"""

from collections.abc import Callable, Mapping
from operator import eq, ge, gt, le, lt, ne
from typing import Any, NamedTuple

from checkrein.policy.sequences.operands import ANY, Key
from checkrein.policy.sequences.tracks import Mark, Number, State, Sum, Track, plus
from checkrein.policy.sequences.types import Formerly, Once, Past, Relation, Tally
from checkrein.policy.types import Advice
from checkrein.policy.units import duration_text

COMPARE: dict[Relation, Callable[[Any, Any], bool]] = {
    ">=": ge, ">": gt, "<=": le, "<": lt, "==": eq, "!=": ne,
}  # fmt: skip
EASE: tuple[Advice, ...] = ("RETRYABLE", "WAIT", "ESCALATE")
"""From what an agent can do at once to what it cannot do at all."""


class Unclear(ValueError):
    """The past does not say."""


class Look(NamedTuple):
    """One judging: the past of the run and of the task, the judged call, and which tracks follow
    its tool."""

    own: State
    shared: State
    facts: Mapping[str, Any]
    follows: frozenset[int]


class Told(NamedTuple):
    """Why something holds or does not, what would change it, and the values that decided."""

    text: str
    advice: Advice
    inputs: dict[str, Any]


def latest(track: Track, state: State, key: Key) -> Mark | None:
    """The latest call under this key; where what is not certain counts, also of those that may
    equal any key, and of those dropped."""
    slot = state.slots[track.index]
    if slot is None:
        return None
    mark: Mark | None = slot.by_key.get(key)
    if not track.uncertain or (slot.any is None and slot.lost is None):
        return mark
    joined = Mark()
    for each in (mark, slot.any, slot.lost if mark is None else None):
        if each is not None:
            joined.take(each)
    return joined if joined.tick else None


def forgot(track: Track, state: State, key: Key) -> str:
    """What to add when calls under this key may have been dropped from memory."""
    slot = state.slots[track.index]
    if slot is None or slot.lost is None or key in slot.by_key:
        return ""
    taken = "so it is taken for done" if track.uncertain else "so it is taken for not done"
    return f" (there were too many different values to remember them all, {taken})"


class FormerlyAtom:
    """`done` follows successful calls of X, `undone` all of Y."""

    def __init__(self, tree: Formerly, done: Track, undone: Track | None) -> None:
        self.tree, self.done, self.undone = tree, done, undone
        self.phrase = _phrase("formerly", tree)

    def holds(self, look: Look) -> bool:
        tree = self.tree
        state = look.shared if tree.in_task else look.own
        operand = self.done.operand
        done = latest(self.done, state, operand.sought(look.facts) if operand.compared else ())
        if done is None:
            return False
        if tree.within_ns is not None and state.now_ns - done.at_ns > tree.within_ns:
            return False
        if self.undone is None:
            return True
        undone = latest(self.undone, state, self.undone.operand.sought(look.facts))
        return undone is None or not (undone.flying or undone.tick > done.tick)

    def why(self, look: Look, value: bool) -> Told:
        tree = self.tree
        state = look.shared if tree.in_task else look.own
        key = self.done.operand.sought(look.facts)
        done = latest(self.done, state, key)
        age_ns = None if done is None else state.now_ns - done.at_ns
        inputs = {self.phrase: None if age_ns is None else age_ns / 1e9}
        if value:
            text = f"{_calls(tree.past)} succeeded {_ago(age_ns)}{forgot(self.done, state, key)}"
            return Told(text, _heals(tree), inputs)
        text = f"{_calls(tree.past)} must have succeeded{_limits(tree)} first, and "
        if age_ns is None:
            text += f"has not{forgot(self.done, state, key)}"
        elif tree.within_ns is not None and age_ns > tree.within_ns:
            text += f"that was {_ago(age_ns)}"
        elif tree.since is not None:
            text += f"{_calls(tree.since)} has not come back, or was called, since it did"
        return Told(text, "RETRYABLE", inputs)


class OnceAtom:
    """`done` follows all calls of X, `undone` successful ones of Y."""

    def __init__(self, tree: Once, done: Track, undone: Track | None) -> None:
        self.tree, self.done, self.undone = tree, done, undone
        self.phrase = _phrase("once", tree)

    def holds(self, look: Look) -> bool:
        tree = self.tree
        state = look.shared if tree.in_task else look.own
        operand = self.done.operand
        done = latest(self.done, state, operand.sought(look.facts) if operand.compared else ())
        if done is None:
            return False
        if tree.within_ns is not None and state.now_ns - done.at_ns > tree.within_ns:
            return False
        if self.undone is None or done.flying:
            return True
        undone = latest(self.undone, state, self.undone.operand.sought(look.facts))
        return undone is None or done.tick > undone.tick

    def why(self, look: Look, value: bool) -> Told:
        tree = self.tree
        state = look.shared if tree.in_task else look.own
        key = self.done.operand.sought(look.facts)
        done = latest(self.done, state, key)
        age_ns = None if done is None else state.now_ns - done.at_ns
        inputs = {self.phrase: None if age_ns is None else age_ns / 1e9}
        if not value:
            return Told(
                f"{_calls(tree.past)} has not been called{_limits(tree)}", "RETRYABLE", inputs
            )
        text = f"{_calls(tree.past)} was called {_ago(age_ns)}{forgot(self.done, state, key)}"
        if tree.since is not None:
            text += f", and {_calls(tree.since)} has not succeeded since"
        return Told(text, _heals(tree), inputs)


class TallyAtom:
    def __init__(self, tree: Tally, track: Track) -> None:
        self.tree, self.track = tree, track
        self.compare = COMPARE[tree.relation]
        what = "count" if tree.amount is None else f"sum {tree.amount.text.strip()} of"
        self.phrase = f"{what} {_named(tree.past)}{_within(tree)}"

    def holds(self, look: Look) -> bool:
        total, doubt, _ = self._total(look)
        if doubt and self.tree.relation in ("==", "!="):
            raise Unclear(
                f"`{self.phrase}` went over too many different values to remember them all"
            )
        return self.compare(plus(total, doubt) if doubt else total, self.tree.limit)

    def why(self, look: Look, value: bool) -> Told:
        tree = self.tree
        total, doubt, judged = self._total(look)
        shown = _plain(total)
        text = f"`{self.phrase}` is {shown}"
        if judged:
            text += ", this call counted in"
        if doubt:
            text += (
                f" (and up to {_plain(doubt)} more: there were too many different values to "
                "remember them all)"
            )
        text += f", {'' if value else 'not '}{tree.relation} {_plain(tree.limit)}"
        grows = (tree.relation in (">", ">=")) != value
        advice: Advice = "RETRYABLE" if grows else "ESCALATE"
        if not grows and tree.within_ns is not None and not self._alone(judged, value):
            advice = "WAIT"
        return Told(text, advice, {self.phrase: shown, "limit": _plain(tree.limit)})

    def _alone(self, judged: Number, value: bool) -> bool:
        """Whether the judged call by itself is too much, so that waiting does not help."""
        return self.compare(judged, self.tree.limit) is value

    def _total(self, look: Look) -> tuple[Number, Number, Number]:
        """What was, with the judged call; how much more it may have been; and the judged call's
        part. Raises Unclear."""
        track, tree = self.track, self.tree
        state = look.shared if tree.in_task else look.own
        key = track.operand.sought(look.facts) if track.operand.compared else ()
        judged = self._judged(look, key) if track.uncertain else 0
        total, doubt, unknown = judged, 0, 0  # type: Number, Number, Number
        slot, now_ns = state.slots[track.index], state.now_ns
        if slot is not None:
            cell: Sum | None = slot.by_key.get(key)
            for each in (cell, slot.any):
                if each is not None:
                    total = plus(total, each.total(now_ns))
                    if each.unknown is not None:
                        unknown = plus(unknown, each.unknowns(now_ns))
            bound = cell or slot.lost
            if bound is not None and track.uncertain:
                doubt = bound.doubt and bound.doubted(now_ns, tree.within_ns)
        if unknown and track.uncertain:
            raise Unclear(f"`{self.phrase}` goes over a call whose amount nobody knows")
        return total, doubt, judged

    def _judged(self, look: Look, key: Key) -> Number:
        if self.track.index not in look.follows:
            return 0
        filed = self.track.operand.key(look.facts, True)
        if filed is None or (filed is not ANY and filed != key):
            return 0
        weight = self.track.weight(look.facts)
        if weight is None:
            raise Unclear(f"what this call would add to `{self.phrase}` is no amount")
        return weight


class NotNode:
    def __init__(self, part: "Node") -> None:
        self.part = part

    def holds(self, look: Look) -> bool:
        return not self.part.holds(look)

    def why(self, look: Look, value: bool) -> Told:
        return self.part.why(look, not value)


class JoinNode:
    """`and` (`deciding` is False: the value that settles it in one part alone), or `or` (True).
    Read from left to right, no further than what decides."""

    def __init__(self, parts: "tuple[Node, ...]", deciding: bool) -> None:
        self.parts, self.deciding = parts, deciding

    def holds(self, look: Look) -> bool:
        deciding = self.deciding
        return any(part.holds(look) is deciding for part in self.parts) is deciding

    def why(self, look: Look, value: bool) -> Told:
        """The parts that make it so. What all parts hold up falls with any one of them: then the
        easiest advice is given, else the hardest."""
        told: list[Told] = []
        for part in self.parts:
            try:
                if part.holds(look) is value:
                    told.append(part.why(look, value))
            except Exception:
                if not told:
                    raise
                break  # it was settled before this part was read
        ease = [EASE.index(each.advice) for each in told]
        advice = EASE[max(ease) if value is self.deciding else min(ease)]
        inputs = {name: item for each in told for name, item in each.inputs.items()}
        return Told(" and ".join(each.text for each in told), advice, inputs)


Node = FormerlyAtom | OnceAtom | TallyAtom | NotNode | JoinNode


def _heals(tree: Formerly | Once) -> Advice:
    """What ends that a call was made."""
    if tree.since is not None:
        return "RETRYABLE"
    return "WAIT" if tree.within_ns is not None else "ESCALATE"


def _named(past: Past) -> str:
    return past.tools.text + (f"({past.condition.text.strip()})" if past.condition else "")


def _calls(past: Past) -> str:
    return f"`{_named(past)}`"


def _within(tree: Formerly | Once | Tally) -> str:
    within = f" within {duration_text(tree.within_ns / 1e9)}" if tree.within_ns else ""
    return within + (" in task" if tree.in_task else "")


def _limits(tree: Formerly | Once) -> str:
    since = f" since {_calls(tree.since)}" if tree.since else ""
    return _within(tree) + since


def _phrase(word: str, tree: Formerly | Once) -> str:
    since = f" since {_named(tree.since)}" if tree.since else ""
    return f"{word} {_named(tree.past)}{since}{_within(tree)}"


def _ago(age_ns: int | None) -> str:
    return f"{duration_text(round((age_ns or 0) / 1e9, 1))} ago"


def _plain(value: Number) -> int | float:
    if isinstance(value, int):
        return value
    return int(value) if value.is_finite() and value == value.to_integral_value() else float(value)

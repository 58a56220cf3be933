"""Loops: the same again, without anything new to show for it.

Repetition alone proves nothing: paging, polling and edit-and-test repeat too. What makes a loop is
that nothing new comes back. So every returned call is marked as having made *progress* or not, and
only the calls since the last progress (the stale stretch) are looked at.

The same logic runs before a call (the guard asks `standing` and refuses) and after it (the detector
asks what the call just returned adds up to). State per run: 16 calls and 256 result fingerprints.
"""

from typing import Literal

import msgspec

from checkrein.policy.likeness import (
    TEXT_BYTES_MAX,
    Words,
    arguments_text,
    canonical,
    fingerprint,
    is_empty,
    is_low,
    masked,
    near,
    words,
)
from checkrein.policy.types import Loops

RING = 16
SEEN_MAX = 256
_PERIODS = (2, 3, 4, 5)
_KEPT_BYTES = 1024

Rule = Literal["", "same_call", "similar_call", "no_progress", "cycle"]


class Call(msgspec.Struct):
    """One call: what was asked (`exact`, `text`) and, once returned, what it brought."""

    tool: str
    exact: int
    text: bytes
    at_ns: int
    progress: bool = True
    low: bool = False
    result: int = 0
    masked: int = 0
    head: bytes = b""

    def words(self) -> Words:
        return words(self.text)

    def mask(self) -> int:
        if not self.masked:
            self.masked = masked(self.head)
            self.head = b""
        return self.masked


class LoopState(msgspec.Struct):
    """One run's memory. `ring` is oldest first; `seen` holds fingerprints in order of arrival."""

    ring: list[Call] = []
    seen: dict[int, bool] = {}


class Standing(msgspec.Struct, frozen=True):
    """How often a call has been made already without progress: equal, near-duplicate within the
    window; how long nothing new came (`stale`); and the period of a cycle it continues (0: none).
    """

    same: int = 0
    similar: int = 0
    stale: int = 0
    cycle: int = 0
    same_tool_stale: bool = False


NOTHING = Standing()


def call_of(tool: str, arguments: object, now_ns: int) -> Call:
    """A call about to be made."""
    text = arguments_text(arguments)
    exact = fingerprint(tool.encode("utf-8", "replace") + b"\0" + text)
    return Call(tool, exact, text[:_KEPT_BYTES], now_ns)


def standing(state: LoopState, call: Call, loops: Loops) -> Standing:
    """How a call that is not yet in the ring stands to those that are."""
    ring = state.ring
    if not ring or ring[-1].progress:
        return NOTHING
    start = len(ring)
    while start and not ring[start - 1].progress:
        start -= 1
    same, similar, same_tool = 0, 0, False
    mine: Words | None = None
    oldest_ns = call.at_ns - round(loops.similar_window_s * 1e9)
    origin = False
    for index in range(len(ring) - 1, -1, -1):
        past = ring[index]
        if past.tool != call.tool:
            continue
        stale = index >= start
        same_tool = same_tool or stale
        if past.exact == call.exact:
            if stale:
                same += 1
                similar += past.at_ns >= oldest_ns
            elif not origin:
                origin = True
                same += 1
                similar += past.at_ns >= oldest_ns
        elif stale and past.at_ns >= oldest_ns:
            if mine is None:
                mine = call.words()
            theirs = past.words()
            similar += (mine.order == theirs.order) if past.low else near(mine, theirs)
    return Standing(same, similar, len(ring) - start, _cycle(ring, call.tool, start), same_tool)


def _cycle(ring: list[Call], tool: str, start: int) -> int:
    """The period of a sequence of tool names that this tool would complete for the third time, when
    its last two rounds brought nothing new; else 0."""
    for period in _PERIODS:
        if len(ring) - start < 2 * period - 1:
            return 0
        if len(ring) < 3 * period - 1:
            return 0
        names = [past.tool for past in ring[len(ring) - 3 * period + 1 :]]
        names.append(tool)
        if len(set(names[:period])) > 1 and names == names[:period] * 3:
            return period
    return 0


def broken(stand: Standing, loops: Loops) -> Rule:
    """The first rule of the pact that one more such call would break."""
    if stand.same >= loops.same_call:
        return "same_call"
    if stand.similar >= loops.similar_call:
        return "similar_call"
    if stand.cycle:
        return "cycle"
    if stand.stale >= loops.no_progress and stand.same_tool_stale:
        return "no_progress"
    return ""


def returned(
    state: LoopState, call: Call, result: object, failed: bool, *, reads: bool = False,
    thorough: bool = False,
) -> bool:  # fmt: skip
    """Takes in what a call brought; True when that was progress: a new result, or a new question.

    `reads`: the tool is known to only read, so that nearly the same question with the same short
    answer is no progress either. `thorough` compares masked results with those of near-duplicates
    too, not only of equal calls: for the detector, which has the time (some 20 µs).
    """
    text = canonical(result)
    call.result = fingerprint(text)
    seen, ring = state.seen, state.ring
    empty = is_empty(text)
    call.low = not failed and not empty and is_low(text)
    if failed:
        call.progress = False
    elif call.low and call.exact in seen and call.result not in seen:
        call.head = text  # the short answer to the same question has changed: `5 %`, then `10 %`
        call.progress = not _brought_before(ring, call, thorough=False)
    elif empty or call.low or call.result in seen:
        call.head = text if call.low else b""
        call.progress = call.exact not in seen and not _asked_before(ring, call, reads)
    else:
        call.head = text[:TEXT_BYTES_MAX]
        if len(text) > TEXT_BYTES_MAX:
            call.head += b"%d" % call.result
        call.progress = not _brought_before(ring, call, thorough)
        if thorough:
            call.mask()
    _remember(seen, call.result)
    _remember(seen, call.exact)
    ring.append(call)
    if len(ring) > RING:
        del ring[0]
    return call.progress


def _asked_before(ring: list[Call], call: Call, reads: bool) -> bool:
    """A result that says nothing new is news all the same when the question is new. It is not when
    nearly the same was asked before, with this result. After a short answer of a tool that may have
    changed something, only the same words count: adding Bob is not adding Alice."""
    mine: Words | None = None
    for past in ring:
        if past.tool == call.tool and past.result == call.result:
            if mine is None:
                mine = call.words()
            theirs = past.words()
            if mine.order == theirs.order or ((reads or not call.low) and near(mine, theirs)):
                return True
    return False


def _brought_before(ring: list[Call], call: Call, thorough: bool) -> bool:
    mine: Words | None = None
    for past in ring:
        if past.tool != call.tool or not (past.head or past.masked):
            continue
        if past.exact != call.exact:
            if not thorough or past.mask() != call.mask():
                continue
            if mine is None:
                mine = call.words()
            if near(mine, past.words()):
                return True
        elif past.mask() == call.mask():
            return True
    return False


def _remember(seen: dict[int, bool], value: int) -> None:
    if value not in seen:
        seen[value] = True
        if len(seen) > SEEN_MAX:
            del seen[next(iter(seen))]

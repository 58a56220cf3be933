"""The tools that an agent runs itself: judged when its model proposes them, before the agent sees
the call, and ended when the agent tells its model what they came to.

A call that a tool server behind this gateway serves is judged there. One of an agent whose SDK
announces its calls is judged in the agent; the guard here is only told, so that it knows what the
run has done.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from checkrein.gateway.gate import Gate
from checkrein.gateway.models.calls import NO_ID, Outcome, Proposed, Result
from checkrein.gateway.models.chat import Holds
from checkrein.gateway.models.screen import Screen
from checkrein.gateway.types import Refusal
from checkrein.gateway.visit import Visit
from checkrein.policy.types import Action
from checkrein.sdk import values
from checkrein.sdk.boundary import goes_on
from checkrein.sdk.calls import ToolCall
from checkrein.sdk.run import Run

OPEN_CALLS_MAX = 256
"""Of one run; beyond, the oldest is told to have had no result."""


class ToolFailed(Exception):
    """The agent says that its tool failed."""


class NoResult(Exception):
    """Nobody has said what became of a call."""


class _Open(NamedTuple):
    """A proposed call that the agent may be making. `call` None: it is recorded elsewhere. `turn`:
    the model call that proposed it."""

    name: str
    arguments: Any
    call: ToolCall | None
    turn: str


class Proposals:
    """Of all runs at this gateway. On its loop."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._open: WeakKeyDictionary[Run, OrderedDict[str, _Open]] = WeakKeyDictionary()

    def holds(self, visit: Visit) -> Holds | None:
        """Which tools' calls are judged here when a model proposes them; None: of no tool."""
        return None if visit.announced else partial(self._is_own, visit.run.info.agent)

    def _is_own(self, agent: str, name: str) -> bool:
        """Whether it is the agent itself that runs the tool."""
        return not self._gate.served_tools.serves(agent, name)

    async def judge(
        self, visit: Visit, call: Proposed, known_tools: Sequence[str], screen: Screen
    ) -> Outcome:
        """What becomes of a call; waits where somebody has to approve it. Raises Refusal when the
        run itself may not go on."""
        arguments = screen.arguments(call.arguments)
        if visit.announced or not self._is_own(visit.run.info.agent, call.name):
            return Outcome("", arguments)
        kept = self._open.setdefault(visit.run, OrderedDict())
        before = kept.get(call.id)
        if before is not None and _is_the_same(before, call, arguments, visit):
            return Outcome("", before.call.arguments if before.call is not None else arguments)
        facts = dict(visit.facts)
        try:
            made = await visit.begin_tool(
                call.name,
                arguments,
                known_tools=known_tools,
                call_id=call.id if before is None else "",
            )
        except Refusal as refusal:
            if refusal.code != "denied":
                raise
            return Outcome(f"[checkrein] {refusal.text.removeprefix('checkrein: ')}")
        finally:
            visit.facts |= facts
        # It is the agent that makes the call: nothing of it is in flight here.
        visit.run.leave(made.call_id)
        self._keep(visit, kept, call.id, _Open(call.name, arguments, made, visit.call_id))
        return Outcome("", made.arguments, made.changed)

    def remember(self, visit: Visit, calls: Iterable[Mapping[str, Any]]) -> None:
        """Calls that were proposed to an agent that records them itself."""
        kept = self._open.setdefault(visit.run, OrderedDict())
        for call in calls:
            name = str(call.get("name", ""))
            if call.get("id") and self._is_own(visit.run.info.agent, name):
                entry = _Open(name, call.get("arguments"), None, visit.call_id)
                self._keep(visit, kept, str(call["id"]), entry)

    def waits(self, run: Run) -> bool:
        """Whether results would mean anything."""
        return bool(self._open.get(run))

    def heard(self, visit: Visit, results: Iterable[Result]) -> None:
        """The agent tells its model what calls came to."""
        kept = self._open.get(visit.run)
        if not kept:
            return
        for result in results:
            entry = kept.pop(result.id, None)
            if entry is None:
                continue
            if entry.call is None:
                _tell(visit.run, result, entry)
            elif result.failed:
                visit.fail_tool(entry.call, ToolFailed(values.clean_text(result.value, 2_000)))
            else:
                visit.end_tool(entry.call, result.value)

    def _keep(self, visit: Visit, kept: OrderedDict[str, _Open], key: str, entry: _Open) -> None:
        over = [kept.pop(key)] if key in kept else []
        kept[key] = entry
        while len(kept) > OPEN_CALLS_MAX:
            over.append(kept.popitem(last=False)[1])
        for each in over:
            if each.call is not None:
                visit.fail_tool(each.call, NoResult("nobody has said what became of it"))


def _is_the_same(before: _Open, call: Proposed, arguments: Any, visit: Visit) -> bool:
    """Whether an answer that was asked for again repeats a call that was judged already. Within one
    answer, and under a name that is no id, it is another call."""
    return (
        (before.name, before.arguments) == (call.name, arguments)
        and before.turn != visit.call_id
        and bool(call.id) and not call.id.startswith(NO_ID)
    )  # fmt: skip


def _tell(run: Run, result: Result, entry: _Open) -> None:
    """The guard learns of a call that was judged and recorded in the agent."""
    action = Action(
        kind="tool", name=entry.name, arguments=values.plain(entry.arguments), call_id=result.id
    )
    now_ns = run.world.monotonic_ns()
    if goes_on(run.seat.granted(action, now_ns)):
        error = values.clean_text(result.value, 2_000) if result.failed else ""
        run.seat.returned(action, values.plain(result.value), error, now_ns)

"""Escalations that the pact asks for and that were not raised: a call was made about which somebody
should have been told, and nobody was.

The agent's own guard raises them before the call; this looks at what was recorded, so it also sees
agents whose guard was left out. A condition that reads what no event carries says nothing here.
"""

from typing import Any

import msgspec

from checkrein.detect.base import NOTHING, Observations, PerRun, shown
from checkrein.detect.types import Context, Observation
from checkrein.events.types import EscalationRaised, ToolArguments, ToolInvoked
from checkrein.policy.conditions.types import EvaluationError
from checkrein.policy.kinds import declared_kind
from checkrein.policy.likeness import arguments_text, fingerprint
from checkrein.policy.rulebook import book_of

_OPEN_MAX = 64
_OWED_MAX = 512


class _Owed(msgspec.Struct):
    """A call that owes escalations: of which duties (by their place in the pact), and its
    fingerprint."""

    duties: list[int]
    mark: int


class UnescalatedState(msgspec.Struct):
    """Bound: 64 calls in flight, 512 fingerprints, and the names of the pact's duties: 30 kB."""

    open: dict[str, _Owed] = {}
    owed: dict[str, list[int]] = {}
    raised: dict[str, int] = {}


class Unescalated(PerRun):
    """Equal calls owe one escalation; every other one its own. An escalation counts for whom it was
    raised to, whoever raised it."""

    name = "unescalated"
    state_type = UnescalatedState
    handles = (ToolArguments, ToolInvoked, EscalationRaised)

    def observe(self, state: UnescalatedState, event: Any, context: Context) -> Observations:
        if not context.pact.escalate:
            return NOTHING
        match event:
            case EscalationRaised():
                state.raised[event.to] = state.raised.get(event.to, 0) + 1
                if len(state.raised) > _OPEN_MAX:
                    del state.raised[next(iter(state.raised))]
                return NOTHING
            case ToolArguments():
                self._note(state, event, context)
                return NOTHING
            case ToolInvoked():
                owed = state.open.pop(event.call_id, None)
                return NOTHING if owed is None else self._look(state, owed, event, context)
            case _:
                return NOTHING

    def _note(self, state: UnescalatedState, event: ToolArguments, context: Context) -> None:
        args = event.arguments if type(event.arguments) is dict else {"value": event.arguments}
        facts = {
            "args": args, "tool": event.tool, "step": event.step, "agent": event.agent,
            "kind": declared_kind(context.pact, event.tool, None) or "", "room": event.room,
            "environment": event.environment, "run_id": event.run_id, "task_id": event.task_id,
        }  # fmt: skip
        duties = []
        for index, (condition, _) in enumerate(book_of(context.pact).duties):
            try:
                if condition(facts):
                    duties.append(index)
            except (EvaluationError, KeyError):
                continue
        if not duties:
            return
        if len(state.open) >= _OPEN_MAX:
            del state.open[next(iter(state.open))]
        text = event.tool.encode("utf-8", "replace") + b"\0" + arguments_text(event.arguments)
        state.open[event.call_id] = _Owed(duties, fingerprint(text))

    def _look(
        self, state: UnescalatedState, owed: _Owed, event: ToolInvoked, context: Context
    ) -> Observations:
        found = []
        for index in owed.duties:
            if index >= len(context.pact.escalate):
                continue  # another pact by now
            duty = context.pact.escalate[index]
            marks = state.owed.setdefault(duty.to, [])
            if owed.mark in marks or len(marks) >= _OWED_MAX:
                continue
            marks.append(owed.mark)
            if len(marks) <= state.raised.get(duty.to, 0):
                continue
            marks.pop()  # told of: it is not owed a second time
            found.append(Observation(
                level="breach", evidence=shown(event), subject=f"{duty.to} {event.tool}",
                why=f"`{event.tool}` was called where the pact says `{duty.when}`, and "
                f"{duty.to or 'nobody named'} was not told",
            ))  # fmt: skip
        return found

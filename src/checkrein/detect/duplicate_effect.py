"""Duplicate side effects: the same payment, mail or order made twice in one run.

Counted are calls that succeeded with canonically equal arguments, of tools that are declared
irreversible or compensable, or whose name says that each call has an effect of its own (send, pay,
order, create …). Tools that may be repeated without harm (reading, writing the same file) are not.
"""

from typing import Any

import msgspec

from checkrein.detect.base import NOTHING, Observations, PerRun
from checkrein.detect.types import Context, Observation
from checkrein.events.types import ToolArguments, ToolInvoked, ToolReturned
from checkrein.policy.kinds import declared_kind, seems_once
from checkrein.policy.likeness import arguments_text, fingerprint

_EFFECTS_MAX = 512
_OPEN_MAX = 64


class _Effect(msgspec.Struct):
    count: int
    first: tuple[str, int]


class DuplicateEffectState(msgspec.Struct):
    """Bound: 512 effects, the oldest forgotten first, and 64 calls in flight: 60 kB at most."""

    effects: dict[int, _Effect] = {}
    open: dict[str, int] = {}
    kinds: dict[str, str] = {}


class DuplicateEffect(PerRun):
    name = "duplicate-effect"
    state_type = DuplicateEffectState
    handles = (ToolArguments, ToolInvoked, ToolReturned)

    def observe(self, state: DuplicateEffectState, event: Any, context: Context) -> Observations:
        match event:
            case ToolArguments():
                if len(state.open) >= _OPEN_MAX:
                    del state.open[next(iter(state.open))]
                text = event.tool.encode("utf-8", "replace") + b"\0"
                state.open[event.call_id] = fingerprint(text + arguments_text(event.arguments))
                return NOTHING
            case ToolInvoked():
                if event.kind and len(state.kinds) < _OPEN_MAX:
                    state.kinds[event.tool] = event.kind
                return NOTHING
            case ToolReturned():
                call = state.open.pop(event.call_id, None)
                if call is None or event.status != "ok":
                    return NOTHING
                return self._succeeded(state, call, event, context)
            case _:
                return NOTHING

    def _succeeded(
        self, state: DuplicateEffectState, call: int, event: ToolReturned, context: Context
    ) -> Observations:
        kind = declared_kind(context.pact, event.tool, state.kinds.get(event.tool))
        if kind == "read" or (kind is None and not seems_once(event.tool)):
            return NOTHING
        effect = state.effects.get(call)
        if effect is None:
            if len(state.effects) >= _EFFECTS_MAX:
                del state.effects[next(iter(state.effects))]
            state.effects[call] = _Effect(1, (event.recorder, event.seq))
            return NOTHING
        effect.count += 1
        grave = kind == "irreversible" or effect.count > 2
        said = kind or "with an effect, by its name"
        return [Observation(
            level="breach" if grave else "warn",
            why=f"`{event.tool}` ({said}) has succeeded {effect.count} times with equal arguments",
            value=float(effect.count), limit=1.0,
            evidence=(effect.first, (event.recorder, event.seq)), subject=f"{event.tool} {call:x}",
        )]  # fmt: skip

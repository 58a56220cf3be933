"""The rules a pact names with one word: `learned`, `directive`, `untrusted`, `trifecta`.

A value that stands in the user's own words, or in the system prompt, is never held against a call.
"""

from typing import Any, NamedTuple, Protocol

from checkrein.policy.flow.addresses import Internal
from checkrein.policy.flow.directives import UNSETTLED, WEAK, Directive
from checkrein.policy.flow.identifiers import leaves
from checkrein.policy.flow.normal import keys
from checkrein.policy.flow.profile import (
    APPROVALS_TO_PROMOTE,
    HISTORY_MIN,
    MATURE_RUNS,
    USUAL_TIMES,
)
from checkrein.policy.flow.sources import sends_out
from checkrein.policy.flow.state import Lineage, Origin, State
from checkrein.policy.types import Deed, ToolRule, VerdictKind

SHOWN_CHARS_MAX = 120
PROSE_CHARS_MIN = 6
PROSE_CHARS_MAX = 300


class Objection(NamedTuple):
    """What a rule holds against a call: how grave by itself, why, and what it looked at."""

    verdict: VerdictKind
    reason: str
    inputs: dict[str, Any]


class Judge(Protocol):
    def __call__(
        self, state: State, lineage: Lineage, deed: Deed, house: "House"
    ) -> Objection | None: ...


class House(NamedTuple):
    """What rules know of the pact."""

    tools: dict[str, ToolRule]
    internal: Internal


def learned(state: State, lineage: Lineage, deed: Deed, house: House) -> Objection | None:
    """The tool, or the way a value took to it, was never seen in runs of this type of task. Asked
    about while the type has fewer than 20 runs, refused from then on. What somebody let pass three
    times is usual."""
    tool = lineage.tool
    own = state.profile
    never = not own.knows_sink(tool)
    if never and (own.runs >= HISTORY_MIN or _is_new(state, [tool], False)):
        if lineage.acts or any(not origin.by_user for origin in lineage.origins):
            return _novelty(state, [tool], f"`{tool}` was never called")
        return None
    for origin in lineage.origins:
        edges = lineage.edges(state, origin)
        made_up = not origin.mask and not origin.unknown and not origin.address
        if not edges or made_up or _is_usual(state, lineage, origin):
            continue
        known = any(state.profile.knows(edge) for edge in edges)
        if _is_new(state, edges, known):
            return _novelty(state, edges, f"{_came(state, origin)}, and that way was never taken")
        target = f"{tool}.{origin.argument}"
        name = f"{target} = {origin.key[:64]}"
        if (
            not origin.free
            and state.profile.is_new_value(target, origin.key)
            and not state.profile.knows(name)
        ):
            what = f"{_came(state, origin)}, and `{target}` has never had that value"
            return _novelty(state, [name], what)
    return None


def _is_new(state: State, names: list[str], known: bool) -> bool:
    own, whole = state.profile, state.whole
    return not known and all(own.is_surprising(name, whole) for name in names)


def _is_usual(state: State, lineage: Lineage, origin: Origin) -> bool:
    """The argument has had this very value, in this type of task or often in others."""
    target = f"{lineage.tool}.{origin.argument}"
    return (
        state.profile.times(target, origin.key) > 0
        or state.whole.times(target, origin.key) >= USUAL_TIMES
    )


def _novelty(state: State, news: list[str], what: str) -> Objection:
    known = state.profile
    history = (
        f"with {known.runs} runs of it known this is refused"
        if known.mature
        else f"only {known.runs} of {MATURE_RUNS} runs of it are known, so this is asked about; "
        f"{APPROVALS_TO_PROMOTE} approvals make it usual"
    )
    kind = f"tasks of type `{state.task_type}`" if state.task_type else "tasks like this"
    return Objection(
        "deny" if known.mature else "ask", f"{what} in {kind}; {history}",
        {"new": news[:5], "task_type": state.task_type[:SHOWN_CHARS_MAX], "runs": known.runs},
    )  # fmt: skip


def directive(state: State, lineage: Lineage, deed: Deed, house: House) -> Objection | None:
    """A result that others can write to gave orders to the agent, and now it acts. With a plain
    order: refused when the call's values stand beside it, asked about otherwise, unless the call is
    one that runs of this type make anyway. With a faint one: asked about when a destination stands
    beside it that was never used so before."""
    if not state.directives:
        return None
    settled = state.profile.runs >= HISTORY_MIN
    enough = WEAK if settled else UNSETTLED
    first = state.directives[0]  # the strongest
    if not first.strong and first.score < enough:
        return None
    fresh = [
        each for each in lineage.origins if not each.by_user and not _is_known(state, lineage, each)
    ]
    for origin in fresh:
        faint = _is_on_known_way(state, lineage, origin)
        for each in state.directives:
            if not each.strong and (faint or origin.free or each.score < enough):
                continue
            if each.holds(keys(origin.text)):
                return Objection(
                    "deny" if each.strong else "ask",
                    f"{_shown(origin.text)} in `{origin.argument}` stands beside an order to the "
                    f"agent in the result of `{each.tool}` ({', '.join(each.signs)})",
                    _inputs(each, origin),
                )
    said = _said_there(state, deed) if first.strong and lineage.acts else None
    if said is not None:
        return said
    usual = not fresh and settled and lineage.tool in state.profile.sinks
    if first.strong and lineage.acts and not usual:
        return Objection(
            "ask",
            f"the result of `{first.tool}` gave orders to the agent ({', '.join(first.signs)}), "
            f"and `{lineage.tool}` acts after it",
            _inputs(first, None),
        )
    return None


def _is_known(state: State, lineage: Lineage, origin: Origin) -> bool:
    """The argument has had this very value in this type of task."""
    return state.profile.times(f"{lineage.tool}.{origin.argument}", origin.key) > 0


def _is_on_known_way(state: State, lineage: Lineage, origin: Origin) -> bool:
    """The value is usual for the agent, or came as values come in this type of task (in any, where
    this type has no history). An address in a type with history must be usual itself."""
    settled = state.profile.runs >= HISTORY_MIN
    if origin.address or not settled:
        if _is_usual(state, lineage, origin):
            return True
        if settled:
            return False
    known = state.profile if settled else state.whole
    return any(known.knows(edge) for edge in lineage.edges(state, origin))


def _said_there(state: State, deed: Deed) -> Objection | None:
    """A text of the call stands word for word beside a plain order, and not in what the user said:
    the title that was dictated."""
    user = state.index.sources[0]
    for leaf in leaves(deed.args):
        if not leaf.free or not PROSE_CHARS_MIN <= len(leaf.text) <= PROSE_CHARS_MAX:
            continue
        value = keys(leaf.text)
        if user.has_phrase(value[0], value[0].split()):
            continue
        for each in state.directives:
            if each.strong and each.holds(value):
                return Objection(
                    "deny",
                    f"{_shown(leaf.text)} in `{leaf.argument}` stands word for word beside an "
                    f"order to the agent in the result of `{each.tool}` ({', '.join(each.signs)})",
                    {**_inputs(each, None), "argument": leaf.argument},
                )
    return None


def untrusted(state: State, lineage: Lineage, deed: Deed, house: House) -> Objection | None:
    """Where the call goes comes only from results that others can write to, or from nowhere."""
    index = state.index
    for origin in lineage.origins:
        if origin.free:
            continue
        if origin.mask and not origin.mask & ~index.untrusted_mask:
            return Objection("ask", f"{_came(state, origin)} only", _inputs(None, origin))
        if not origin.mask and origin.address:
            return Objection("ask", _came(state, origin), _inputs(None, origin))
    return None


def trifecta(state: State, lineage: Lineage, deed: Deed, house: House) -> Objection | None:
    """The run has read what must not leave and what others can write to, and now sends something
    out: whoever wrote there could have what was private. Not when this flow is usual."""
    if not (state.private_tool and state.untrusted_tool and lineage.acts):
        return None
    if not sends_out(lineage.tool, house.tools.get(lineage.tool)):
        return None
    addresses = [each for each in lineage.origins if each.address and not each.free]
    if addresses and all(house.internal.value(each.text) for each in addresses):
        return None
    known = state.profile
    if known.knows_sink(lineage.tool) and all(
        not edges or any(known.knows(edge) for edge in edges)
        for edges in (lineage.edges(state, origin) for origin in lineage.origins)
    ):
        return None
    return Objection(
        "ask",
        f"`{lineage.tool}` sends something out after `{state.private_tool}` brought what is "
        f"private and `{state.untrusted_tool}` what others can write",
        {"private": state.private_tool, "untrusted": state.untrusted_tool},
    )


BUILTINS: dict[str, Judge] = {
    "learned": learned,
    "directive": directive,
    "untrusted": untrusted,
    "trifecta": trifecta,
}


def _came(state: State, origin: Origin) -> str:
    """`x@y` in `to` comes from the result of `read_file`."""
    what = f"{_shown(origin.text)} in `{origin.argument}`"
    if origin.mask:
        names = state.index.names(origin.mask)
        return f"{what} comes from the result of {', '.join(f'`{name}`' for name in names[:3])}"
    if origin.unknown:
        return f"{what} was found in nothing that is remembered of this run"
    return f"{what} has appeared nowhere before"


def _shown(text: str) -> str:
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= 60 else flat[:59] + "…")


def _inputs(order: Directive | None, origin: Origin | None) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    if order is not None:
        inputs |= {"read_from": order.tool, "signs": list(order.signs), "score": order.score}
        if order.call:
            inputs["call"] = order.call
    if origin is not None:
        inputs |= {"argument": origin.argument, "value": origin.text[:SHOWN_CHARS_MAX]}
    return inputs

"""The flow profile of recorded runs: which values usually go where.

    learner = ProfileLearner(pact)
    for event in events: learner.see(event)
    learner.profiles

Runs that end badly are not learned from, nor those in which an instruction that a tool's result
gave was then carried out (the built-in rule `directive`): a history that contains attacks does not
teach them.
"""

import msgspec

from checkrein.analysis.crews import crew_of
from checkrein.analysis.judging import Judge
from checkrein.events.types import Base, RunEnd, RunStart
from checkrein.policy.flow.profile import Profile, learn
from checkrein.policy.guard import RunGuard
from checkrein.policy.pact import default_pact, version_of
from checkrein.policy.types import Loops, Pact, ToolRule

_ENDED_WELL = ("completed", "escalated")
_NEVER = 1_000_000_000


class ProfileLearner:
    """Not for several threads. `runs`: so many were learned from; `left_out`: so many were not.
    `profiles`: by crew (see `crews`), which for agents of our own is the agent's name."""

    def __init__(self, pact: Pact) -> None:
        self.profiles: dict[str, Profile] = {}
        self.runs = 0
        self.left_out = 0
        watched = watched_pact(pact)
        self._judge = Judge(lambda agent: watched, detecting=False, ended=self._ended)
        self._suspected: dict[str, bool] = {}
        self._crews: dict[str, str] = {}

    def see(self, event: Base) -> None:
        if isinstance(event, RunStart):
            self._crews[event.run_id] = crew_of(event)
            if len(self._crews) > 10_000:
                del self._crews[next(iter(self._crews))]
        for line in self._judge.see((event.run_id, event.seq), event):
            if line.detector == "flow":
                self._suspected[event.run_id] = True
                if len(self._suspected) > 10_000:
                    del self._suspected[next(iter(self._suspected))]

    def _ended(self, end: RunEnd, guard: RunGuard) -> None:
        suspected = self._suspected.pop(end.run_id, False)
        crew = self._crews.pop(end.run_id, end.agent)
        if suspected or end.status not in _ENDED_WELL or guard.flow is None:
            self.left_out += 1
            return
        self.runs += 1
        profile = self.profiles.setdefault(crew, Profile())
        learn(profile, guard.place.task_type, guard.flow.lesson)


def watched_pact(pact: Pact) -> Pact:
    """Of the pact only what says where values come from and go, and the one rule."""
    tools = None
    if pact.tools is not None:
        tools = {
            name: ToolRule(kind=rule.kind, source=rule.source, external=rule.external)
            for name, rule in pact.tools.items()
        }
        tools.setdefault("*", ToolRule())
    never = Loops(same_call=_NEVER, similar_call=_NEVER, no_progress=_NEVER)
    watched = msgspec.structs.replace(
        default_pact(), pact=pact.pact, tools=tools, internal=pact.internal, flow=("directive",),
        loops=never, unclear="allow",
    )  # fmt: skip
    return msgspec.structs.replace(watched, version=version_of(watched))

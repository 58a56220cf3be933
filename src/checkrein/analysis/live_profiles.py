"""Flow profiles learned while agents run: the rules of what teaches, and what does not.

    live = LiveProfiles(learns)
    live.see(event, position)       every event of the stream, in its order
    live.profiles                   what has been learned, by (agent, environment)
    live.changed                    what is to be written

A run teaches its flows when its whole course was seen, it ended `completed`, no breach and no
incident was about it, none of its events are missing, and no instruction that a result gave was
then carried out. What somebody was asked about is not taken from the run: it counts as one approval
in three. Nor is what a pact that is only watched would have refused.

Bounded: 256 runs at once, the one that began longest ago is let go of first and teaches nothing.
"""

from collections.abc import Callable

import msgspec

from checkrein.analysis.judging import Judge
from checkrein.analysis.profiles import watched_pact
from checkrein.bus.pacts import place_of
from checkrein.bus.profiles import LearnedProfile
from checkrein.events.types import (
    ApprovalDecided,
    ApprovalRequested,
    Base,
    Incident,
    Loss,
    RunEnd,
    RunStart,
    ScopeDecision,
    Signal,
)
from checkrein.policy.flow.grammar import BuiltinRule, FlowError, parse
from checkrein.policy.flow.profile import Lesson, Profile, approve, learn
from checkrein.policy.guard import RunGuard
from checkrein.policy.types import Pact

RUNS_MAX = 256
ASKS_MAX = 256
AGENTS_MAX = 10_000
LEARNERS_MAX = 1_000
Key = tuple[str, str]
"""(agent, environment)"""
Learns = Callable[[str, str], Pact | None]
"""The pact of an agent in an environment if it has the rule `learned`, enforced or watched."""


class _Run(msgspec.Struct):
    """What is known of one run besides what its guard knows. `asked`: what a call was asked about,
    by the call; `approvals`: which call an approval is for."""

    key: Key
    judge: Judge
    suspected: bool = False
    asked: dict[str, list[str]] = {}
    approvals: dict[str, str] = {}
    left_out: set[str] = set()


class LiveProfiles:
    """Not for several threads. `learns` is asked once for each agent and environment, until
    `pacts_changed`."""

    def __init__(self, learns: Learns, *, runs_max: int = RUNS_MAX) -> None:
        self._learns = learns
        self._runs_max = runs_max
        self._judges: dict[Key, Judge | None] = {}
        self._pacts: dict[Key, Pact] = {}
        self._runs: dict[str, _Run] = {}
        self._position = 0
        self.profiles: dict[Key, LearnedProfile] = {}
        self.changed: set[Key] = set()

    def see(self, event: Base, position: int = 0) -> None:
        """`position`: of the message in the stream; what a profile has learned up to there is not
        learned again."""
        key = (event.agent, event.environment)
        try:
            judge = self._judges[key]
        except KeyError:
            judge = self._judge_of(key)
        if judge is None:
            return
        self._position = position
        run = self._runs.get(event.run_id)
        if run is None:
            if type(event) is not RunStart:
                return  # its beginning was not seen
            run = self._begin(event, judge)
        for line in judge.see((event.run_id, event.seq), event):
            run.suspected = run.suspected or line.detector == "flow"
        match event:
            case Signal(level="breach") | Incident() | Loss():
                run.suspected = True
            case ScopeDecision():
                self._decided(run, event)
            case ApprovalRequested():
                if event.call_id in run.asked and len(run.approvals) < ASKS_MAX:
                    run.approvals[event.approval_id] = event.call_id
            case ApprovalDecided():
                self._answered(run, event)
            case RunEnd():
                self._runs.pop(event.run_id, None)
            case _:
                pass

    def take(self, kept: LearnedProfile) -> None:
        """What stands written: at the start, or when it was written by somebody else."""
        self.profiles[kept.agent, kept.environment] = kept
        self.changed.discard((kept.agent, kept.environment))

    def forget(self, key: Key) -> None:
        """Nothing is known any more."""
        self.profiles.pop(key, None)
        self.changed.discard(key)

    def pacts_changed(self) -> None:
        """Runs under way go on being followed by the pact they began under."""
        for key, judge in list(self._judges.items()):
            pact = self._learns(*key)
            if judge is None or pact is None:
                del self._judges[key]
                runs = self._runs.items()
                self._runs = {run_id: run for run_id, run in runs if run.judge is not judge}
            else:
                self._pacts[key] = watched_pact(pact)

    # -- inside -------------------------------------------------------------------------------

    def _judge_of(self, key: Key) -> Judge | None:
        if len(self._judges) >= AGENTS_MAX:
            self._judges.clear()
            self._runs.clear()
        pact = self._learns(*key)
        if pact is None or (len(self._pacts) >= LEARNERS_MAX and key not in self._pacts):
            self._judges[key] = None
            return None
        self._pacts[key] = watched_pact(pact)
        judge = Judge(lambda agent: self._pacts[key], detecting=False, ended=self._ended)
        self._judges[key] = judge
        return judge

    def _begin(self, event: Base, judge: Judge) -> _Run:
        if len(self._runs) >= self._runs_max:
            oldest = next(iter(self._runs))
            self._runs.pop(oldest).judge.forget(oldest)
        key = (event.agent, place_of(event.environment))
        run = _Run(key, judge, asked={}, approvals={}, left_out=set())
        self._runs[event.run_id] = run
        return run

    def _decided(self, run: _Run, event: ScopeDecision) -> None:
        if not event.rule.startswith("flow"):
            if event.verdict == "modify":
                run.asked.pop(event.call_id, None)  # not what was asked about goes on
            return
        news = event.inputs.get("new")
        if not isinstance(news, list):
            return
        names = [name for name in news[:8] if isinstance(name, str)]
        if len(run.left_out) < ASKS_MAX and (event.verdict == "deny" or not event.shadow):
            run.left_out.update(names)
        if event.verdict == "ask" and not event.shadow and len(run.asked) < ASKS_MAX:
            run.asked[event.call_id] = names

    def _answered(self, run: _Run, event: ApprovalDecided) -> None:
        names = run.asked.pop(run.approvals.pop(event.approval_id, ""), None)
        if names and event.decision == "approved" and not self._is_known(run.key):
            guard = run.judge.guard(event.run_id)
            task_type = guard.place.task_type if guard is not None else ""
            approve(self._note(run.key).profile, task_type, names)

    def _ended(self, end: RunEnd, guard: RunGuard) -> None:
        run = self._runs.get(end.run_id)
        if run is None or guard.flow is None or self._is_known(run.key):
            return
        kept = self._note(run.key)
        if run.suspected or end.status != "completed":
            kept.left_out += 1
            return
        learn(kept.profile, guard.place.task_type, _without(guard.flow.lesson, run.left_out))

    def _is_known(self, key: Key) -> bool:
        """Whether the profile has what comes now: a part of the stream is read again."""
        kept = self.profiles.get(key)
        return kept is not None and 0 < self._position <= kept.position

    def _note(self, key: Key) -> LearnedProfile:
        kept = self.profiles.get(key)
        if kept is None:
            kept = self.profiles[key] = LearnedProfile(
                agent=key[0], environment=key[1], profile=Profile(types={})
            )
        self.changed.add(key)
        return kept


def learned_in(pact: Pact) -> bool:
    """Whether a pact has the rule `learned`."""
    for index, text in enumerate(pact.flow or ()):
        try:
            rule = parse(text, index)
        except FlowError:
            continue
        if isinstance(rule, BuiltinRule) and rule.name == "learned":
            return True
    return False


def _without(lesson: Lesson, names: set[str]) -> Lesson:
    """What a run did but for some sinks, edges and values."""
    if not names:
        return lesson
    values = {
        target: {key for key in keys if f"{target} = {key[:64]}" not in names}
        for target, keys in lesson.values.items()
    }
    return Lesson(
        sinks=lesson.sinks - names, edges=lesson.edges - names,
        values={target: keys for target, keys in values.items() if keys},
    )  # fmt: skip

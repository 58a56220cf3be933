"""Runs the detectors over a stream of events: pure, bounded, and able to stop and go on.

    engine = Engine(detectors(), pact_of)
    for found in engine.observe(event, now_ns): ...     # Signal or Halt
    for found in engine.tick(now_ns): ...
    engine.restore(engine.snapshot())

Promises. The same events and ticks give the same signals, with the same ids, whether or not the
engine was snapshot and restored between them. A run is told the same thing once: a signal is known
by (run, detector, level, runaway, subject). A `Halt` is asked for at most once a run: for a
runaway, or when two detectors that blame the agent saw a breach within ten minutes. A detector that
raises is reported by name and takes nothing down. All state is bounded, and what is forgotten for
lack of room is reported.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from checkrein.detect.types import Context, Detector, Observation, Report
from checkrein.events.types import Base, RunEnd, RunStart, ScopeDecision, Signal
from checkrein.policy.types import Pact

RUNS_MAX = 20_000
ENDED_MAX = 2_000
"""So many ended runs are remembered, for what may still come of them."""
KEYS_MAX = 20_000
SIGNALS_PER_RUN_MAX = 64
BREACH_WINDOW_NS = 600 * 1_000_000_000
SNAPSHOT_VERSION = 1
PACT_ADOPTED = "pact.adopted"
"""The rule by which a run says that another version of its pact holds from now on."""


class Halt(msgspec.Struct, frozen=True, kw_only=True):
    """The engine's request that a run be stopped, with what it rests on."""

    run_id: str
    task_id: str
    agent: str
    detector: str
    reason: str
    signal_ids: tuple[str, ...]


class RunFacts(msgspec.Struct):
    """What the engine knows of a run: whose it is, its pact, and what has been said of it."""

    environment: str
    room: str
    agent: str
    run_id: str
    task_id: str
    pact: Pact
    step: int = 0
    parent_run_id: str = ""
    pact_version: str = ""
    said: dict[str, str] = {}
    breaches: dict[str, tuple[int, str, str]] = {}
    halt_asked: bool = False
    ended: bool = False


class _Snapshot(msgspec.Struct):
    version: int
    runs: list[RunFacts]
    states: dict[str, list[tuple[str, msgspec.Raw]]]


Found = Signal | Halt
PactOf = Callable[[str, str, str, int], Pact]
"""The pact of (agent, environment) of that version; of an unknown one or "", the one that was in
force then (ns since 1970). An agent may have decided by what has been replaced since."""


class Engine:
    """Not for several threads. `pact_of` answers at once, from memory. Events
    of runs that have ended reach only detectors that do not keep their state by the run."""

    def __init__(
        self,
        detectors: Sequence[Detector],
        pact_of: PactOf,
        report: Report = lambda detector, error: None,
        *,
        recorder: str = "role:watch",
        runs_max: int = RUNS_MAX,
        keys_max: int = KEYS_MAX,
    ) -> None:
        self._detectors = tuple(detectors)
        self._pact_of = pact_of
        self._report = report
        self._recorder = recorder
        self._runs_max = runs_max
        self._keys_max = keys_max
        self.runs: dict[str, RunFacts] = {}
        self._ended: dict[str, bool] = {}
        self._states: dict[str, dict[str, Any]] = {each.name: {} for each in self._detectors}
        self._routes: dict[type, list[tuple[Detector, dict[str, Any]]]] = {}
        self.evicted_count = 0
        self.error_count = 0

    def handles(self, kind: type) -> bool:
        """Whether any detector, or the engine itself, wants events of this type."""
        return bool(self._route(kind)) or kind in (RunStart, RunEnd)

    def observe(self, event: Base, now_ns: int | None = None) -> list[Found]:
        """Takes in one event; what is to be said of it. `now_ns` is when it arrived (default: the
        event's own time, for recorded runs)."""
        facts = self._facts(event)
        if isinstance(event, ScopeDecision) and event.shadow:
            return []  # decided by a pact that is only watched: nothing was refused
        context = Context(pact=facts.pact, now_ns=event.ts if now_ns is None else now_ns)
        found: list[Found] = []
        for detector, states in self._route(type(event)):
            if facts.ended and detector.per_run and not isinstance(event, RunEnd):
                continue
            try:
                key = detector.key(event)
                if key is None:
                    continue
                state = states.pop(key, None)
                if state is None:
                    self._make_room(detector, states)
                    state = detector.start()
                states[key] = state
                for observation in detector.observe(state, event, context):
                    self._say(detector, observation, facts, context.now_ns, found)
                if detector.done(state):
                    del states[key]
            except Exception as error:  # a detector that errs takes nothing down
                self._erred(detector, error, f"at {type(event).__name__} of run {event.run_id}")
        if isinstance(event, RunEnd):
            self._end(facts)
        return found

    def tick(self, now_ns: int) -> list[Found]:
        """Time has passed; what is to be said of what did not happen."""
        found: list[Found] = []
        for detector in self._detectors:
            if not detector.ticks:
                continue
            for key, state in list(self._states[detector.name].items()):
                facts = self.runs.get(key) if detector.per_run else None
                pact = facts.pact if facts else _NO_PACT
                try:
                    for observation in detector.tick(state, Context(pact=pact, now_ns=now_ns)):
                        about = facts or self.runs.get(observation.run_id)
                        if about is not None:
                            self._say(detector, observation, about, now_ns, found)
                except Exception as error:  # a detector that errs takes nothing down
                    self._erred(detector, error, f"at a tick, key {key}")
        return found

    def pact_changed(self, agent: str, environment: str, pact: Pact) -> None:
        """A pact came into force after runs that had named it had begun: they get it now."""
        for facts in self.runs.values():
            if facts.agent != agent or facts.environment != environment:
                continue
            if not facts.ended and facts.pact_version == pact.version:
                facts.pact = pact

    def said(self, signal: Signal) -> bool:
        """Whether this has been said of its run already."""
        facts = self.runs.get(signal.run_id)
        key = _identity(signal.detector, signal.level, signal.runaway, signal.subject)
        return facts is not None and key in facts.said

    def heard(self, signal: Signal) -> list[Found]:
        """A signal of this very role, read back from the stream: it was said before a restart. It
        is not said again, and counts as if found now. Returns a Halt if one follows."""
        if self.said(signal):
            return []
        facts = self.runs.get(signal.run_id) or self._facts(signal)
        key = _identity(signal.detector, signal.level, signal.runaway, signal.subject)
        facts.said[key] = signal.signal_id
        found: list[Found] = []
        blames = any(each.name == signal.detector and each.blames for each in self._detectors)
        self._weigh(facts, signal, blames, signal.ts, found)
        return found

    def snapshot(self) -> bytes:
        """All state as bytes, for `restore`."""
        states = {
            name: [(key, msgspec.Raw(_PACK.encode(state))) for key, state in states.items()]
            for name, states in self._states.items()
        }
        return _PACK.encode(_Snapshot(SNAPSHOT_VERSION, list(self.runs.values()), states))

    def restore(self, data: bytes) -> None:
        """Back to a snapshot. The state of a detector that has changed its form since is dropped
        and reported. Raises ValueError when the snapshot as a whole cannot be read."""
        try:
            kept = msgspec.msgpack.decode(data, type=_Snapshot)
        except msgspec.MsgspecError as error:
            raise ValueError(f"not a snapshot of the detectors: {error}") from error
        if kept.version != SNAPSHOT_VERSION:
            raise ValueError(f"a snapshot of version {kept.version}, not {SNAPSHOT_VERSION}")
        self.runs = {facts.run_id: facts for facts in kept.runs}
        self._ended = {facts.run_id: True for facts in kept.runs if facts.ended}
        for detector in self._detectors:
            states = self._states[detector.name]
            states.clear()
            decoder = msgspec.msgpack.Decoder(detector.state_type)
            for key, raw in kept.states.get(detector.name, []):
                try:
                    states[key] = decoder.decode(raw)
                except msgspec.MsgspecError as error:
                    self._erred(detector, error, f"in the snapshot, key {key}")

    def _route(self, kind: type) -> list[tuple[Detector, dict[str, Any]]]:
        route = self._routes.get(kind)
        if route is None:
            route = self._routes[kind] = [
                (each, self._states[each.name]) for each in self._detectors if kind in each.handles
            ]
        return route

    def _facts(self, event: Base) -> RunFacts:
        """The run an event belongs to, made known if it is new; the run heard of longest ago is
        forgotten when there are too many."""
        facts = self.runs.pop(event.run_id, None)
        if facts is None:
            if len(self.runs) >= self._runs_max:
                self._forget(next(iter(self.runs)))
            facts = RunFacts(
                event.environment, event.room, event.agent, event.run_id, event.task_id,
                self._pact_of(event.agent, event.environment, "", event.ts),
            )  # fmt: skip
        self.runs[event.run_id] = facts
        if event.step > facts.step:
            facts.step = event.step
        if isinstance(event, RunStart):
            facts.parent_run_id = event.parent_run_id
            facts.pact_version = event.pact_version
            facts.pact = self._declared(event, event.pact_version)
        elif isinstance(event, ScopeDecision) and event.rule == PACT_ADOPTED:
            facts.pact_version = event.pact_version
            facts.pact = self._declared(event, event.pact_version)
        return facts

    def _declared(self, event: Base, version: str) -> Pact:
        return self._pact_of(event.agent, event.environment, version, event.ts)

    def _forget(self, run_id: str) -> None:
        facts = self.runs.pop(run_id)
        self._ended.pop(run_id, None)
        for detector in self._detectors:
            if detector.per_run:
                self._states[detector.name].pop(run_id, None)
        if not facts.ended:
            self.evicted_count += 1
            self._report("engine", f"run {run_id} forgotten: more than {self._runs_max} runs")

    def _make_room(self, detector: Detector, states: dict[str, Any]) -> None:
        if len(states) >= self._keys_max:
            key = next(iter(states))
            del states[key]
            self.evicted_count += 1
            self._report(
                detector.name, f"state of {key} forgotten: more than {self._keys_max} keys"
            )

    def _end(self, facts: RunFacts) -> None:
        facts.ended = True
        self._ended[facts.run_id] = True
        if len(self._ended) > ENDED_MAX:
            self.runs.pop(next(iter(self._ended)), None)
            del self._ended[next(iter(self._ended))]
        for detector in self._detectors:
            if detector.per_run:
                self._states[detector.name].pop(facts.run_id, None)

    def _say(
        self,
        detector: Detector,
        seen: Observation,
        facts: RunFacts,
        now_ns: int,
        found: list[Found],
    ) -> None:
        key = _identity(detector.name, seen.level, seen.runaway, seen.subject)
        if key in facts.said or len(facts.said) >= SIGNALS_PER_RUN_MAX:
            return
        signal = Signal(
            recorder=self._recorder, seq=0, ts=now_ns, environment=facts.environment,
            room=facts.room, agent=facts.agent, run_id=facts.run_id, task_id=facts.task_id,
            step=facts.step, signal_id=_signal_id(facts.run_id, key), detector=detector.name,
            level=seen.level, why=seen.why, runaway=seen.runaway, value=seen.value,
            limit=seen.limit, evidence=list(seen.evidence), subject=seen.subject,
        )  # fmt: skip
        facts.said[key] = signal.signal_id
        found.append(signal)
        self._weigh(facts, signal, detector.blames, now_ns, found)

    def _weigh(
        self, facts: RunFacts, signal: Signal, blames: bool, now_ns: int, found: list[Found]
    ) -> None:
        """Whether a signal calls for a halt, alone or with an earlier breach of another kind."""
        if signal.level != "breach" or facts.halt_asked or facts.ended:
            return
        earlier: Iterable[tuple[str, tuple[int, str, str]]] = ()
        if blames:
            earlier = [
                (name, breach)
                for name, breach in facts.breaches.items()
                if name != signal.detector and now_ns - breach[0] <= BREACH_WINDOW_NS
            ]
            facts.breaches[signal.detector] = (now_ns, signal.signal_id, signal.why[:500])
        if signal.runaway:
            reason = f"runaway ({signal.detector}): {signal.why}"
            ids: tuple[str, ...] = (signal.signal_id,)
        elif earlier:
            name, (_, other_id, why) = min(earlier, key=lambda item: item[1])
            reason = f"two breaches: {name}: {why}; {signal.detector}: {signal.why}"
            ids = (other_id, signal.signal_id)
        else:
            return
        facts.halt_asked = True
        found.append(Halt(
            run_id=facts.run_id, task_id=facts.task_id, agent=facts.agent,
            detector=signal.detector, reason=f"{reason} (step {facts.step})", signal_ids=ids,
        ))  # fmt: skip

    def _erred(self, detector: Detector, error: Exception, where: str) -> None:
        self.error_count += 1
        self._report(detector.name, f"{type(error).__name__}: {error} ({where})")


_NO_PACT = Pact()
_PACK = msgspec.msgpack.Encoder()


def _identity(detector: str, level: str, runaway: bool, subject: str) -> str:
    return f"{detector}\0{'runaway' if runaway else level}\0{subject}"


def _signal_id(run_id: str, identity: str) -> str:
    """The same for the same thing said of the same run, whoever says it and when."""
    return blake2b(f"{run_id}\0{identity}".encode("utf-8", "replace"), digest_size=16).hexdigest()

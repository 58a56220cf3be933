"""Unannounced: a gateway and the agent's own SDK do not tell the same story.

An SDK that records a run announces each call that it sends to a gateway. So a call that passed
without having been announced was made around the SDK; a call that claims to be announced and that
no SDK records hides itself from the record; and a call that the SDK recorded, of a run whose calls
pass a gateway, and that never passed, went around the gateway.

The two come by separate recorders, in any order. What one of them has told is held against the
other when enough time has passed: 5 s, or 20 s when the other has not been heard since.
"""

from typing import Any

import msgspec

from checkrein.detect.base import NOTHING, Observations, PerRun
from checkrein.detect.types import Context, Observation
from checkrein.events.types import (
    Base,
    Heartbeat,
    ModelRequest,
    ModelResponse,
    Passage,
    RunEnd,
    RunStart,
    ToolInvoked,
    ToolReturned,
)

WAIT_NS = 5_000_000_000
SILENT_WAIT_NS = 20_000_000_000
KEPT_NS = 60_000_000_000
_RUNS_MAX = 5_000
_CALLS_MAX = 64
_RECORDERS_MAX = 16
_GATEWAYS_MAX = 1_024
_SDK_CALLS = (ModelRequest, ModelResponse, ToolInvoked, ToolReturned)


class _Passed(msgspec.Struct):
    """A passage that waits to be held against what the SDK tells."""

    kind: str
    name: str
    announced: bool
    ts: int
    at_ns: int
    event: tuple[str, int]


class _Called(msgspec.Struct):
    """A call, as its own recorder told of it first."""

    name: str
    recorder: str
    event: tuple[str, int]


class _Run(msgspec.Struct):
    """`waiting` are passages and `over` calls that are to be judged; `heard`: when each recorder
    was last heard, arrival and its own time (ns)."""

    waiting: dict[str, _Passed] = {}
    called: dict[str, _Called] = {}
    over: dict[str, int] = {}
    passages: dict[str, bool] = {}
    heard: dict[str, tuple[int, int]] = {}
    calling: list[str] = []
    starter: str = ""
    bound: bool = False
    ended: bool = False
    last_ns: int = 0


class UnannouncedState(msgspec.Struct):
    """Bound: 5,000 runs with 64 calls of each side and 16 recorders each, the one heard of longest
    ago forgotten first, and 1,024 recorders of gateways. A few kB for a run at work."""

    runs: dict[str, _Run] = {}
    gateways: dict[str, None] = {}


class Unannounced(PerRun):
    """Blames the agent: nobody else makes calls in its run."""

    name = "unannounced"
    state_type = UnannouncedState
    handles = (RunStart, RunEnd, Heartbeat, Passage, *_SDK_CALLS)
    ticks = True
    per_run = False

    def key(self, event: Base) -> str | None:
        return None if event.recorder.startswith("role:") else event.environment

    def observe(self, state: UnannouncedState, event: Any, context: Context) -> Observations:
        run = state.runs.pop(event.run_id, None)
        if run is None:
            if len(state.runs) >= _RUNS_MAX:
                del state.runs[next(iter(state.runs))]
            run = _Run()
        state.runs[event.run_id] = run
        run.last_ns = context.now_ns
        if event.recorder in run.heard or len(run.heard) < _RECORDERS_MAX:
            run.heard[event.recorder] = (context.now_ns, event.ts)
        match event:
            case RunStart():
                run.starter = event.recorder
            case RunEnd():
                run.ended = True
            case Passage():
                self._passage(state, run, event, context.now_ns)
            case Heartbeat():
                pass
            case _:
                self._call(run, event, context.now_ns)
        return NOTHING

    def tick(self, state: UnannouncedState, context: Context) -> Observations:
        found: list[Observation] = []
        for run_id, run in list(state.runs.items()):
            if run.waiting or run.over:
                found += self._due(state, run_id, run, context.now_ns)
            elif run.ended and context.now_ns - run.last_ns > KEPT_NS:
                del state.runs[run_id]
        return found

    def _passage(self, state: UnannouncedState, run: _Run, event: Passage, now_ns: int) -> None:
        if event.recorder not in state.gateways:
            _keep(state.gateways, event.recorder, None, _GATEWAYS_MAX)
        if not event.call_id or event.path == "decide":  # a question, not a call
            return
        run.bound = run.bound or event.announced
        _keep(run.passages, event.call_id, event.announced)
        known = event.announced and event.call_id in run.called
        if not known and event.status != "refused":
            _keep(run.waiting, event.call_id, _Passed(
                event.kind, event.name[:100], event.announced, event.ts, now_ns,
                (event.recorder, event.seq),
            ))  # fmt: skip

    def _call(self, run: _Run, event: Any, now_ns: int) -> None:
        if event.recorder not in run.calling and len(run.calling) < _RECORDERS_MAX:
            run.calling.append(event.recorder)
        model = isinstance(event, ModelRequest | ModelResponse)
        if event.call_id not in run.called:
            name = event.model if model else event.tool
            _keep(run.called, event.call_id, _Called(
                name[:100], event.recorder, (event.recorder, event.seq)
            ))  # fmt: skip
        if isinstance(event, ModelResponse) and not event.error:
            _keep(run.over, event.call_id, now_ns)
        waiting = run.waiting.get(event.call_id)
        if waiting is not None and waiting.announced:
            del run.waiting[event.call_id]

    def _due(
        self, state: UnannouncedState, run_id: str, run: _Run, now_ns: int
    ) -> list[Observation]:
        """What has waited long enough, and what it turns out to be."""
        found: list[Observation] = []
        sdks = [each for each in run.calling if each not in state.gateways]
        for call_id, passed in list(run.waiting.items()):
            if not self._waited(state, run, passed, now_ns):
                continue
            del run.waiting[call_id]
            if not passed.announced and sdks:
                found.append(_unannounced(run_id, call_id, run, passed, sdks))
            elif passed.announced and run.starter:
                found.append(_hidden(run_id, call_id, passed))
        for call_id, ended_ns in list(run.over.items()):
            if now_ns - ended_ns < SILENT_WAIT_NS:
                break  # the younger ones come after it
            del run.over[call_id]
            called = run.called.get(call_id)
            if called is None or called.recorder in state.gateways:
                continue
            if run.bound and call_id not in run.passages:
                found.append(_around(run_id, call_id, called))
        return found

    def _waited(self, state: UnannouncedState, run: _Run, passed: _Passed, now_ns: int) -> bool:
        waited_ns = now_ns - passed.at_ns
        if waited_ns < WAIT_NS:
            return False
        if run.starter in state.gateways:
            return True  # the gateway's own run: nobody else can record anything in it
        heard_since = any(
            ts > passed.ts and at_ns > passed.at_ns
            for recorder, (at_ns, ts) in run.heard.items()
            if recorder not in state.gateways
        )
        return heard_since or waited_ns >= SILENT_WAIT_NS


def _keep(kept: dict[str, Any], name: str, value: Any, at_most: int = _CALLS_MAX) -> None:
    kept[name] = value
    if len(kept) > at_most:
        del kept[next(iter(kept))]


def _hidden(run_id: str, call_id: str, passed: _Passed) -> Observation:
    return Observation(
        level="breach", run_id=run_id, evidence=(passed.event,),
        why=f"{passed.kind} call {call_id} ({passed.name}) passed the gateway and said that the "
        "agent's SDK had recorded it, but no SDK has",
        subject=f"hidden {passed.kind} {passed.name}",
    )  # fmt: skip


def _unannounced(
    run_id: str, call_id: str, run: _Run, passed: _Passed, sdks: list[str]
) -> Observation:
    """With the SDK's own last call, so that both sides can be looked at."""
    own = [(id_, each) for id_, each in run.called.items() if each.recorder in sdks]
    beside = f"; the SDK's own last call is {own[-1][0]}" if own else ""
    return Observation(
        level="breach", run_id=run_id,
        evidence=(passed.event, own[-1][1].event) if own else (passed.event,),
        why=f"{passed.kind} call {call_id} ({passed.name}) passed the gateway and was not "
        f"announced by the agent's SDK, which records this run{beside}",
        subject=f"unannounced {passed.kind} {passed.name}",
    )  # fmt: skip


def _around(run_id: str, call_id: str, called: _Called) -> Observation:
    return Observation(
        level="warn", run_id=run_id, evidence=(called.event,),
        why=f"model call {call_id} ({called.name}) is in the SDK's record and did not pass the "
        "gateway, as other calls of this run did",
        subject=f"around {called.name}",
    )  # fmt: skip

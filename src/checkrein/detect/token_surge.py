"""Token surge: a model call that writes far more than this kind of agent does.

Three things must come together, since each alone fires on healthy runs: rare among this agent's
calls (conformal p at most 0.01), at least three times the run's usual call, and at least 2,000
tokens. Evidence adds up within the run by a Shiryaev-Roberts e-detector: above 1,000 it warns (at
most one call in a thousand of a healthy agent), above 10,000 it is a breach. While an agent has
less than 50 calls of history, ratio and floor alone warn, and the third such call of a run is a
breach.
"""

import math
from typing import Any

import msgspec

from checkrein.detect.base import NOTHING, Observations, PerRun, keep_last
from checkrein.detect.sketch import Sketch
from checkrein.detect.types import Context, Observation
from checkrein.events.types import Base, ModelResponse, RunEnd

RATIO = 3.0
FLOOR_TOKENS = 2_000
P_WARN = 0.01
E_WARN = 1e3
E_BREACH = 1e4
HISTORY_MIN = 50
COLD_BREACH = 3
_RUNS_MAX = 1024


class _Run(msgspec.Struct):
    usual: float = 0.0
    evidence_sr: float = 0.0
    surges: int = 0
    evidence: list[tuple[str, int]] = []


class TokenSurgeState(msgspec.Struct):
    """Bound: one sketch and 1,024 runs of a few numbers, the oldest forgotten first: 200 kB at most
    for an agent."""

    history: Sketch
    runs: dict[str, _Run] = {}


class TokenSurge(PerRun):
    name = "token-surge"
    state_type = TokenSurgeState
    handles = (ModelResponse, RunEnd)
    per_run = False

    def key(self, event: Base) -> str | None:
        return f"{event.environment}\0{event.agent}"

    def start(self) -> TokenSurgeState:
        return TokenSurgeState(Sketch())

    def observe(self, state: TokenSurgeState, event: Any, context: Context) -> Observations:
        if isinstance(event, RunEnd):
            state.runs.pop(event.run_id, None)
            return NOTHING
        tokens = event.output_tokens
        if tokens <= 0:
            return NOTHING
        run = state.runs.get(event.run_id)
        if run is None:
            if len(state.runs) >= _RUNS_MAX:
                del state.runs[next(iter(state.runs))]
            run = state.runs[event.run_id] = _Run()
        surging, found = self._judged(state.history, run, event, tokens)
        if run.usual == 0.0:
            run.usual = float(tokens)
        elif not surging:
            run.usual += (tokens - run.usual) / 4
        state.history.add(float(tokens))
        return found

    def _judged(
        self, history: Sketch, run: _Run, event: ModelResponse, tokens: int
    ) -> tuple[bool, Observations]:
        surging = tokens >= FLOOR_TOKENS and tokens >= RATIO * run.usual > 0
        warm = history.total >= HISTORY_MIN
        p = history.share_from(tokens) if warm else 1.0
        if warm:
            # A bet that pays 0.5/√p, staked only while the run is over the floor.
            stake = 0.5 / math.sqrt(p) if tokens >= FLOOR_TOKENS else 0.5
            run.evidence_sr = min((run.evidence_sr + 1) * stake, 1e12)
        if not surging or (warm and p > P_WARN):
            return False, NOTHING
        run.surges += 1
        keep_last(run.evidence, event)
        if warm and run.evidence_sr < E_WARN:
            return True, NOTHING
        breach = run.evidence_sr >= E_BREACH if warm else run.surges >= COLD_BREACH
        among = f", p = {p:.2g} among {history.total} calls of this agent" if warm else ""
        return True, [Observation(
            level="breach" if breach else "warn",
            why=f"{tokens} output tokens in one call, {tokens / run.usual:.1f} times this run's "
            f"usual {run.usual:.0f}{among}",
            value=float(tokens), limit=max(float(FLOOR_TOKENS), RATIO * run.usual),
            evidence=tuple(run.evidence), subject="output tokens", run_id=event.run_id,
        )]  # fmt: skip

"""The life of a pact: versions, stages, environments, and what a promotion needs. Pure.

    draft    stored, decides nothing
    shadow   decides and records beside the enforced one; what it refuses is let pass
    enforce  decides

One `PactRecord` for each agent and environment. `development`, `staging` and `production` are
ordered: a pact comes into the latter two by promotion only, with evidence. In any other
environment, `development` among them, a pact may be pushed at any stage.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from checkrein.bus.pacts import DEVELOPMENT
from checkrein.policy.types import Stage

ORDERED = (DEVELOPMENT, "staging", "production")
PRODUCTION = ORDERED[-1]
STAGES: tuple[Stage, ...] = ("draft", "shadow", "enforce")
VERSIONS_MAX = 200
HISTORY_MAX = 500
Verb = Literal["push", "promote", "force", "backtest"]


class LifeRefused(Exception):
    """This step is not allowed, or lacks what it needs. The message says all of it."""


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a pact. `digest` names its text."""

    version: str
    digest: str
    author: str
    at: int
    reason: str = ""


class Backtest(msgspec.Struct, frozen=True, kw_only=True):
    """What replaying recorded runs through exactly this version gave."""

    version: str
    at: int
    by: str = ""
    summary: dict[str, Any] = {}


class ShadowResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a version would have done while it was watched: verdicts by rule, in `runs` runs."""

    since: int
    until: int
    runs: int
    verdicts: dict[str, int] = {}


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a pact's history. `before` is what stood at that stage."""

    act_id: str
    at: int
    by: str
    verb: Verb
    version: str
    stage: str = ""
    before: str = ""
    reason: str = ""
    evidence: dict[str, Any] = {}


class PactRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one agent's pacts in one environment; the texts lie elsewhere, by digest.
    `unaudited` are acts that may not stand in the audit stream yet."""

    agent: str
    environment: str
    enforced: str = ""
    shadow: str = ""
    shadow_since: int = 0
    drafts: list[str] = []
    versions: dict[str, Version] = {}
    history: list[Act] = []
    backtests: dict[str, Backtest] = {}
    unaudited: list[str] = []

    def stage_of(self, version: str) -> str:
        """ "" for one that has been replaced."""
        if version == self.enforced:
            return "enforce"
        if version == self.shadow:
            return "shadow"
        return "draft" if version in self.drafts else ""


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """A promotion as it is asked: which version goes where, and who wrote it."""

    agent: str
    environment: str
    stage: Stage
    version: Version
    source: str
    """The environment it comes from."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What is at hand for a promotion. `diff_shown` names the difference that the promoter has
    seen, `diff` the one there is."""

    by: str
    reason: str
    diff: str
    diff_shown: str = ""
    backtest: Backtest | None = None
    shadow: ShadowResult | None = None
    force: bool = False


def objection_to_push(environment: str, stage: str) -> str:
    """Why a pact may not be pushed there at this stage ("": it may)."""
    if environment in ORDERED[1:] and stage != "draft":
        before = ORDERED[ORDERED.index(environment) - 1]
        return (
            f"a pact comes into {environment} by promotion: `checkrein pact promote AGENT --to "
            f"{environment}` takes the one in force in {before}; pushed, it can be a draft only"
        )
    return ""


def pushed(record: PactRecord, version: Version, stage: Stage, act_id: str) -> PactRecord:
    """The record with a version at a stage; the same record when nothing changes."""
    standing = record.versions.get(version.version)
    same_text = standing is not None and standing.digest == version.digest
    if record.stage_of(version.version) == stage and same_text:
        return record
    if standing is not None:  # the same rules again: whoever wrote them first is their author
        known = msgspec.structs.replace(standing, digest=version.digest)
    else:
        known = version
    act = Act(
        act_id=act_id, at=version.at, by=version.author, verb="push", version=version.version,
        stage=stage, before=_standing(record, stage), reason=version.reason,
    )  # fmt: skip
    return _put(record, known, stage, act)


def planned(
    agent: str, to: str, environment: str, records: Mapping[str, PactRecord], version: str = ""
) -> Move:
    """What `promote --to` means now. `records` are the agent's, by environment. Raises
    LifeRefused."""
    if to in ORDERED[1:]:
        source = ORDERED[ORDERED.index(to) - 1]
        record = records.get(source)
        if record is None or not record.enforced:
            raise LifeRefused(f"{agent} has no pact in force in {source} that could go to {to}")
        return Move(
            agent=agent, environment=to, stage="enforce", source=source,
            version=record.versions[record.enforced],
        )  # fmt: skip
    if to not in ("shadow", "enforce"):
        raise LifeRefused(f"{to!r} is no stage and no environment: shadow, enforce, "
                          f"{', '.join(ORDERED[1:])}")  # fmt: skip
    record = records.get(environment)
    candidates = [] if record is None else record.drafts if to == "shadow" else [record.shadow]
    chosen = version or next((name for name in reversed(candidates) if name), "")
    if record is None or not chosen or chosen not in candidates:
        below = "draft" if to == "shadow" else "pact in shadow"
        which = f" {version}" if version else ""
        raise LifeRefused(f"{agent} has no {below}{which} in {environment}")
    stage: Stage = "shadow" if to == "shadow" else "enforce"
    return Move(
        agent=agent, environment=environment, stage=stage, source=environment,
        version=record.versions[chosen],
    )  # fmt: skip


def lacking(move: Move, evidence: Evidence) -> list[str]:
    """What a promotion still needs, in words; empty: it may be done."""
    if evidence.force:
        if move.environment in ORDERED[1:]:
            return [f"--force is for {DEVELOPMENT} only, not for {move.environment}"]
        return [] if evidence.reason.strip() else ["a reason for the force (--reason)"]
    version = move.version.version
    lacks = []
    if not evidence.reason.strip():
        lacks.append("a reason (--reason)")
    if evidence.diff_shown != evidence.diff:
        lacks.append("the difference, shown: what it was shown against has changed meanwhile")
    if evidence.backtest is None or evidence.backtest.version != version:
        lacks.append(f"a backtest of version {version} (`checkrein pact backtest`)")
    if move.stage == "enforce":
        if evidence.shadow is None:
            lacks.append(f"a shadow result of version {version} (`--to shadow` first)")
        elif not evidence.shadow.runs:
            lacks.append("a run judged in shadow: none has begun since it is watched")
    if move.environment == PRODUCTION and evidence.by == move.version.author:
        lacks.append(f"another approver than its author, {evidence.by}")
    return lacks


def promoted(
    record: PactRecord, move: Move, evidence: Evidence, at: int, act_id: str
) -> PactRecord:
    """The target environment's record after the move. Raises LifeRefused with all it lacks."""
    lacks = lacking(move, evidence)
    if lacks:
        raise LifeRefused("it needs " + "; and ".join(lacks))
    act = Act(
        act_id=act_id, at=at, by=evidence.by, verb="force" if evidence.force else "promote",
        version=move.version.version, stage=move.stage, before=_standing(record, move.stage),
        reason=evidence.reason,
        evidence={
            "from": move.source, "author": move.version.author, "diff": evidence.diff_shown,
            "backtest": msgspec.to_builtins(evidence.backtest),
            "shadow": msgspec.to_builtins(evidence.shadow),
        },
    )  # fmt: skip
    return _put(record, move.version, move.stage, act)


def backtested(record: PactRecord, backtest: Backtest, act_id: str) -> PactRecord:
    """Raises LifeRefused for a version that is not known."""
    if backtest.version not in record.versions:
        raise LifeRefused(
            f"{record.agent} has no version {backtest.version[:40]} in {record.environment}"
        )
    act = Act(
        act_id=act_id, at=backtest.at, by=backtest.by, verb="backtest", version=backtest.version,
    )  # fmt: skip
    kept = {**record.backtests, backtest.version: backtest}
    return _noted(msgspec.structs.replace(record, backtests=kept), act)


def backtest_of(records: Sequence[PactRecord], version: str) -> Backtest | None:
    """The newest, wherever it was stored."""
    found = [record.backtests[version] for record in records if version in record.backtests]
    return max(found, key=lambda each: each.at, default=None)


def shadow_evidence(record: PactRecord | None, version: str) -> ShadowResult | None:
    """The shadow result by which a version came into force there."""
    for act in reversed(record.history if record is not None else []):
        if act.version == version and act.stage == "enforce" and act.evidence.get("shadow"):
            return msgspec.convert(act.evidence["shadow"], ShadowResult)
    return None


def _put(record: PactRecord, version: Version, stage: Stage, act: Act) -> PactRecord:
    name = version.version
    drafts = [draft for draft in record.drafts if draft != name]
    changes: dict[str, Any] = {"versions": {**record.versions, name: version}}
    if stage == "draft":
        drafts.append(name)
    elif stage == "shadow":
        changes |= {"shadow": name, "shadow_since": act.at}
    else:
        changes["enforced"] = name
        if record.shadow == name:
            changes |= {"shadow": "", "shadow_since": 0}
    after = msgspec.structs.replace(record, drafts=drafts[-VERSIONS_MAX // 2 :], **changes)
    return _noted(_bounded(after), act)


def _noted(record: PactRecord, act: Act) -> PactRecord:
    return msgspec.structs.replace(
        record,
        history=[*record.history, act][-HISTORY_MAX:],
        unaudited=[*record.unaudited, act.act_id][-HISTORY_MAX:],
    )


def _bounded(record: PactRecord) -> PactRecord:
    """The oldest versions that stand at no stage go when there are too many."""
    over = len(record.versions) - VERSIONS_MAX
    if over <= 0:
        return record
    idle = [name for name in record.versions if not record.stage_of(name)][:over]
    keep = {name: each for name, each in record.versions.items() if name not in idle}
    tests = {name: each for name, each in record.backtests.items() if name not in idle}
    return msgspec.structs.replace(record, versions=keep, backtests=tests)


def _standing(record: PactRecord, stage: str) -> str:
    return {"enforce": record.enforced, "shadow": record.shadow}.get(stage, "")

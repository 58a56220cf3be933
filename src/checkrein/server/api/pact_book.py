"""Pacts as the api serves them: pushed, promoted, compared, in force everywhere at once."""

import asyncio
import logging
from collections.abc import Mapping, Sequence

import msgspec

from checkrein.bus.pacts import place_of
from checkrein.bus.types import Bus
from checkrein.control import pact_life
from checkrein.control.pact_life import (
    Backtest,
    Evidence,
    LifeRefused,
    Move,
    PactRecord,
    ShadowResult,
    Version,
)
from checkrein.control.signing import OrderSigner
from checkrein.policy.pact import PactError, default_pact
from checkrein.policy.pact_chain import EVERYONE, read_chain
from checkrein.policy.pact_diff import Difference, diff_digest, differences
from checkrein.policy.types import Pact, Stage
from checkrein.server.api.history import History
from checkrein.server.api.pact_holders import Holders
from checkrein.server.api.pact_levels import Levels
from checkrein.server.api.pact_records import Records
from checkrein.world import World

_log = logging.getLogger(__name__)
ROWS_MAX = 20_000
RUNS_MAX = 1_000


class NoPact(Exception):
    """Nothing of that name: says what there is."""


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """`digest` names this difference: who promotes sends it back as what was shown."""

    before: str
    after: str
    digest: str
    differences: list[Difference]


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """A promotion as it would be now; `lacks` says in words what it still needs."""

    move: Move
    compared: Compared
    backtest: Backtest | None
    shadow: ShadowResult | None
    lacks: list[str]


class PactBook:
    def __init__(self, world: World, bus: Bus, signer: OrderSigner, history: History) -> None:
        self._world, self._history = world, history
        self.records = Records(world, bus)
        self.holders = Holders(world, bus)
        self.levels = Levels(world, bus, self.records, self.holders, signer)

    async def open(self) -> None:
        """Raises BusError."""
        await self.records.open()
        await self.levels.open()
        await self.holders.open()

    async def push(
        self,
        agent: str,
        environment: str,
        stage: Stage,
        text: str,
        *,
        by: str,
        reason: str = "",
        source: str = "",
    ) -> tuple[PactRecord, str]:
        """Stores a text at a stage, and brings it to all who enforce it before this returns; the
        record and the version. Raises PactError with its place, LifeRefused, BusError."""
        environment = place_of(environment)
        objection = pact_life.objection_to_push(environment, stage)
        if objection:
            raise LifeRefused(objection)
        version = (await self.read(agent, environment, text, source)).version
        made = Version(
            version=version, digest=await self.records.keep_text(text), author=by,
            at=self._world.now_ns(), reason=reason,
        )  # fmt: skip
        act_id = self._world.uuid7()
        record = await self.records.change(
            agent, environment, lambda now: pact_life.pushed(now, made, stage, act_id)
        )
        await self._in_force(record)
        return record, version

    async def promote(self, promotion: Promotion, evidence: Evidence) -> PactRecord:
        """Carries out what `promotion_of` has found. Raises LifeRefused, BusError."""
        move = promotion.move
        at, act_id = self._world.now_ns(), self._world.uuid7()
        record = await self.records.change(
            move.agent, move.environment,
            lambda now: pact_life.promoted(now, move, evidence, at, act_id),
        )  # fmt: skip
        await self._in_force(record)
        return record

    async def promotion_of(
        self,
        agent: str,
        to: str,
        environment: str,
        version: str,
        *,
        by: str,
        reason: str,
        diff_shown: str,
        force: bool,
    ) -> tuple[Promotion, Evidence]:
        """What a promotion would be, and what is at hand for it. Raises LifeRefused, NoPact,
        PactError, BusError, HistoryAway."""
        records = await self.of_agent(agent)
        move = pact_life.planned(agent, to, place_of(environment), records, version)
        target = records.get(move.environment)
        before = target.enforced if target is not None else ""
        if move.stage == "shadow" and target is not None and target.shadow:
            before = target.shadow
        compared = await self._compared(
            records, (move.environment, before), (move.source, move.version.version)
        )
        backtest = pact_life.backtest_of(list(records.values()), move.version.version)
        shadow = None
        if move.stage == "enforce" and not force:
            source = records.get(move.source)
            if move.source == move.environment and source is not None:
                shadow = await self.shadow_result(source)
            else:
                shadow = pact_life.shadow_evidence(source, move.version.version)
        evidence = Evidence(
            by=by, reason=reason, diff=compared.digest, diff_shown=diff_shown, backtest=backtest,
            shadow=shadow, force=force,
        )  # fmt: skip
        lacks = pact_life.lacking(move, evidence)
        return Promotion(
            move=move, compared=compared, backtest=backtest, shadow=shadow, lacks=lacks
        ), evidence

    async def backtested(self, agent: str, environment: str, backtest: Backtest) -> PactRecord:
        """Raises LifeRefused, BusError."""
        act_id = self._world.uuid7()
        return await self.records.change(
            agent, place_of(environment),
            lambda now: pact_life.backtested(now, backtest, act_id),
        )  # fmt: skip

    async def compare(self, agent: str, before: str, after: str, environment: str) -> Compared:
        """Two versions by name, or by `ENVIRONMENT:VERSION`; a version may also be `enforced`,
        `shadow`, `draft` (the newest) or `default`. Raises NoPact, PactError, BusError."""
        records = await self.of_agent(agent)
        place = place_of(environment)
        return await self._compared(
            records, _named(records, place, before), _named(records, place, after)
        )

    async def of_agent(self, agent: str) -> dict[str, PactRecord]:
        """An agent's records by environment."""
        return {r.environment: r for r in await self.records.all() if r.agent == agent}

    async def read(self, agent: str, environment: str, text: str, source: str = "") -> Pact:
        """A text as it would be in force. Raises PactError, BusError."""
        chain = await self.levels.chain(agent, environment, text, source)
        return await asyncio.to_thread(read_chain, chain, source)

    async def shadow_result(self, record: PactRecord) -> ShadowResult | None:
        """What the pact in shadow would have done since it is watched. Raises HistoryAway."""
        if not record.shadow:
            return None
        since = record.shadow_since
        runs = await self._history.rows(
            "runs",
            {"agent": record.agent, "environment": record.environment, "since": since,
             "limit": RUNS_MAX},
        )  # fmt: skip
        rows = await self._history.rows(
            "events",
            {"agent": record.agent, "types": ["scope.decision"], "since": since,
             "limit": ROWS_MAX},
        )  # fmt: skip
        verdicts: dict[str, int] = {}
        for row in rows:
            told = row.get("shadow") and row.get("pact_version") == record.shadow
            if told and row.get("environment") == record.environment:
                name = f"{row.get('verdict')} {row.get('rule', '')}"
                verdicts[name] = verdicts.get(name, 0) + 1
        judged = [run for run in runs if run.get("environment") == record.environment]
        return ShadowResult(
            since=since, until=self._world.now_ns(), runs=len(judged), verdicts=verdicts
        )

    async def _in_force(self, record: PactRecord) -> None:
        for trouble in await self.levels.settle(record.environment, record.agent):
            _log.error("%s", trouble)
        await self.records.audit([record])

    async def _compared(
        self, records: Mapping[str, PactRecord], before: tuple[str, str], after: tuple[str, str]
    ) -> Compared:
        old = await self._pact(records, *before)
        new = await self._pact(records, *after)
        return Compared(
            before=old.version, after=new.version, digest=diff_digest(old, new),
            differences=differences(old, new),
        )  # fmt: skip

    async def _pact(
        self, records: Mapping[str, PactRecord], environment: str, version: str
    ) -> Pact:
        record = records.get(environment)
        if not version or record is None:
            text = await self.records.enforced_text(EVERYONE, environment)
            return default_pact() if text is None else await self.read(EVERYONE, environment, text)
        text = await self.records.text_of(record, version)
        try:
            return await self.read(record.agent, environment, text, f"{record.agent} {version}")
        except PactError as error:
            raise NoPact(f"version {version} cannot be read any more: {error}") from error


def _named(records: Mapping[str, PactRecord], place: str, name: str) -> tuple[str, str]:
    """(environment, version) that a reference means. Raises NoPact."""
    environment, colon, version = name.rpartition(":")
    environment = environment if colon else place
    if version == "default":
        return environment, ""
    record = records.get(environment)
    if record is not None:
        standing = {
            "enforced": record.enforced, "shadow": record.shadow,
            "draft": record.drafts[-1] if record.drafts else "",
        }  # fmt: skip
        if version in standing and (standing[version] or version == "enforced"):
            return environment, standing[version]
    if version == "enforced":
        return environment, ""
    searched: Sequence[PactRecord] = (
        [record] if colon and record is not None
        else [*([record] if record is not None else []), *records.values()]
    )  # fmt: skip
    for each in searched:
        found = [known for known in each.versions if version and known.startswith(version)]
        if version in found:
            return each.environment, version
        if len(found) == 1:
            return each.environment, found[0]
        if found:
            raise NoPact(f"{name} begins several versions: {', '.join(found[:5])}")
    raise NoPact(f"there is no version {name[:80]!r} of this agent's pacts in {environment}")

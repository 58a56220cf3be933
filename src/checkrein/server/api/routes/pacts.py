"""Pacts: what each agent has declared it may do, in its versions, stages and environments."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
from litestar import Request, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from checkrein.bus.pacts import PactSet, place_of
from checkrein.bus.types import BusError
from checkrein.control.pact_life import ORDERED, Backtest, LifeRefused, PactRecord
from checkrein.policy.pact import PactError
from checkrein.server.api.pact_book import Compared, NoPact, Promotion
from checkrein.server.api.problems import BadRequest, NotThere, Unready
from checkrein.server.api.roles import who
from checkrein.server.api.routes.common import API
from checkrein.server.api.services import Services
from checkrein.server.api.shapes import (
    BacktestBody,
    HoldingLine,
    PactActLine,
    PactBody,
    PactLine,
    PactVersionLine,
    ProfileLine,
    ProfileTypeLine,
    ProfileValuesLine,
    PromoteBody,
)

TEXT_CHARS_MAX = 256 * 1024
NAME_CHARS_MAX = 200
REASON_CHARS_MAX = 2_000
SUMMARY_BYTES_MAX = 64 * 1024

Environment = Annotated[str, QueryParameter(max_length=NAME_CHARS_MAX)]
Name = Annotated[str, QueryParameter(max_length=300)]


@get(f"{API}/pacts", operation_id="listPacts")
async def list_pacts(services: NamedDependency[Services]) -> list[PactLine]:
    """All pacts, by agent and environment, and where they are in force; agents that live by the
    default, too. The agent `default` stands for all that have none."""
    with _answering():
        records = await services.pacts.records.all()
        lines = [await _line(services, record) for record in records]
    known = {(line.agent, line.environment) for line in lines}
    for agent, environment in services.pacts.holders.agents() - known:
        lines.append(_without_record(services, agent, environment))
    return sorted(lines, key=lambda line: (line.agent, _rank(line.environment)))


@get(f"{API}/pacts/{{agent:str}}", operation_id="getPact")
async def get_pact(
    services: NamedDependency[Services], agent: FromPath[str], environment: Environment = "",
    version: Name = "",
) -> PactLine:  # fmt: skip
    """An agent's pact in an environment: the one enforced, or a version of it."""
    with _answering():
        record = await services.pacts.records.get(agent, place_of(environment))
        if record is None:
            raise NotThere(
                f"agent {agent[:80]!r} has no pact of its own in {place_of(environment)[:80]}",
                "`default` holds for it; give it one with `checkrein pact push FILE`.",
            )
        if version and version not in record.versions:
            raise NotThere(
                f"agent {agent[:80]!r} has no version {version[:80]!r}",
                "GET …/versions lists them.",
            )
        return await _line(services, record, version)


@put(f"{API}/pacts/{{agent:str}}", operation_id="putPact")
async def put_pact(
    services: NamedDependency[Services], request: Request[Any, Any, Any], agent: FromPath[str],
    data: JSONBody[PactBody],
) -> PactLine:  # fmt: skip
    """Stores a pact at a stage; enforced or in shadow it is brought at once to every process that
    enforces it, runs under way included. It is refused, with line and column, when it cannot mean
    what it says. Into `staging` and `production` only drafts are put; the rest is promoted."""
    return await store(services, agent, data, who(request.scope).name)


@get(f"{API}/pacts/{{agent:str}}/versions", operation_id="listPactVersions")
async def list_versions(
    services: NamedDependency[Services], agent: FromPath[str]
) -> list[PactVersionLine]:
    """Every version that is kept, the newest first."""
    with _answering():
        records = await services.pacts.of_agent(agent)
    lines = [
        PactVersionLine(
            version=each.version, environment=record.environment,
            stage=record.stage_of(each.version), author=each.author, at=each.at,
            reason=each.reason, digest=each.digest,
            backtest=msgspec.to_builtins(record.backtests.get(each.version)),
        )
        for record in records.values()
        for each in record.versions.values()
    ]  # fmt: skip
    return sorted(lines, key=lambda line: -line.at)


@get(f"{API}/pacts/{{agent:str}}/log", operation_id="listPactLog")
async def list_log(services: NamedDependency[Services], agent: FromPath[str]) -> list[PactActLine]:
    """Who did what to this agent's pacts, the newest first; all of it is in the audit stream."""
    with _answering():
        records = await services.pacts.of_agent(agent)
    lines = [
        PactActLine(
            at=act.at, by=act.by, verb=act.verb, environment=record.environment,
            version=act.version, stage=act.stage, before=act.before, reason=act.reason,
            evidence=act.evidence,
        )
        for record in records.values()
        for act in record.history
    ]  # fmt: skip
    return sorted(lines, key=lambda line: -line.at)


@get(f"{API}/pacts/{{agent:str}}/diff", operation_id="diffPacts")
async def diff(
    services: NamedDependency[Services], agent: FromPath[str], before: Name = "enforced",
    after: Name = "draft", environment: Environment = "",
) -> Compared:  # fmt: skip
    """What becomes allowed, refused or otherwise different between two versions. Each is a version,
    `enforced`, `shadow`, `draft` or `default`, of another environment as `ENVIRONMENT:VERSION`."""
    with _answering():
        return await services.pacts.compare(agent, before, after, environment)


@get(f"{API}/pacts/{{agent:str}}/promotion", operation_id="planPromotion")
async def plan(
    services: NamedDependency[Services], request: Request[Any, Any, Any], agent: FromPath[str],
    to: Name, environment: Environment = "", version: Name = "", diff: Name = "",
    reason: Annotated[str, QueryParameter(max_length=REASON_CHARS_MAX)] = "",
    force: Annotated[bool, QueryParameter()] = False,
) -> Promotion:  # fmt: skip
    """What a promotion would do now, and what it still needs."""
    with _answering():
        found, _ = await services.pacts.promotion_of(
            agent, to, environment, version, by=who(request.scope).name, reason=reason,
            diff_shown=diff, force=force,
        )  # fmt: skip
        return found


@post(f"{API}/pacts/{{agent:str}}/promote", operation_id="promotePact", status_code=200)
async def promote(
    services: NamedDependency[Services], request: Request[Any, Any, Any], agent: FromPath[str],
    data: JSONBody[PromoteBody],
) -> PactLine:  # fmt: skip
    """Moves a version on: from draft to shadow to enforce, from development to staging to
    production. Needs the difference shown, a backtest of exactly this version, the shadow result,
    a reason, and in production another approver than its author."""
    _check_reason(data.reason)
    with _answering():
        found, evidence = await services.pacts.promotion_of(
            agent, data.to, data.environment, data.version, by=who(request.scope).name,
            reason=data.reason, diff_shown=data.diff, force=data.force,
        )  # fmt: skip
        return await _line(services, await services.pacts.promote(found, evidence))


@post(f"{API}/pacts/{{agent:str}}/backtests", operation_id="storeBacktest", status_code=201)
async def store_backtest(
    services: NamedDependency[Services], request: Request[Any, Any, Any], agent: FromPath[str],
    data: JSONBody[BacktestBody],
) -> PactVersionLine:  # fmt: skip
    """Keeps what a backtest of a version gave; promotion asks for it."""
    if len(msgspec.json.encode(data.summary)) > SUMMARY_BYTES_MAX:
        raise BadRequest(f"a summary has at most {SUMMARY_BYTES_MAX} bytes", "Shorten it.")
    backtest = Backtest(
        version=data.version, at=services.world.now_ns(), by=who(request.scope).name,
        summary=data.summary,
    )  # fmt: skip
    with _answering():
        record = await services.pacts.backtested(agent, data.environment, backtest)
    kept = record.versions[data.version]
    return PactVersionLine(
        version=kept.version, environment=record.environment, stage=record.stage_of(kept.version),
        author=kept.author, at=kept.at, reason=kept.reason, digest=kept.digest,
        backtest=msgspec.to_builtins(backtest),
    )  # fmt: skip


@get(f"{API}/pacts/{{agent:str}}/profile", operation_id="getProfile")
async def get_profile(
    services: NamedDependency[Services], agent: FromPath[str], environment: Environment = ""
) -> ProfileLine:
    """Which flows the rule `learned` takes for usual, by type of task; `*` is all of them."""
    return await _shown_profile(services, agent, place_of(environment))


@delete(f"{API}/pacts/{{agent:str}}/profile", operation_id="resetProfile", status_code=200)
async def reset_profile(
    services: NamedDependency[Services], request: Request[Any, Any, Any], agent: FromPath[str],
    environment: Environment = "",
) -> ProfileLine:  # fmt: skip
    """Forgets what was learned, for runs that begin from now on; the audit stream says who did."""
    place = place_of(environment)
    levels = services.pacts.levels
    with _answering():
        if not await levels.profiles.reset(agent, place, who(request.scope).name):
            raise _no_profile(agent, place)
        await levels.bring(place)
    return await _shown_profile(services, agent, place)


async def store(services: Services, agent: str, body: PactBody, by: str) -> PactLine:
    """Raises BadRequest, Unready."""
    check_name(agent)
    check_name(place_of(body.environment))
    if len(body.text) > TEXT_CHARS_MAX:
        raise BadRequest(f"a pact has at most {TEXT_CHARS_MAX} characters", "Shorten it.")
    _check_reason(body.reason)
    with _answering():
        record, version = await services.pacts.push(
            agent, body.environment, body.stage, body.text, by=by, reason=body.reason,
            source=body.source,
        )  # fmt: skip
        return await _line(services, record, version)


async def carried(services: Services, environment: str, texts: dict[str, str], by: str) -> None:
    """Pacts that came with a session: in force at once, but where a pact comes by promotion only.
    Raises BadRequest, Unready."""
    for agent, text in texts.items():
        if place_of(environment) in ORDERED[1:]:
            with _answering():
                await services.pacts.read(agent, place_of(environment), text)
        else:
            body = PactBody(text=text, environment=environment, reason="came with a session")
            await store(services, agent, body, by)


def check_name(agent: str) -> None:
    if not agent or len(agent) > NAME_CHARS_MAX or not agent.isprintable():
        raise BadRequest(
            f"{agent[:80]!r} cannot name an agent",
            f"Names have 1 to {NAME_CHARS_MAX} printable characters.",
        )


@contextmanager
def _answering() -> Iterator[None]:
    """Errors of pacts as answers."""
    try:
        yield
    except PactError as error:
        raise BadRequest(f"the pact is wrong: {error}", "Correct it there.", "bad_pact") from error
    except LifeRefused as error:
        raise BadRequest(str(error), "`checkrein pact promote` shows each.", "lacking") from error
    except NoPact as error:
        raise NotThere(str(error), "GET …/versions lists them.") from error
    except BusError as error:
        raise Unready(
            f"the control bus does not answer: {error}", "Ask again in a moment."
        ) from error


def _check_reason(reason: str) -> None:
    if len(reason) > REASON_CHARS_MAX:
        raise BadRequest(f"`reason` has at most {REASON_CHARS_MAX} characters", "Shorten it.")


async def _line(services: Services, record: PactRecord, version: str = "") -> PactLine:
    shown = version or record.enforced or record.shadow or (record.drafts or [""])[-1]
    known = record.versions.get(shown)
    text = await services.pacts.records.text_of(record, shown) if known is not None else ""
    level = services.pacts.levels.of(record.agent, record.environment)
    last = record.history[-1] if record.history else None
    return _in_force(
        services, level,
        PactLine(
            agent=record.agent, environment=record.environment, text=text, version=shown,
            revision=0, stage=record.stage_of(shown), shadow=record.shadow, drafts=record.drafts,
            author=known.author if known is not None else "",
            changed_at=last.at if last is not None else 0,
            trouble=services.pacts.levels.trouble.get((record.agent, record.environment), ""),
        ),
    )  # fmt: skip


async def _shown_profile(services: Services, agent: str, place: str) -> ProfileLine:
    with _answering():
        kept = await services.pacts.levels.profiles.get(agent, place)
    if kept is None:
        raise _no_profile(agent, place)
    types = {
        name: ProfileTypeLine(
            runs=each.runs, mature=each.mature, sinks=each.sinks, edges=each.edges,
            approved=each.approved,
            values={
                target: ProfileValuesLine(
                    uses=values.uses, different=len(values.seen), open=values.open
                )
                for target, values in each.values.items()
            },
        )
        for name, each in kept.profile.types.items()
    }  # fmt: skip
    return ProfileLine(
        agent=agent, environment=place, revision=kept.revision, updated_at=kept.updated_at,
        left_out=kept.left_out, types=types,
    )  # fmt: skip


def _no_profile(agent: str, place: str) -> NotThere:
    return NotThere(
        f"nothing was learned of agent {agent[:80]!r} in {place[:80]}",
        "A pact with the flow rule `learned` learns from each run that ends well.",
    )


def _without_record(services: Services, agent: str, environment: str) -> PactLine:
    level = services.pacts.levels.of(agent, environment)
    return _in_force(
        services, level,
        PactLine(agent=agent, environment=environment, text="", version="", revision=0),
    )  # fmt: skip


def _in_force(services: Services, level: PactSet | None, line: PactLine) -> PactLine:
    found = services.pacts.holders.in_force(line.agent, line.environment, level)
    return msgspec.structs.replace(
        line,
        revision=level.revision if level is not None else 0,
        effective=level.enforced_version if level is not None else "",
        processes=found.processes,
        current=found.current,
        behind=[
            HoldingLine(
                enforced=each.enforced, shadow=each.shadow, revision=each.revision,
                error=each.error, processes=each.processes,
            )
            for each in found.behind
        ],
    )  # fmt: skip


def _rank(environment: str) -> tuple[int, str]:
    known = environment in ORDERED
    return (ORDERED.index(environment) if known else len(ORDERED), environment)


ROUTES = [
    list_pacts, get_pact, put_pact, list_versions, list_log, diff, plan, promote, store_backtest,
    get_profile, reset_profile,
]  # fmt: skip

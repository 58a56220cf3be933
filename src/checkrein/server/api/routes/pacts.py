"""Pacts: what each agent has declared it may do."""

from litestar import get, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from checkrein.bus import subjects
from checkrein.bus.types import Bucket, BusError, Entry
from checkrein.policy.pact import PactError, load
from checkrein.server.api.problems import BadRequest, NotThere, Unready
from checkrein.server.api.routes.common import API
from checkrein.server.api.services import Services
from checkrein.server.api.shapes import PactBody, PactLine

TEXT_CHARS_MAX = 256 * 1024
NAME_CHARS_MAX = 200
EVERYONE = "default"


async def bucket_of(services: Services) -> Bucket:
    """Raises Unready."""
    try:
        return await services.control_bus.bucket(subjects.BUCKET_PACTS)
    except BusError as error:
        raise Unready(
            f"the control bus does not answer: {error}", "Ask again in a moment."
        ) from error


@get(f"{API}/pacts", operation_id="listPacts")
async def list_pacts(services: NamedDependency[Services]) -> list[PactLine]:
    """All pacts in force, by agent. The agent `default` stands for all that have none."""
    entries = await (await bucket_of(services)).entries()
    return sorted((_line(entry) for entry in entries), key=lambda line: line.agent)


@get(f"{API}/pacts/{{agent:str}}", operation_id="getPact")
async def get_pact(services: NamedDependency[Services], agent: FromPath[str]) -> PactLine:
    """The pact in force for an agent."""
    entry = await (await bucket_of(services)).get(subjects.token(agent))
    if entry is None:
        raise NotThere(
            f"agent {agent[:80]!r} has no pact of its own",
            "`default` holds for it; give it one with PUT, or `checkrein run --pact FILE`.",
        )
    return _line(entry)


@put(f"{API}/pacts/{{agent:str}}", operation_id="putPact")
async def put_pact(
    services: NamedDependency[Services], agent: FromPath[str], data: JSONBody[PactBody]
) -> PactLine:
    """Puts a pact in force. It is refused, with line and column, when it cannot mean what it says.
    Sessions that stand learn of it when they renew."""
    return await store(services, agent, data.text)


async def store(services: Services, agent: str, text: str) -> PactLine:
    """Raises BadRequest, Unready."""
    check_name(agent)
    if len(text) > TEXT_CHARS_MAX:
        raise BadRequest(f"a pact has at most {TEXT_CHARS_MAX} characters", "Shorten it.")
    version = checked_version(text)
    bucket = await bucket_of(services)
    key = subjects.token(agent)
    standing = await bucket.get(key)
    if standing is not None and standing.value == text.encode():
        return _line(standing)
    revision = await bucket.put(key, text.encode())
    return PactLine(agent=agent, text=text, version=version, revision=revision)


def check_name(agent: str) -> None:
    if not agent or len(agent) > NAME_CHARS_MAX or not agent.isprintable():
        raise BadRequest(
            f"{agent[:80]!r} cannot name an agent",
            f"Names have 1 to {NAME_CHARS_MAX} printable characters.",
        )


def checked_version(text: str) -> str:
    try:
        return load(text).version
    except PactError as error:
        raise BadRequest(f"the pact is wrong: {error}", "Correct it there.", "bad_pact") from error


def _line(entry: Entry) -> PactLine:
    text = (entry.value or b"").decode("utf-8", "replace")
    try:
        version = load(text).version
    except PactError:
        version = ""
    agent = subjects.name_of(entry.key)
    return PactLine(agent=agent, text=text, version=version, revision=entry.revision)


ROUTES = [list_pacts, get_pact, put_pact]

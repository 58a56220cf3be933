"""A gate without a bus: real keys, runs, fence, guard and record; only the link is a twin.

async def test_it(gates):
    house = gates(pact="pact: a\\n…")           # agent `bot` has it
    key = house.agent("bot")                     # an agent's key: cra_…
    async with house.gate.visit({"authorization": f"Bearer {key}"}, "openai") as visit: …
    house.of("passage")                          # what was recorded
    async with house.serving(part.routes) as url: …   # real HTTP, for real clients
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from checkrein.bus.approvals import Asked
from checkrein.bus.identities import (
    AGENT_KEY,
    RUN_KEY,
    AgentKey,
    AgentRecord,
    Contained,
    RunToken,
    digest_of,
)
from checkrein.bus.messages import encode
from checkrein.bus.types import Entry
from checkrein.gateway.app import App, Route
from checkrein.gateway.fence import Fence
from checkrein.gateway.gate import Gate
from checkrein.gateway.hush import HushedRecorder
from checkrein.gateway.keybook import KeyBook
from checkrein.gateway.runs import Desk, Runs
from checkrein.gateway.settings import Settings
from checkrein.sdk.asking import Question
from checkrein.sdk.client import Client
from checkrein.sdk.config import Config
from checkrein.sdk.links.types import NoLink, nobody
from checkrein.sdk.place import Place
from checkrein.sdk.run import Run
from checkrein.world import REAL
from tests.sdk.fakes import MemoryRecorder, order

HOUR_NS = 3_600_000_000_000


class TwinLink(NoLink):
    """What the gateway's link is to runs and fence, with nobody at the other end. `answer` decides
    approvals: a function of the question; without one nobody is there."""

    session = "gateway-test"

    def __init__(self) -> None:
        self.announcing: set[str] = set()
        self.pacts: dict[str, str] = {}
        self.asked: list[Question] = []
        self.answer: Callable[[Question], Asked | None] | None = None
        self.fence: Fence | None = None

    def pact_of(self, agent: str) -> str | None:
        return self.pacts.get(agent)

    async def learn(self, agent: str) -> bool:
        return True

    def catch_up(self, run: Run) -> None: ...

    def changed(self, run: Run) -> None:
        if self.fence is not None:
            self.fence.changed(run)

    def ask(self, question: Question) -> None:
        self.asked.append(question)
        told = self.answer(question) if self.answer is not None else nobody(question)
        if told is not None:
            question.told(told)


class GateHouse:
    """A gate, and what tests want to know of it and do to it."""

    def __init__(self, settings: Settings, pact: str) -> None:
        self.recorder = MemoryRecorder()
        self.link = TwinLink()
        self.default_pact = pact
        self.fenced: list[tuple[Run, int, int]] = []
        self.shut_out: list[tuple[str, int]] = []
        self.client = Client(
            Config(agent="gateway", url="off"), HushedRecorder(self.recorder),
            lambda info, config: Place(
                config.environment, info.room, info.agent, info.run_id, info.task_id
            ),
            lambda _: self.link,  # type: ignore[arg-type,return-value] # a twin
        )  # fmt: skip
        self.client.link = self.link  # no pulse, no thread
        self.fence = self.link.fence = Fence(
            asyncio.get_running_loop(), lambda *told: self.fenced.append(told),
            lambda agent, record, cut: self.shut_out.append((agent, cut)),
        )  # fmt: skip
        self.keys = KeyBook(REAL, lambda agent, record: self.gate.contain(agent, record))
        self.runs = Runs(self.keys, self._desk, settings.idle_s)
        self.gate = Gate(settings, REAL, self.keys, self.runs, self.fence)

    async def _desk(self, environment: str) -> Desk:
        return Desk(self.client, self.link)  # type: ignore[arg-type] # a twin

    def agent(self, name: str = "bot", pact: str | None = None, **more: Any) -> str:
        """Adds an agent with this pact (or the house's); its key."""
        text = self.default_pact if pact is None else pact
        if text:
            self.link.pacts[name] = text
        key = f"{AGENT_KEY}{REAL.nonce()}"
        record = AgentRecord(
            agent=name, keys=[AgentKey(digest=digest_of(key), created_at=0)], **more
        )
        self.keys._take_agent(Entry(name, encode(record), 1))
        return key

    def run_key(self, agent: str = "bot", run_id: str = "", pact: str | None = None) -> str:
        """The key of a run that somebody else holds: calls with it belong to a mirrored run."""
        self.agent(agent, pact)
        key = f"{RUN_KEY}{REAL.nonce()}"
        token = RunToken(
            run_id=run_id or REAL.uuid7(), task_id=REAL.trace_id(), agent=agent, room="",
            environment="development", session="s", expires_at=REAL.now_ns() + HOUR_NS,
        )  # fmt: skip
        self.keys._take_run_token(Entry(digest_of(key), encode(token), 1))
        return key

    def contain(self, agent: str = "bot") -> None:
        self.gate.contain(agent, Contained(agent=agent, reason="enough", issued_by="ann", at=0))

    def run(self) -> Run:
        """The one run there is by now."""
        (run,) = self.runs.all()
        return run

    def halt(self, run: Run | None = None) -> None:
        (run or self.run()).obey(order("halt", 5, reason="enough"))

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The events recorded of one type, oldest first."""
        return self.recorder.of(kind)

    @asynccontextmanager
    async def serving(self, routes: list[Route]) -> AsyncIterator[str]:
        """The routes behind real HTTP on this loop; its URL. Blocking clients go in threads."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.bind(("127.0.0.1", 0))
        listener.listen(256)
        listener.setblocking(False)
        server = _Server(
            uvicorn.Config(
                App(self.gate, routes), log_config=None, access_log=False, lifespan="off",
                server_header=False, date_header=False, proxy_headers=False,
                timeout_graceful_shutdown=1, ws="none", http="httptools",
            )
        )  # fmt: skip
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving
            listener.close()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


Gates = Callable[..., GateHouse]


@pytest.fixture
async def gates() -> Gates:
    """Makes gates: `gates(settings=Settings(…), pact="…")`. In a running loop."""

    def make(settings: Settings | None = None, pact: str = "") -> GateHouse:
        return GateHouse(settings or Settings(), pact)

    return make

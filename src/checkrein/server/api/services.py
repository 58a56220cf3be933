"""What the routes work with; put together once, in `role`."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from checkrein.bus.identities import AGENT_KEY
from checkrein.bus.oidc import Verifier
from checkrein.bus.oidc_settings import settings_of
from checkrein.bus.types import Bus
from checkrein.control.signing import load_signer
from checkrein.server.api import provided
from checkrein.server.api.agents import Agents
from checkrein.server.api.controls import Controls
from checkrein.server.api.follow import Follower
from checkrein.server.api.history import History
from checkrein.server.api.hub import Hub
from checkrein.server.api.live import Live
from checkrein.server.api.metrics import Metrics
from checkrein.server.api.pact_book import PactBook
from checkrein.server.api.recent import Recent
from checkrein.server.api.revoking import Push, Revoking
from checkrein.server.api.roles import Identity
from checkrein.server.api.run_tokens import RunTokens
from checkrein.server.api.tail import Tail
from checkrein.server.api.tokens import Tokens
from checkrein.server.gateways import Gateways
from checkrein.world import World

Work = Callable[[], Awaitable[None]]


class Credential(Protocol):
    @property
    def jwt(self) -> str: ...

    @property
    def seed(self) -> str: ...

    @property
    def user(self) -> str: ...


class Minter(Protocol):
    """Makes the credentials of sessions (`bus.credentials.Keys`)."""

    @property
    def control_key(self) -> str: ...

    def session(self, session: str, agents: list[str], expires_at_ns: int) -> Credential: ...


@dataclass
class Services:
    world: World
    data: Path
    bus: Bus
    control_bus: Bus
    bus_urls: tuple[str, ...]
    control_urls: tuple[str, ...]
    minter: Minter
    metrics: Metrics
    tail: Tail
    live: Live
    recent: Recent
    hub: Hub
    history: History
    controls: Controls
    follower: Follower
    pacts: PactBook
    tokens: Tokens
    agents: Agents
    run_tokens: RunTokens
    revoking: Revoking
    verifier: Verifier
    started_ns: int
    spawn: Callable[[Work], None]
    """Runs something beside the requests, for as long as the role works."""
    beat_s: float = 10.0
    sessions_swept_ns: int | None = None
    gateways: Gateways | None = None
    has_gateway: bool = False
    """Whether one must serve before all is well."""
    """Set when the role begins to serve."""
    health: tuple[int, list[Any]] = field(default=(0, []))

    async def identify(self, given: str) -> Identity | None:
        """Whose token or key this is; None: nobody's. Raises Problem for one that has a flaw that
        can be told."""
        if given.startswith(AGENT_KEY):
            return self.agents.identify(given)
        if given.count(".") == 2:
            return await provided.identify(self.verifier, self.agents, given)
        return self.tokens.identify(given)


def assemble(
    world: World,
    data: Path,
    buses: tuple[Bus, Bus],
    urls: tuple[tuple[str, ...], tuple[str, ...]],
    minter: Minter,
    spawn: Callable[[Work], None],
    push: Push,
    config: Mapping[str, Any],
) -> Services:
    """The parts, wired in a straight line. Nothing runs yet."""
    bus, control_bus = buses
    metrics, tail, live, hub = Metrics(), Tail(), Live(), Hub()
    recent = Recent(world.now_ns)
    history, controls = History(bus), Controls(control_bus)
    follower = Follower(bus, tail, live, recent, hub, history, metrics, world.monotonic_ns)
    pacts = PactBook(world, control_bus, load_signer(data / "keys", world), history)
    services = Services(
        world=world, data=data, bus=bus, control_bus=control_bus, bus_urls=urls[0],
        control_urls=urls[1], minter=minter, metrics=metrics, tail=tail, live=live, recent=recent,
        hub=hub, history=history, controls=controls, follower=follower,
        pacts=pacts, tokens=Tokens(world, control_bus),
        agents=Agents(world, control_bus), run_tokens=RunTokens(world, control_bus),
        revoking=Revoking(world, control_bus, push),
        verifier=Verifier(settings_of(config), world),
        started_ns=world.monotonic_ns(), spawn=spawn,
    )  # fmt: skip
    _describe(services)
    return services


def _describe(services: Services) -> None:
    metrics = services.metrics
    metrics.describe("checkrein_http_requests_total", "Requests answered.")
    metrics.describe("checkrein_http_seconds", "Time to answer a request, streams left out.")
    metrics.describe("checkrein_api_events_total", "Events that came by on the stream.")
    metrics.describe("checkrein_api_messages_unreadable_total", "Messages that were no envelope.")
    metrics.describe("checkrein_commands_total", "Commands given through this server.")
    metrics.describe("checkrein_sessions_total", "Sessions granted or renewed.")
    metrics.gauge("checkrein_tail_events", lambda: len(services.tail))
    metrics.gauge("checkrein_tail_bytes", lambda: services.tail.bytes)
    metrics.gauge("checkrein_tail_evicted_total", lambda: services.tail.evicted)
    metrics.gauge("checkrein_tail_refused_total", lambda: services.tail.refused)
    metrics.gauge("checkrein_stream_position", lambda: services.tail.position)
    metrics.gauge("checkrein_stream_watchers", lambda: len(services.hub.watchers))
    metrics.gauge("checkrein_stream_skipped_total", lambda: services.hub.skipped)
    metrics.gauge("checkrein_recent_events", lambda: len(services.recent))
    metrics.gauge("checkrein_recent_bytes", lambda: services.recent.bytes)
    metrics.gauge("checkrein_live_summaries", lambda: len(services.live))
    metrics.gauge("checkrein_bus_connected", lambda: float(services.bus.connected))
    metrics.gauge("checkrein_control_bus_connected", lambda: float(services.control_bus.connected))

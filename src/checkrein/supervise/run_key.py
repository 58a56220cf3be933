"""The key of a program's run at the gateway: got before it starts, renewed until it is stopped."""

import logging
from collections.abc import Callable

from checkrein.bus.identities import RUN_KEY_LIFE_S, RUN_KEY_RENEW_S
from checkrein.bus.messages import RunRecord, SessionGrant
from checkrein.sdk.config import Endpoint
from checkrein.supervise.journal import host_name, user_name
from checkrein.supervise.options import GatewayWanted
from checkrein.supervise.session import ServerUnreachable, SessionError
from checkrein.supervise.through_gateway import Access, NoRunKey, fetch, request_for
from checkrein.world import World

_log = logging.getLogger(__name__)
RETRY_S = 5.0
LEAST_S = 1.0


class NoGateway(Exception):
    """The program was to start behind a gateway only, and there is no way to it. Says why."""


class RunKey:
    """`endpoint`: the server as it is known now; `say(words)` tells the user."""

    def __init__(
        self, world: World, wanted: GatewayWanted, endpoint: Callable[[], Endpoint | None],
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._world, self._wanted, self._endpoint, self._say = world, wanted, endpoint, say
        self._token = ""
        self._expires_at = 0

    @property
    def held(self) -> bool:
        return bool(self._token)

    def take_over(self, token: str) -> None:
        """The key that a supervisor before this one got: it may be about to end."""
        self._token = token

    async def get(self, grant: SessionGrant | None, record: RunRecord, pid: int) -> Access | None:
        """The way to the gateway for the held process `pid`; None: there is none, or it is not
        wanted. Raises NoGateway where the user wants no other way."""
        if self._wanted == "never":
            return None
        why = ""
        if grant is None:
            why = "there is no contact with a server, so with no gateway"
        elif not grant.gateway_url:
            why = "no gateway serves: start one with `checkrein up` or `checkrein serve gateway`"
        else:
            try:
                await self._ask(record, grant.session, pid)
                return Access.of(grant, self._token)
            except SessionError as error:
                why = f"no key for the gateway: {error}"
        if self._wanted == "always":
            raise NoGateway(why)
        if grant is not None and grant.gateway_url:
            self._say(f"{why}; its model calls go as they are set")
        return None

    async def keep(
        self, record: RunRecord, pid: int, session: Callable[[], str], over: Callable[[], bool]
    ) -> None:
        """Renews the key in time, until the run is `over`: then it is left to end. Until
        cancelled."""
        failed = False
        while True:
            await self._world.sleep(self._wait_s(failed))
            if over():
                return
            try:
                await self._ask(record, session(), pid)
                failed = False
            except (ServerUnreachable, NoRunKey) as error:
                if not failed:
                    _log.warning("the run's key at the gateway is not renewed yet: %s", error)
                failed = True

    def _wait_s(self, failed: bool) -> float:
        if failed:
            return RETRY_S
        left_s = (self._expires_at - self._world.now_ns()) / 1e9
        return max(LEAST_S, min(RUN_KEY_RENEW_S, left_s - (RUN_KEY_LIFE_S - RUN_KEY_RENEW_S)))

    async def _ask(self, record: RunRecord, session: str, pid: int) -> None:
        endpoint = self._endpoint()
        if endpoint is None or not endpoint.url:
            raise ServerUnreachable("no server is named (CHECKREIN_URL), and none runs here")
        request = request_for(
            record.run_id, record.task_id, record.agent, record.room, record.environment, session,
            pid, host_name(), user_name(), self._token,
        )  # fmt: skip
        granted = await fetch(endpoint.url, endpoint.token, request)
        self._token, self._expires_at = granted.token, granted.expires_at

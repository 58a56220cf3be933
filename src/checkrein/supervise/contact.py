"""How the supervisor of one program reaches the server: where it is, a session there, its bus."""

import os

from checkrein.bus.messages import SessionGrant, SessionRequest
from checkrein.bus.types import Bus
from checkrein.sdk.config import Endpoint
from checkrein.supervise.journal import host_name
from checkrein.supervise.options import Options
from checkrein.supervise.session import ServerUnreachable, ask


class Contact:
    """`again`: a supervisor before this one served the same program."""

    def __init__(self, options: Options, again: bool) -> None:
        self._options = options
        self._carries = bool(options.pact) and not again
        """Whether the pact of `--pact` is yet to be told to the server. Told again with a renewed
        session, it would undo what has been pushed meanwhile."""

    def endpoint(self) -> Endpoint | None:
        """The server as it is known now."""
        from checkrein.sdk import config

        environ = self._options.environ
        given = {"url": self._options.url} if self._options.url else {}
        return config.endpoint(config.read(environ, **given), environ)

    async def ask(self, agents: list[str], session: str) -> SessionGrant:
        """A session, or `session` renewed. Raises SessionError."""
        endpoint, options = self.endpoint(), self._options
        if endpoint is None or not endpoint.url:
            raise ServerUnreachable("no server is named (CHECKREIN_URL), and none runs here")
        request = SessionRequest(
            kind="supervisor", agents=agents, session=session, room=options.room,
            environment=options.environment, host=host_name(), pid=os.getpid(),
            pacts={options.agent: options.pact} if self._carries else {},
        )  # fmt: skip
        grant = await ask(endpoint.url, endpoint.token, request)
        self._carries = False
        return grant

    async def connect(self, grant: SessionGrant) -> Bus:
        """The bus for orders and receipts. Raises BusError."""
        from checkrein.bus import nats, subjects
        from checkrein.bus.credentials import Credential

        credential = Credential(grant.jwt, grant.seed)
        return await nats.connect(
            grant.control_urls, credential, name=f"supervisor {grant.session}",
            inbox_prefix=subjects.inbox(grant.session),
        )  # fmt: skip

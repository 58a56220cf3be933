"""Runs' keys, as control ends them: a halted run's key is taken out of the bucket `run_tokens`, so
that no gateway lets it in, whether or not it has heard of the halt.
"""

import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from checkrein.bus.identities import RunToken
from checkrein.bus.messages import MessageError, decode
from checkrein.bus.types import Bucket, BusError, Entry
from checkrein.control.core import Control
from checkrein.control.types import Input, Revoked
from checkrein.server.key_writer import KeyWriter
from checkrein.world import World

_log = logging.getLogger(__name__)
RETRY_S = 0.5
_PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0)


class RunKeys:
    """Follows the bucket. `feed` is told when the last key of a run is gone."""

    def __init__(
        self, bucket: Bucket, control: Control, feed: Callable[[Input], Awaitable[None]],
        world: World,
    ) -> None:  # fmt: skip
        self._bucket, self._control, self._feed, self._world = bucket, control, feed, world
        self._run_of: dict[str, str] = {}
        self._of_run: dict[str, set[str]] = {}
        self._writer = KeyWriter(self._end, "the end of run", world, _PAUSES_S)

    async def read(self) -> None:
        """Reads all there are; those of halted runs end. Raises BusError."""
        for entry in await self._bucket.entries():
            self._take(entry)

    @property
    def waiting(self) -> int:
        return self._writer.waiting

    def revoke(self, run_id: str) -> None:
        if run_id in self._of_run:
            self._writer.add(run_id)

    def works(self) -> list[Coroutine[Any, Any, None]]:
        return [self._follow(), *self._writer.works()]

    async def _follow(self) -> None:
        while True:
            with suppress(BusError):
                async for entry in self._bucket.watch():
                    self._take(entry)
            await self._world.sleep(RETRY_S)

    async def _end(self, run_id: str) -> None:
        for digest in list(self._of_run.get(run_id, ())):
            await self._bucket.delete(digest)
            self._forget(digest)
        await self._feed(Revoked(run_id))

    def _take(self, entry: Entry) -> None:
        if not entry.key:
            return
        self._forget(entry.key)
        if not entry.value:
            return
        try:
            run_id = decode(entry.value, RunToken).run_id
        except MessageError as error:
            _log.warning("a run's key is passed over: %s", error)
            return
        self._run_of[entry.key] = run_id
        self._of_run.setdefault(run_id, set()).add(entry.key)
        if self._control.halted(run_id):  # it was made, or renewed, while the halt came
            self.revoke(run_id)

    def _forget(self, digest: str) -> None:
        run_id = self._run_of.pop(digest, "")
        its = self._of_run.get(run_id)
        if its is not None:
            its.discard(digest)
            if not its:
                del self._of_run[run_id]

"""The gate: every call of every protocol passes `visit`.

key → caller → not shut out → its run → in flight → (guard, record: `Visit`) → passage
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from checkrein.bus.identities import Contained
from checkrein.bus.types import Bucket
from checkrein.gateway.announced import Announcements
from checkrein.gateway.fence import Fence
from checkrein.gateway.keybook import KeyBook
from checkrein.gateway.known import KnownKeys
from checkrein.gateway.models.screen import ScreenFor
from checkrein.gateway.names import load_names
from checkrein.gateway.redaction import Screens
from checkrein.gateway.runs import Runs
from checkrein.gateway.served import ServedTools
from checkrein.gateway.settings import Settings
from checkrein.gateway.types import (
    CALL_HEADER,
    META,
    RUN_HEADER,
    STEP_HEADER,
    TASK_TYPE_HEADER,
    Announced,
    Caller,
    Cut,
    Protocol,
    Refusal,
)
from checkrein.gateway.visit import Visit
from checkrein.sdk.errors import Denied, Halted
from checkrein.sdk.run import RUN
from checkrein.world import World

_NAME_MAX = 128


class Gate:
    """What the protocols' handlers are given. One a process; on its loop."""

    def __init__(
        self, settings: Settings, world: World, keys: KeyBook, runs: Runs, fence: Fence,
        known: KnownKeys | None = None,
    ) -> None:  # fmt: skip
        """`known`: the keys that nobody may read. Raises SettingsError."""
        self.settings = settings
        self.world = world
        self.keys = keys
        self.runs = runs
        self.fence = fence
        self.known = known or KnownKeys()
        self.screens = Screens(world, settings, self.known, load_names(settings.names))
        self.served_tools = ServedTools()
        self.screen_for: ScreenFor = self.screens
        self._announcements = Announcements()
        self.open_bucket: Callable[[str], Awaitable[Bucket]] | None = None
        """How parts come to buckets of the control bus; None without one."""

    @asynccontextmanager
    async def visit(
        self, headers: Mapping[str, str], protocol: Protocol, said: Announced | None = None
    ) -> AsyncIterator[Visit]:
        """Lets one call in. What is raised inside is recorded as the call's end and goes on as
        Refusal, Cut, or itself. Raises Refusal before the body for who may not come in."""
        caller = await self.keys.caller_of(headers)
        said = said or said_in(headers)
        self._check(caller, said, protocol)
        run, _ = await self.runs.of(caller, said)
        self.keys.check(caller)  # what came while the run was looked for holds too
        task = self.fence.enter(run)
        said = self._announcements.believed(run, said)
        token = RUN.set(run)
        visit = Visit(run, caller, said, protocol, self.world.monotonic_ns())
        try:
            yield visit
            visit.passed("ok")
        except asyncio.CancelledError:
            why = self.fence.taken(task)
            visit.passed("cut", why.reason if why is not None else "whoever asked hung up")
            if why is None:
                raise
            raise why from None
        except Refusal as refusal:
            visit.passed("cut" if isinstance(refusal, Cut) else _status(refusal), refusal.reason)
            raise
        except (Denied, Halted) as error:
            said_no = visit.refusal(error)
            visit.passed("refused", said_no.reason)
            raise said_no from error
        except BaseException as error:
            visit.passed("failed", f"{type(error).__name__}: {error}"[:500])
            raise
        finally:
            RUN.reset(token)
            self._announcements.left(run, said, visit.status)
            self.fence.leave(run, task)

    async def caller(
        self, headers: Mapping[str, str], protocol: Protocol | None = None
    ) -> Caller:  # fmt: skip
        """Who asks, for what needs no run, or before more is read. Raises Refusal."""
        caller = await self.keys.caller_of(headers)
        self._check(caller, said_in(headers), protocol)
        return caller

    def _check(self, caller: Caller, said: Announced, protocol: Protocol | None) -> None:
        """Raises Refusal for an agent that is shut out. A call that its SDK has recorded came here
        all the same, and the record says so."""
        try:
            self.fence.check(caller.agent)
        except Refusal as refusal:
            run = self.runs.mirrored(caller, said)
            if run is not None and said.call_id and protocol is not None:
                visit = Visit(run, caller, said, protocol, self.world.monotonic_ns())
                visit.passed("refused", refusal.reason)
            raise

    def contain(self, agent: str, record: Contained | None) -> None:
        self.fence.contain(agent, record)


def said_in(headers: Mapping[str, str]) -> Announced:
    """What a request says of itself in its headers."""
    return Announced(
        run=headers.get(RUN_HEADER, "")[:_NAME_MAX],
        call_id=headers.get(CALL_HEADER, "")[:_NAME_MAX], step=_step(headers.get(STEP_HEADER, "")),
        traceparent=headers.get("traceparent", "")[:_NAME_MAX],
        task_type=headers.get(TASK_TYPE_HEADER, "")[:_NAME_MAX],
    )  # fmt: skip


def said_in_meta(meta: Mapping[str, object]) -> Announced:
    """What an MCP request says of itself in `_meta`."""
    found = {name: str(meta.get(META + name, ""))[:_NAME_MAX] for name in ("run", "call", "step")}
    return Announced(
        run=found["run"], call_id=found["call"], step=_step(found["step"]),
        traceparent=str(meta.get("traceparent", ""))[:_NAME_MAX],
    )  # fmt: skip


def _step(text: str) -> int:
    return int(text) if text.isdigit() and len(text) < 10 else 0


def _status(refusal: Refusal) -> str:
    return "failed" if refusal.status >= 500 else "refused"

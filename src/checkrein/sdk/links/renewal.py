"""A session's life: it is renewed before it ends, and when contact has been lost for a while."""

import asyncio
from collections.abc import Awaitable, Callable

from checkrein.bus.messages import SessionGrant
from checkrein.bus.types import Bus
from checkrein.sdk import quiet
from checkrein.sdk.links.session import NoSession
from checkrein.world import World

RENEW_SHARE = 0.6
"""Of a session's life, when it is renewed."""
LOST_S = 4.0


async def keep_renewed(
    grant: SessionGrant, again: Callable[[], Awaitable[SessionGrant]], events: Bus, control: Bus,
    world: World,
) -> None:  # fmt: skip
    """Until cancelled. `again` asks for the same session once more; it may raise NoSession."""
    from checkrein.bus.credentials import Credential

    while True:
        left_s = (grant.expires_at - world.now_ns()) / 1e9
        await _until_due(max(1.0, left_s * RENEW_SHARE), control)
        try:
            grant = await again()
        except NoSession as error:
            quiet.warn_once("renewal", "checkrein: the session was not renewed: %s", error)
            continue
        for bus in (events, control):
            renew = getattr(bus, "renew", None)
            if renew is not None:
                renew(Credential(grant.jwt, grant.seed))


async def _until_due(seconds: float, control: Bus) -> None:
    """So long, or until contact is lost for LOST_S: the credential may have been taken back, and
    one without whom that was about is granted still."""
    loop = asyncio.get_running_loop()
    due = loop.time() + seconds
    heard = loop.time()
    while loop.time() < due:
        await asyncio.sleep(min(1.0, max(0.01, due - loop.time())))
        if control.connected:
            heard = loop.time()
        elif loop.time() - heard > LOST_S:
            return

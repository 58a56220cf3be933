"""Both bus connections of a session."""

from typing import Any

from checkrein.bus import subjects
from checkrein.bus.messages import SessionGrant
from checkrein.bus.types import Bus


async def connect_nats(grant: SessionGrant) -> tuple[Bus, Bus]:
    """Both connections of a session. Raises BusError."""
    from checkrein.bus.credentials import Credential
    from checkrein.bus.nats import connect

    credential = Credential(grant.jwt, grant.seed)
    prefix = subjects.inbox(grant.session)
    name = f"sdk {grant.session}"
    events: Any = await connect(grant.bus_urls, credential, name=name, inbox_prefix=prefix)
    try:
        control = await connect(grant.control_urls, credential, name=name, inbox_prefix=prefix)
    except BaseException:
        await events.close()
        raise
    return events, control

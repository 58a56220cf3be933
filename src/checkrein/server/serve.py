"""One role as a process: connect, prepare what the roles share, run, stop cleanly.

`up` starts the roles this way, and a cluster starts them one by one:
`checkrein serve ROLE --bus nats://a,b,c --control-bus … --store …`.
"""

import asyncio
import importlib
import logging
import os
import signal
import sys
from contextlib import suppress

from checkrein.bus import nats, subjects
from checkrein.bus.credentials import Keys
from checkrein.bus.types import Bus, BusError, Unreachable
from checkrein.server.context import RoleContext
from checkrein.server.options import ROLES, Options, OptionsError, read_settings
from checkrein.world import REAL

_log = logging.getLogger(__name__)
_EVENT_PATH = ("archive", "watch")
_NICE = 10
_STOP_S = 12
READY_FD = "CHECKREIN_READY_FD"


def main(role: str, options: Options) -> int:
    """Runs a role until SIGTERM. Returns the process's exit code."""
    logging.basicConfig(
        level=os.environ.get("CHECKREIN_LOG", "INFO").upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if role not in ROLES:
        raise OptionsError(f"no role {role!r}: there are {', '.join(ROLES)}")
    if not options.bus_urls or not options.control_urls:
        raise OptionsError("serve needs --bus and --control-bus: the servers that `up` would start")
    if role in _EVENT_PATH:
        with suppress(OSError):
            os.nice(_NICE)
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(role, options))


async def _serve(role: str, options: Options) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, _stop, stop)
    keys = Keys.load_or_create(options.data / "keys")
    bus = await _connect(options.bus_urls, keys, role, stop)
    control_bus = await _connect(options.control_urls, keys, role, stop)
    if bus is None or control_bus is None:
        return 0
    try:
        await prepare(bus, control_bus)
        context = RoleContext(
            world=REAL,
            role=role,
            data=options.data,
            bus=bus,
            control_bus=control_bus,
            stop=stop,
            ready=_say_ready,
            store_url=options.store_url,
            http=options.http_address,
            gateway=options.gateway_address,
            has_gateway=bool(options.gateway),
            bus_urls=options.bus_urls,
            control_urls=options.control_urls,
            config=read_settings(options.config, options.data),
        )
        (options.data / role).mkdir(mode=0o700, parents=True, exist_ok=True)
        await importlib.import_module(f"checkrein.server.{role}").run(context)
    finally:
        await bus.close()
        await control_bus.close()
    _log.info("%s: stopped", role)
    return 0


def _stop(stop: asyncio.Event) -> None:
    """Finish what has begun, but not for ever: with the buses gone there may be no end to wait for.
    What was not acknowledged comes again at the next start."""
    signal.alarm(_STOP_S)
    stop.set()


async def prepare(bus: Bus, control_bus: Bus) -> None:
    """Makes the streams and buckets that the roles share, or checks that they are as they must be.
    Safe to do from several roles at once. Raises BusError."""
    await bus.stream(subjects.EVENTS)
    await bus.stream(subjects.DEAD)
    await control_bus.stream(subjects.AUDIT)
    for name in subjects.BUCKETS:
        await control_bus.bucket(name)


async def _connect(
    urls: tuple[str, ...], keys: Keys, role: str, stop: asyncio.Event
) -> nats.NatsBus | None:
    """A connection, tried until there is one; None when told to stop before."""
    said = False
    while not stop.is_set():
        try:
            return await nats.connect(urls, keys.role(role), name=f"checkrein-{role}")
        except Unreachable as error:
            if not said:
                _log.warning("%s: waiting for the bus: %s", role, error)
                said = True
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await stop.wait()
        except BusError as error:
            _log.error("%s: %s", role, error)
            raise
    return None


def _say_ready() -> None:
    """Tells `up`, which passed a pipe."""
    handle = os.environ.pop(READY_FD, "")
    if handle:
        with suppress(OSError):
            os.write(int(handle), b"ready\n")
            os.close(int(handle))

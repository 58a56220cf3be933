"""Where a process's client is put together, once."""

import os
from collections.abc import Callable
from pathlib import Path

from checkrein.sdk import config as configs
from checkrein.sdk.client import Client
from checkrein.sdk.config import Config
from checkrein.sdk.links.types import Link, NoLink, Process
from checkrein.sdk.place import Place
from checkrein.sdk.recorder import Recorder
from checkrein.sdk.types import RunInfo
from checkrein.world import REAL

OFF = "off"
"""CHECKREIN_URL=off: no server is looked for."""


def client_of(config: Config) -> Client:
    """Recorder, then link; neither touches the network in this thread."""
    recorder = Recorder(
        Path(config.recorders), REAL, agent=config.agent, room=config.room,
        environment=config.environment,
    )  # fmt: skip
    return Client(config, recorder, place_of, link_maker(config, recorder), REAL)


def place_of(info: RunInfo, config: Config) -> Place:
    return Place(
        environment=config.environment, room=info.room, agent=info.agent, run_id=info.run_id,
        task_id=info.task_id,
    )  # fmt: skip


def link_maker(config: Config, recorder: Recorder) -> Callable[[Process], Link]:
    """How this process reaches whoever commands it; called again in a forked child."""

    def make(process: Process) -> Link:
        if config.supervisor:
            from checkrein.sdk.links.supervisor import SupervisorLink

            return SupervisorLink(config.supervisor, process)
        if config.url == OFF:
            return NoLink()
        from checkrein.sdk.links.bus import BusLink
        from checkrein.sdk.links.connect import connect_nats
        from checkrein.sdk.links.session import ask
        from checkrein.sdk.links.shipping import RingShipping

        return BusLink(
            process, lambda: configs.endpoint(config, os.environ), ask, connect_nats,
            RingShipping(Path(config.recorders), recorder),
        )  # fmt: skip

    return make

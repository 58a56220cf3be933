"""What an agent recorded, without a disk: a client of this process whose recorder is a list."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from checkrein.events.types import Base
from checkrein.sdk import instruments, process
from checkrein.sdk.client import Client
from checkrein.sdk.config import Config
from checkrein.sdk.links.types import NoLink
from checkrein.sdk.types import Blank, RunInfo

_PLACE = {"recorder": "test", "ts": 1, "environment": "test", "room": "test"}


class Recorded(Blank):
    """The recorder. `events` are whole, as a reader would decode them."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def record(self, kind: type[Base], place: Any, step: int, /, **fields: Any) -> int:
        seq = len(self.events) + 1
        values = {"seq": seq, "step": step, **place, **fields}
        packed = msgspec.msgpack.encode({"type": kind.__struct_config__.tag, **values})
        self.events.append(msgspec.msgpack.decode(packed, type=kind))
        return seq

    def of(self, kind: type[Base]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def types(self, beginning: str = "") -> list[str]:
        tags = [str(event.__struct_config__.tag) for event in self.events]
        return [tag for tag in tags if tag.startswith(beginning)]


def _place(info: RunInfo, config: Config) -> dict[str, str]:
    return {**_PLACE, "agent": info.agent, "run_id": info.run_id, "task_id": info.task_id}


@contextmanager
def recorded(folder: Path, pact: str = "") -> Iterator[Recorded]:
    """Instruments this process for the while, under a pact (YAML)."""
    path = folder / "pact.yaml"
    path.write_text(pact or "pact: test\njob: test\nowner: test\n")
    recorder = Recorded()
    config = Config(agent="test", pact_path=str(path))
    before = process.peek()
    process._client = Client(config, recorder, _place, lambda client: NoLink())
    instruments.instrument()
    try:
        yield recorder
    finally:
        instruments.uninstrument()
        process._client = before


def ambient() -> Any:
    """The run of code that is in no run."""
    return process.client().ambient()

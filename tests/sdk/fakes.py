"""What SDK tests stand on: a recorder that keeps events in memory, a client without a link."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from checkrein.events import codec
from checkrein.events.types import Base
from checkrein.policy.pact import default_pact, load
from checkrein.policy.types import ALLOW, Action, Pact, Verdict
from checkrein.sdk import client as clients
from checkrein.sdk import process, quiet
from checkrein.sdk.client import Client
from checkrein.sdk.config import Config
from checkrein.sdk.errors import Halted
from checkrein.sdk.guard import Guard, Seat
from checkrein.sdk.links.types import Link, NoLink, Process
from checkrein.sdk.place import Place
from checkrein.sdk.rein import Ordered
from checkrein.sdk.types import Blank
from checkrein.world import REAL


class MemoryRecorder(Blank):
    """Keeps whole events, made and read back as they would be from the ring."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._seq = 0
        self._lock = threading.Lock()

    def record(self, kind: type[Base], place: Place, step: int, /, **fields: Any) -> int:
        if place.redact is not None:
            fields = place.redact(fields)
        with self._lock:
            self._seq += 1
            event = {
                "recorder": "r", "seq": self._seq, "ts": REAL.now_ns(), "step": step,
                "environment": place.environment, "room": place.room, "agent": place.agent,
                "run_id": place.run_id, "task_id": place.task_id,
                "type": kind.__struct_config__.tag, **fields,
            }  # fmt: skip
            raw = msgspec.msgpack.encode(event)
            assert not isinstance(codec.decode(raw), codec.Unknown)
            self.events.append(codec.fields_of(raw))
            return self._seq

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in list(self.events) if event["type"] == kind]

    def types(self, run_id: str = "") -> list[str]:
        return [e["type"] for e in list(self.events) if not run_id or e["run_id"] == run_id]


class ScriptedGuard:
    """Answers what the test says, by the name of the tool or model; allows the rest."""

    def __init__(self, **verdicts: Verdict | Exception) -> None:
        self.verdicts = verdicts
        self.judged: list[Action] = []
        self.came_back: list[tuple[str, Any, str]] = []
        self.paused_ns = 0

    def judge(self, action: Action, now_ns: int) -> Verdict:
        self.judged.append(action)
        answer = self.verdicts.get(action.name, ALLOW)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def returned(self, action: Action, result: Any, error: str, now_ns: int) -> None:
        self.came_back.append((action.name, result, error))

    def step(self, now_ns: int) -> Verdict:
        return ALLOW

    listens = False

    def would(self, action: Action, now_ns: int) -> Verdict:
        return self.judge(action, now_ns)

    def granted(self, action: Action, now_ns: int) -> Verdict:
        return ALLOW

    def objections(self, output: Any) -> list[str]:
        return []

    def model_returned(self, *_: Any) -> None:
        return None

    def told(self, *_: Any, **__: Any) -> None:
        return None

    placed = heard = remembered = said_confidence = raised = adopt = know = routed = told

    def paused(self, duration_ns: int) -> None:
        self.paused_ns += duration_ns

    def forked(self) -> None:
        return None


class House:
    """A client with a recorder in memory, and what was recorded."""

    def __init__(self, client: Client, recorder: MemoryRecorder) -> None:
        self.client = client
        self.recorder = recorder

    def pause(self, run: Any, epoch: int = 1) -> Any:
        return run.obey(order("pause", epoch))

    def halt(self, run: Any, epoch: int = 2) -> Any:
        return run.obey(order("halt", epoch, reason="enough"))

    def resume(self, run: Any, epoch: int = 2) -> Any:
        return run.obey(order("resume", epoch))


def order(verb: str, epoch: int, reason: str = "test", **arguments: Any) -> Ordered:
    return Ordered(
        command_id=f"{verb}-{epoch}", verb=verb, epoch=epoch, reason=reason, issued_by="ann",
        arguments=arguments,
    )  # fmt: skip


class Stopped:
    """What came out of a block that was to be halted."""

    value: Halted


@contextmanager
def halted(match: str = "") -> Iterator[Stopped]:
    """The block must end by Halted, for a reason with `match` in it."""
    stopped = Stopped()
    try:
        yield stopped
    except Halted as error:
        stopped.value = error
    else:
        raise AssertionError("did not raise Halted")
    assert match in stopped.value.reason


@contextmanager
def house(
    guard: Guard | None = None,
    pact: str | None = None,
    make_link: Callable[[Process], Link] = lambda _: NoLink(),
    **config: str,
) -> Iterator[House]:
    """A process's client for the block. `guard` judges every run; else the pact's own guards do."""
    recorder = MemoryRecorder()
    before, seat = process._client, clients.make_seat
    client = Client(
        Config(agent="bot", **config), recorder,
        lambda info, settings: Place(
            settings.environment, info.room, info.agent, info.run_id, info.task_id
        ),
        make_link,
    )  # fmt: skip
    faults_before = quiet.faults.copy()
    if guard is not None:
        parsed: Pact = load(pact) if pact else default_pact()
        clients.make_seat = lambda text, source: Seat(guard, parsed)
    elif pact is not None:
        clients.make_seat = lambda text, source: seat(pact, "the test's pact")
    process.install(client)
    try:
        yield House(client, recorder)
    finally:
        client.close()
        process._client, clients.make_seat = before, seat
    assert quiet.faults == faults_before, quiet.faults - faults_before

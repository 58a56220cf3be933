"""Reading JetStream: durable consumers, gap-free readers, buckets."""

import asyncio
import itertools
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import nats.errors
from nats.aio.msg import Msg

from checkrein.bus.nats_wire import Wire
from checkrein.bus.types import BusError, Entry, Message, Unreachable, WrongRevision

_log = logging.getLogger(__name__)
_PULL_MESSAGES = 256
_PULL_EXPIRES_S = 10.0
_READER_IDLE_S = 60


class _Pull:
    """Keeps a pull request at the server, so that messages come as soon as they are there."""

    def __init__(self, bus: Wire, stream: str, consumer: str, outlives_connection: bool) -> None:
        self._bus = bus
        self._outlives_connection = outlives_connection
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = bus.new_inbox()
        self._subscription: Any = None
        self._ready: deque[Msg] = deque()
        self._news = asyncio.Event()
        self._asked = 0
        self._asked_at = 0.0
        self.broken = ""

    async def open(self) -> None:
        self._subscription = await self._bus.client.subscribe(self._inbox, cb=self._take)
        self._bus.on_connection(self._on_connection)

    async def take(self, count_max: int, wait_s: float) -> list[Msg]:
        """What has arrived, at most `count_max`; waits up to `wait_s` for a first one."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while True:
            await self._ask(loop.time())
            if self._ready:
                return [self._ready.popleft() for _ in range(min(count_max, len(self._ready)))]
            if self.broken:
                return []
            left = deadline - loop.time()
            if left <= 0:
                return []
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, _PULL_EXPIRES_S / 2)):
                    await self._news.wait()

    async def close(self) -> None:
        self._bus.off_connection(self._on_connection)
        with suppress(nats.errors.Error):
            await self._subscription.unsubscribe()

    async def _ask(self, now: float) -> None:
        waiting_long = now - self._asked_at > _PULL_EXPIRES_S + 1
        if self._asked > _PULL_MESSAGES // 2 and not waiting_long:
            return
        if not self._bus.connected:
            return
        count = _PULL_MESSAGES - (0 if waiting_long else self._asked)
        self._asked = _PULL_MESSAGES
        self._asked_at = now
        body = {"batch": count, "expires": round(_PULL_EXPIRES_S * 1e9)}
        await self._bus.publish(self._next, json.dumps(body).encode(), reply=self._inbox)

    async def _take(self, msg: Msg) -> None:
        status = (msg.headers or {}).get("Status") if not msg.data else None
        if status is None:
            self._asked -= 1
            self._ready.append(msg)
        else:
            self._asked = 0
            description = (msg.headers or {}).get("Description", "")
            passing = status in ("404", "408", "100") or status == "409"
            if not passing or "Consumer Deleted" in description:
                self.broken = f"{status} {description}"
        self._news.set()

    def _on_connection(self, up: bool) -> None:
        self._asked = 0
        if up:
            if not self._outlives_connection:
                self.broken = "the connection was lost meanwhile"
            self._news.set()


class NatsConsumer:
    """A durable consumer."""

    def __init__(self, bus: Wire, stream: str, name: str, pull: _Pull) -> None:
        self._bus, self._stream, self._name, self._pull = bus, stream, name, pull

    @classmethod
    async def open(cls, bus: Wire, stream: str, name: str) -> "NatsConsumer":
        pull = _Pull(bus, stream, name, outlives_connection=True)
        await pull.open()
        return cls(bus, stream, name, pull)

    async def fetch(self, count_max: int, wait_s: float) -> Sequence[Message]:
        messages = [_message(msg) for msg in await self._pull.take(count_max, wait_s)]
        if not messages and self._pull.broken:
            raise Unreachable(f"consumer {self._name} of {self._stream}: {self._pull.broken}")
        return messages

    async def ack(self, messages: Sequence[Message]) -> None:
        for message in messages:
            await self._bus.publish(message.reply, b"+ACK")

    async def later(self, messages: Sequence[Message], delay_s: float) -> None:
        body = b"-NAK " + json.dumps({"delay": round(delay_s * 1e9)}).encode()
        for message in messages:
            await self._bus.publish(message.reply, body)

    async def pending(self) -> int:
        answer = await self._bus.api(f"CONSUMER.INFO.{self._stream}.{self._name}")
        if "error" in answer:
            raise BusError(f"consumer {self._name}: {answer['error'].get('description')}")
        return int(answer["num_pending"])

    async def close(self) -> None:
        await self._pull.close()


async def read_stream(
    bus: Wire, stream: str, subjects: Sequence[str], after: int | None
) -> AsyncIterator[Message]:
    """In order, without a gap: an ephemeral consumer, made anew from where we are whenever the
    server's numbering shows a gap or the consumer is gone."""
    position = after if after is not None else await bus.last_position(stream)
    while True:
        try:
            name, _ = await _ephemeral(bus, stream, subjects, {"opt_start_seq": position + 1})
        except Unreachable:
            await asyncio.sleep(0.25)
            continue
        pull = _Pull(bus, stream, name, outlives_connection=False)
        await pull.open()
        try:
            expected = itertools.count(1)
            whole = True
            while whole and not pull.broken:
                for msg in await pull.take(_PULL_MESSAGES, _PULL_EXPIRES_S):
                    whole = _consumer_position(msg) == next(expected)
                    if not whole:
                        break
                    message = _message(msg)
                    position = message.position
                    yield message
        finally:
            await pull.close()
            with suppress(BusError, nats.errors.Error):
                await bus.publish(f"$JS.API.CONSUMER.DELETE.{stream}.{name}", b"")


async def _ephemeral(
    bus: Wire, stream: str, subjects: Sequence[str], start: dict[str, Any]
) -> tuple[str, int]:
    """Makes a reader's consumer at the server: its name, and how many messages wait for it."""
    name = f"read-{bus.client._nuid.next().decode()}"
    policy = "by_start_sequence" if "opt_start_seq" in start else "last_per_subject"
    config: dict[str, Any] = {
        "name": name,
        "ack_policy": "none",
        "deliver_policy": policy,
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": _READER_IDLE_S * 1_000_000_000,
        **start,
    }
    if subjects:
        config["filter_subjects"] = list(subjects)
    body = {"stream_name": stream, "config": config, "action": "create"}
    answer = await bus.api(f"CONSUMER.CREATE.{stream}.{name}", body)
    if "error" in answer:
        raise BusError(f"reading {stream}: {answer['error'].get('description')}")
    return name, int(answer.get("num_pending", 0))


def _message(msg: Msg) -> Message:
    parts = msg.reply.split(".")
    at = 5 if len(parts) < 11 else 7
    return Message(
        msg.subject,
        msg.data,
        position=int(parts[at]),
        reply=msg.reply,
        deliveries=int(parts[at - 1]),
    )


def _consumer_position(msg: Msg) -> int:
    parts = msg.reply.split(".")
    return int(parts[6 if len(parts) < 11 else 8])


def _pending(msg: Msg) -> int:
    parts = msg.reply.split(".")
    return int(parts[8 if len(parts) < 11 else 10])


class NatsBucket:
    """A key-value bucket: a stream that keeps the last message of each subject."""

    def __init__(self, bus: Wire, name: str) -> None:
        self._bus, self._name = bus, name

    async def get(self, key: str) -> Entry | None:
        entry = await self._bus.last_value(self._name, key)
        return entry if entry is not None and entry.value is not None else None

    async def put(self, key: str, value: bytes) -> int:
        return await self._write(key, value, None)

    async def create(self, key: str, value: bytes) -> int:
        try:
            return await self._write(key, value, 0)
        except WrongRevision:
            standing = await self._bus.last_value(self._name, key)
            if standing is None or standing.value is not None:
                raise
            return await self._write(key, value, standing.revision)

    async def update(self, key: str, value: bytes, revision: int) -> int:
        return await self._write(key, value, revision)

    async def delete(self, key: str) -> None:
        await self._bus.append_with(self._subject(key), b"", {"KV-Operation": "DEL"}, 5.0)

    async def keys(self, prefix: str = "") -> list[str]:
        return [entry.key for entry in await self.entries(prefix)]

    async def entries(self, prefix: str = "") -> list[Entry]:
        found: list[Entry] = []
        watching = self.watch(prefix)
        async for entry in watching:
            if entry.key == "":
                break
            found.append(entry)
        await watching.aclose()  # type: ignore[attr-defined] # an async generator
        return found

    async def watch(self, prefix: str = "") -> AsyncIterator[Entry]:
        """Raises Unreachable only at its start. After a lost connection it goes on from where it
        was, so that no change is passed over."""
        stream, base = f"KV_{self._name}", len(f"$KV.{self._name}.")
        revision = await self._bus.last_position(stream)
        name, left = await _ephemeral(self._bus, stream, (f"$KV.{self._name}.>",), {})
        pull = _Pull(self._bus, stream, name, outlives_connection=False)
        await pull.open()
        try:
            while left > 0:
                messages = await pull.take(_PULL_MESSAGES, 5.0)
                if not messages:
                    raise Unreachable(f"bucket {self._name}: the values did not come within 5 s")
                for msg in messages:
                    left = _pending(msg)
                    entry = _entry(msg, base)
                    revision = max(revision, entry.revision)
                    if entry.value is not None and entry.key.startswith(prefix):
                        yield entry
        finally:
            await pull.close()
        yield Entry("", None, revision)
        async for message in read_stream(self._bus, stream, (), revision):
            if message.subject[base:].startswith(prefix):
                value = message.data or None
                yield Entry(message.subject[base:], value, message.position)

    def _subject(self, key: str) -> str:
        return f"$KV.{self._name}.{key}"

    async def _write(self, key: str, value: bytes, revision: int | None) -> int:
        if not value:
            raise ValueError(f"bucket {self._name}: the value of {key} is empty")
        headers = (
            None if revision is None else {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        )
        return await self._bus.append_with(self._subject(key), value, headers, 5.0)


def _entry(msg: Msg, base: int) -> Entry:
    deleted = "KV-Operation" in (msg.headers or {})
    return Entry(msg.subject[base:], None if deleted else msg.data, _message(msg).position)

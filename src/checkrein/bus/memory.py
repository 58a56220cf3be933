"""The bus in memory: the real rules of subjects, streams, consumers and buckets, in one process.

`MemoryServer` is the shared state (what a NATS server keeps); `MemoryBus` is one connection to it.
It passes the same contract tests as the NATS one. Permissions are enforced for a connection that is
given some, as the server does it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from checkrein.bus.types import (
    Bucket,
    Consumer,
    Entry,
    Handler,
    Message,
    Refused,
    StreamSpec,
    Subscription,
    Unreachable,
    WrongRevision,
)
from checkrein.world import REAL, World

_log = logging.getLogger(__name__)


def matches(pattern: str, subject: str) -> bool:
    """NATS subject matching: `*` is one token, a last `>` is one or more."""
    wanted = pattern.split(".")
    given = subject.split(".")
    for at, part in enumerate(wanted):
        if part == ">":
            return len(given) > at
        if at >= len(given) or part not in ("*", given[at]):
            return False
    return len(wanted) == len(given)


@dataclass
class _Stream:
    spec: StreamSpec
    messages: dict[int, Message] = field(default_factory=dict)
    last: int = 0
    seen: dict[str, tuple[int, float]] = field(default_factory=dict)
    consumers: dict[str, "_ConsumerState"] = field(default_factory=dict)
    readers: set[asyncio.Event] = field(default_factory=set)


@dataclass
class _ConsumerState:
    subjects: tuple[str, ...]
    ack_wait_s: float
    next_position: int = 1
    again: deque[tuple[float, int]] = field(default_factory=deque)
    waiting: dict[int, float] = field(default_factory=dict)
    deliveries: dict[int, int] = field(default_factory=dict)


@dataclass
class _Kept:
    history: dict[str, Entry] = field(default_factory=dict)
    revision: int = 0
    watchers: list[tuple[str, asyncio.Queue[Entry]]] = field(default_factory=list)


class _Subscribed:
    def __init__(self, server: "MemoryServer", pattern: str, handler: Handler, queue: str) -> None:
        self.pattern, self.handler, self.queue = pattern, handler, queue
        self._server = server
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue(65_536)
        self._task = asyncio.get_running_loop().create_task(self._work())

    def give(self, message: Message) -> None:
        self._messages.put_nowait(message)

    async def _work(self) -> None:
        while (message := await self._messages.get()) is not None:
            try:
                await self.handler(message)
            except Exception:
                _log.exception("handler of %s failed on %s", self.pattern, message.subject)

    async def close(self) -> None:
        if self in self._server.subscriptions:
            self._server.subscriptions.remove(self)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class MemoryServer:
    """What the connections of one bus share. `up = False` makes it unreachable, `gate` may drop or
    hold a message on its way (for simulated faults)."""

    def __init__(self, world: World = REAL) -> None:
        self.world = world
        self.up = True
        self.gate: Callable[[Message], bool] = lambda _: True
        self.subscriptions: list[_Subscribed] = []
        self.streams: dict[str, _Stream] = {}
        self.buckets: dict[str, _Kept] = {}
        self._next_of_queue: dict[tuple[str, str], int] = {}

    def connect(
        self, publish: Sequence[str] | None = None, subscribe: Sequence[str] | None = None
    ) -> "MemoryBus":
        """A new connection, with the subjects it may publish to and listen on (None: all)."""
        return MemoryBus(self, publish, subscribe)

    def deliver(self, message: Message) -> int:
        """Hands a plain message to its listeners; returns to how many."""
        if not self.gate(message):
            return 0
        groups: dict[tuple[str, str], list[_Subscribed]] = {}
        count = 0
        for subscribed in self.subscriptions:
            if not matches(subscribed.pattern, message.subject):
                continue
            if subscribed.queue:
                groups.setdefault((subscribed.pattern, subscribed.queue), []).append(subscribed)
            else:
                subscribed.give(message)
                count += 1
        for group, members in groups.items():
            turn = self._next_of_queue[group] = self._next_of_queue.get(group, -1) + 1
            members[turn % len(members)].give(message)
            count += 1
        return count

    def store(self, subject: str, data: bytes, message_id: str) -> int | None:
        """Puts a message into its stream; None when no stream holds the subject."""
        stream = self._stream_of(subject)
        if stream is None:
            return None
        now = self.world.monotonic_ns() / 1e9
        if message_id:
            known = stream.seen.get(message_id)
            if known is not None and now - known[1] <= stream.spec.dedupe_window_s:
                return known[0]
        used = (
            sum(len(kept.data) for kept in stream.messages.values())
            if stream.spec.bytes_max > 0
            else 0
        )
        while 0 < stream.spec.bytes_max < used + len(data):
            if stream.spec.evidence or not stream.messages:
                raise Refused(f"stream {stream.spec.name} is full")
            used -= len(stream.messages.pop(next(iter(stream.messages))).data)
        stream.last += 1
        message = Message(subject, data, position=stream.last)
        stream.messages[stream.last] = message
        if message_id:
            stream.seen[message_id] = (stream.last, now)
        for reader in stream.readers:
            reader.set()
        return stream.last

    def _stream_of(self, subject: str) -> _Stream | None:
        for stream in self.streams.values():
            if any(matches(pattern, subject) for pattern in stream.spec.subjects):
                return stream
        return None


class _MemoryConsumer:
    def __init__(self, bus: "MemoryBus", stream: _Stream, state: _ConsumerState) -> None:
        self._bus, self._stream, self._state = bus, stream, state
        self._news = asyncio.Event()
        stream.readers.add(self._news)

    async def fetch(self, count_max: int, wait_s: float) -> Sequence[Message]:
        self._bus.check_up()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while True:
            self._news.clear()
            if found := self._take(count_max):
                return found
            left = deadline - loop.time()
            if left <= 0:
                return []
            try:
                async with asyncio.timeout(min(left, 0.05)):
                    await self._news.wait()
            except TimeoutError:
                continue
            self._bus.check_up()

    def _take(self, count_max: int) -> list[Message]:
        state, now = self._state, self._bus.now_s()
        for position, since in list(state.waiting.items()):
            if now - since > state.ack_wait_s:
                del state.waiting[position]
                state.again.append((now, position))
        found: list[Message] = []
        for _ in range(len(state.again)):
            due, position = state.again.popleft()
            if len(found) < count_max and due <= now:
                found.append(self._give(position, now))
            else:
                state.again.append((due, position))
        while len(found) < count_max and state.next_position <= self._stream.last:
            position = state.next_position
            state.next_position += 1
            message = self._stream.messages.get(position)
            if message is not None and _any_match(state.subjects, message.subject):
                found.append(self._give(position, now))
        return found

    def _give(self, position: int, now: float) -> Message:
        state = self._state
        state.waiting[position] = now
        count = state.deliveries[position] = state.deliveries.get(position, 0) + 1
        kept = self._stream.messages[position]
        return Message(kept.subject, kept.data, position, deliveries=count)

    async def ack(self, messages: Sequence[Message]) -> None:
        self._bus.check_up()
        for message in messages:
            self._state.waiting.pop(message.position, None)
            self._state.deliveries.pop(message.position, None)

    async def later(self, messages: Sequence[Message], delay_s: float) -> None:
        for message in messages:
            if self._state.waiting.pop(message.position, None) is not None:
                self._state.again.append((self._bus.now_s() + delay_s, message.position))

    async def pending(self) -> int:
        return sum(
            1
            for position in range(self._state.next_position, self._stream.last + 1)
            if position in self._stream.messages
            and _any_match(self._state.subjects, self._stream.messages[position].subject)
        )

    async def close(self) -> None:
        self._stream.readers.discard(self._news)


def _any_match(patterns: Sequence[str], subject: str) -> bool:
    return not patterns or any(matches(pattern, subject) for pattern in patterns)


class _MemoryBucket:
    def __init__(self, bus: "MemoryBus", kept: _Kept) -> None:
        self._bus, self._kept = bus, kept

    async def get(self, key: str) -> Entry | None:
        self._bus.check_up()
        entry = self._kept.history.get(key)
        return entry if entry is not None and entry.value is not None else None

    async def put(self, key: str, value: bytes) -> int:
        return self._write(key, value)

    async def create(self, key: str, value: bytes) -> int:
        if await self.get(key) is not None:
            raise WrongRevision(f"key {key} stands already")
        return self._write(key, value)

    async def update(self, key: str, value: bytes, revision: int) -> int:
        standing = await self.get(key)
        if (standing.revision if standing else 0) != revision:
            raise WrongRevision(f"key {key} is not at revision {revision}")
        return self._write(key, value)

    async def delete(self, key: str) -> None:
        self._write(key, None)

    def _write(self, key: str, value: bytes | None) -> int:
        self._bus.check_up()
        self._kept.revision += 1
        entry = Entry(key, value, self._kept.revision)
        self._kept.history[key] = entry
        for prefix, queue in self._kept.watchers:
            if key.startswith(prefix):
                queue.put_nowait(entry)
        return entry.revision

    async def keys(self, prefix: str = "") -> list[str]:
        return [entry.key for entry in await self.entries(prefix)]

    async def entries(self, prefix: str = "") -> list[Entry]:
        self._bus.check_up()
        return [
            entry
            for key, entry in self._kept.history.items()
            if key.startswith(prefix) and entry.value is not None
        ]

    async def watch(self, prefix: str = "") -> AsyncIterator[Entry]:
        queue: asyncio.Queue[Entry] = asyncio.Queue()
        watcher = (prefix, queue)
        self._kept.watchers.append(watcher)
        try:
            for entry in await self.entries(prefix):
                yield entry
            yield Entry("", None, self._kept.revision)
            while True:
                yield await queue.get()
        finally:
            self._kept.watchers.remove(watcher)


class MemoryBus:
    """One connection to a MemoryServer."""

    def __init__(
        self,
        server: MemoryServer,
        publish: Sequence[str] | None = None,
        subscribe: Sequence[str] | None = None,
    ) -> None:
        self._server = server
        self._publish, self._subscribe = publish, subscribe
        self._subscriptions: list[_Subscribed] = []
        self._listeners: list[Callable[[bool], None]] = []
        self._inbox = 0
        self._closed = False

    @property
    def connected(self) -> bool:
        return self._server.up and not self._closed

    def now_s(self) -> float:
        return self._server.world.monotonic_ns() / 1e9

    def check_up(self) -> None:
        if not self.connected:
            raise Unreachable("the bus is not reachable")

    def on_connection(self, call: Callable[[bool], None]) -> None:
        self._listeners.append(call)

    def say_connection(self, up: bool) -> None:
        """For tests: tells the listeners that the connection came or went."""
        for call in self._listeners:
            call(up)

    async def publish(self, subject: str, data: bytes, reply: str = "") -> None:
        self._check_may(self._publish, "publish to", subject)
        if self.connected:
            self._server.deliver(Message(subject, data, reply=reply))

    async def subscribe(self, subject: str, handler: Handler, queue: str = "") -> Subscription:
        self._check_may(self._subscribe, "subscribe to", subject)
        subscribed = _Subscribed(self._server, subject, handler, queue)
        self._server.subscriptions.append(subscribed)
        self._subscriptions.append(subscribed)
        return subscribed

    async def request(self, subject: str, data: bytes, timeout_s: float = 2.0) -> bytes:
        self._check_may(self._publish, "publish to", subject)
        self.check_up()
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._inbox += 1
        inbox = f"_INBOX.{id(self)}.{self._inbox}"

        async def take(message: Message) -> None:
            if not answer.done():
                answer.set_result(message.data)

        subscribed = _Subscribed(self._server, inbox, take, "")
        self._server.subscriptions.append(subscribed)
        try:
            if not self._server.deliver(Message(subject, data, reply=inbox)):
                raise Unreachable(f"nobody answers on {subject}")
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise Unreachable(f"no answer on {subject} within {timeout_s:g} s") from None
        finally:
            await subscribed.close()

    async def respond(self, message: Message, data: bytes) -> None:
        if message.reply and self.connected:
            self._server.deliver(Message(message.reply, data))

    async def append(
        self, subject: str, data: bytes, message_id: str = "", timeout_s: float = 5.0
    ) -> int:
        self._check_may(self._publish, "publish to", subject)
        self.check_up()
        if not self._server.gate(Message(subject, data)):
            await asyncio.sleep(timeout_s)
            raise Unreachable(f"no confirmation for {subject} within {timeout_s:g} s")
        position = self._server.store(subject, data, message_id)
        if position is None:
            raise Unreachable(f"no stream holds {subject}")
        return position

    async def stream(self, spec: StreamSpec) -> None:
        self.check_up()
        standing = self._server.streams.get(spec.name)
        if standing is None:
            self._server.streams[spec.name] = _Stream(spec)
        else:
            standing.spec = spec

    async def consumer(
        self, stream: str, name: str, subjects: Sequence[str] = (), ack_wait_s: float = 30.0
    ) -> Consumer:
        self.check_up()
        standing = self._server.streams[stream]
        state = standing.consumers.setdefault(name, _ConsumerState(tuple(subjects), ack_wait_s))
        return _MemoryConsumer(self, standing, state)

    async def read(
        self, stream: str, subjects: Sequence[str] = (), after: int | None = None
    ) -> AsyncIterator[Message]:
        standing = self._server.streams[stream]
        position = standing.last if after is None else after
        news = asyncio.Event()
        standing.readers.add(news)
        try:
            while True:
                news.clear()
                while position < standing.last:
                    position += 1
                    message = standing.messages.get(position)
                    if message is not None and _any_match(subjects, message.subject):
                        yield message
                await news.wait()
        finally:
            standing.readers.discard(news)

    async def last_position(self, stream: str) -> int:
        self.check_up()
        return self._server.streams[stream].last

    async def bucket(self, name: str, history: int = 1) -> Bucket:
        self.check_up()
        return _MemoryBucket(self, self._server.buckets.setdefault(name, _Kept()))

    async def last_value(self, bucket: str, key: str) -> Entry | None:
        self._check_may(self._publish, "read", f"$JS.API.DIRECT.GET.KV_{bucket}.$KV.{bucket}.{key}")
        return await (await self.bucket(bucket)).get(key)

    async def close(self) -> None:
        self._closed = True
        for subscribed in self._subscriptions:
            await subscribed.close()
        self._subscriptions.clear()

    def _check_may(self, allowed: Sequence[str] | None, act: str, subject: str) -> None:
        if allowed is not None and not _any_match_strict(allowed, subject):
            raise Refused(f"not allowed to {act} {subject}")


def _any_match_strict(patterns: Sequence[str], subject: str) -> bool:
    return any(matches(pattern, subject) for pattern in patterns)

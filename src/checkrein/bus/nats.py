"""The bus over NATS. Nothing else in the house imports `nats`.

What this adds to the client library: acknowledgements of appends come to one inbox of our own
(twice the rate of the library's), readers ask for the next messages before they have run dry, a
lost connection is noticed within three seconds, and every error is one of `bus.types`.
"""

import asyncio
import itertools
import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from checkrein.bus.credentials import Credential
from checkrein.bus.nats_streams import NatsBucket, NatsConsumer, read_stream
from checkrein.bus.types import (
    Bucket,
    BusError,
    Consumer,
    Entry,
    Handler,
    Message,
    Refused,
    StreamSpec,
    Subscription,
    Unreachable,
)

_log = logging.getLogger(__name__)
_PING_S = 1
_HEADER_VERSION = 2
_API = "$JS.API."


async def connect(
    urls: Sequence[str],
    credential: Credential,
    *,
    name: str,
    inbox_prefix: str = "_INBOX",
    timeout_s: float = 5.0,
) -> "NatsBus":
    """A connection that reconnects by itself for ever. Raises Unreachable when no server accepts
    within `timeout_s`, Refused when one refuses the credential."""
    bus = NatsBus(credential, inbox_prefix)
    try:
        await asyncio.wait_for(bus.open(urls, name), timeout_s)
    except nats.errors.AuthorizationError as error:
        raise Refused(f"the bus at {', '.join(urls)} refused the credential") from error
    except (OSError, nats.errors.Error, TimeoutError) as error:
        await bus.close()
        if "authorization" in str(bus.last_error).lower():
            raise Refused(f"the bus at {', '.join(urls)} refused the credential") from error
        raise Unreachable(f"no bus answers at {', '.join(urls)}: {error!r}") from error
    return bus


class _Client(Client):
    """The library gives a connection up for good when its credential expires; ours connects again,
    with the credential that it was given meanwhile."""

    async def _process_err(self, err_msg: str) -> None:
        if "user authentication" in err_msg.lower():
            await self._process_op_err(nats.errors.Error(err_msg.strip("'")))
        else:
            await super()._process_err(err_msg)


class NatsBus:
    """One connection. Made by `connect`."""

    def __init__(self, credential: Credential, inbox_prefix: str) -> None:
        self._credential = credential
        self._client: Client = _Client()
        self._inbox_prefix = inbox_prefix
        self._listeners: list[Callable[[bool], None]] = []
        self._acks: dict[str, asyncio.Future[int]] = {}
        self._ack_number = itertools.count(1)
        self._ack_inbox = ""
        self.last_error: Exception | None = None

    async def open(self, urls: Sequence[str], name: str) -> None:
        await self._client.connect(
            list(urls),
            name=name,
            user_jwt_cb=lambda: self._credential.jwt.encode(),
            signature_cb=lambda nonce: self._credential.sign(nonce),
            inbox_prefix=self._inbox_prefix,
            connect_timeout=2,
            reconnect_time_wait=0.25,  # type: ignore[arg-type] # seconds; fractions work
            max_reconnect_attempts=-1,
            ping_interval=_PING_S,
            max_outstanding_pings=2,
            pending_size=8 * 1024 * 1024,
            error_cb=self._on_error,
            disconnected_cb=self._on_lost,
            reconnected_cb=self._on_back,
        )
        self._ack_inbox = f"{self._inbox_prefix}.ack.{self._client._nuid.next().decode()}"
        await self._client.subscribe(f"{self._ack_inbox}.*", cb=self._on_ack)
        self._say(True)

    def renew(self, credential: Credential) -> None:
        """Used from the next reconnect on: the server cuts a connection when its JWT expires."""
        self._credential = credential

    @property
    def connected(self) -> bool:
        return self._client.is_connected

    def on_connection(self, call: Callable[[bool], None]) -> None:
        self._listeners.append(call)

    async def publish(self, subject: str, data: bytes, reply: str = "") -> None:
        try:
            await self._client.publish(subject, data, reply=reply)
        except nats.errors.Error as error:
            raise Unreachable(f"cannot publish to {subject}: {error!r}") from error

    async def subscribe(self, subject: str, handler: Handler, queue: str = "") -> Subscription:
        async def take(msg: Msg) -> None:
            try:
                await handler(Message(msg.subject, msg.data, reply=msg.reply))
            except Exception:
                _log.exception("handler of %s failed on %s", subject, msg.subject)

        subscribed = await self._client.subscribe(subject, queue=queue, cb=take)
        with suppress(nats.errors.Error, TimeoutError):  # else it is in force on reconnecting
            await self._client.flush(timeout=2)
        return _NatsSubscription(subscribed)

    async def request(self, subject: str, data: bytes, timeout_s: float = 2.0) -> bytes:
        msg = await self._ask(subject, data, timeout_s)
        return msg.data

    async def respond(self, message: Message, data: bytes) -> None:
        if message.reply:
            await self.publish(message.reply, data)

    async def append(
        self, subject: str, data: bytes, message_id: str = "", timeout_s: float = 5.0
    ) -> int:
        headers = {"Nats-Msg-Id": message_id} if message_id else None
        return await self.append_with(subject, data, headers, timeout_s)

    async def append_with(
        self, subject: str, data: bytes, headers: dict[str, str] | None, timeout_s: float
    ) -> int:
        """As `append`, with the server's own headers."""
        if not self.connected:
            raise Unreachable(f"not connected, cannot append to {subject}")
        number = str(next(self._ack_number))
        acked: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._acks[number] = acked
        try:
            await self._client.publish(
                subject, data, reply=f"{self._ack_inbox}.{number}", headers=headers
            )
            return await asyncio.wait_for(acked, timeout_s)
        except TimeoutError:
            raise Unreachable(f"no confirmation for {subject} within {timeout_s:g} s") from None
        except nats.errors.Error as error:
            raise Unreachable(f"cannot append to {subject}: {error!r}") from error
        finally:
            self._acks.pop(number, None)

    async def stream(self, spec: StreamSpec) -> None:
        config: dict[str, Any] = {
            "name": spec.name,
            "subjects": list(spec.subjects),
            "max_bytes": spec.bytes_max,
            "max_age": round(spec.age_max_s * 1e9),
            "duplicate_window": round(spec.dedupe_window_s * 1e9),
            "discard": "new" if spec.evidence else "old",
            "deny_delete": spec.evidence,
            "deny_purge": spec.evidence,
        }
        await self.ensure_stream(config)

    async def ensure_stream(self, config: dict[str, Any]) -> None:
        """Creates or updates a stream, then reads it back: BusError unless it is as asked."""
        window = config.get("duplicate_window", 0)
        if window and config.get("max_age"):
            config = {**config, "duplicate_window": min(window, config["max_age"])}
        full = {"storage": "file", "retention": "limits", "num_replicas": 1, **config}
        name = full["name"]
        answer = await self.api(f"STREAM.CREATE.{name}", full)
        if _error_code(answer) == 10058:  # stands already, in another form
            answer = await self.api(f"STREAM.UPDATE.{name}", full)
        if "error" in answer:
            raise BusError(f"stream {name}: {answer['error'].get('description', answer['error'])}")
        found = (await self.api(f"STREAM.INFO.{name}"))["config"]
        wrong = [key for key, value in full.items() if found.get(key, 0) != value and value]
        if wrong:
            raise BusError(f"stream {name} is not as configured: {', '.join(sorted(wrong))}")

    async def consumer(
        self, stream: str, name: str, subjects: Sequence[str] = (), ack_wait_s: float = 30.0
    ) -> Consumer:
        config: dict[str, Any] = {
            "durable_name": name,
            "name": name,
            "ack_policy": "explicit",
            "ack_wait": round(ack_wait_s * 1e9),
            "max_ack_pending": 65_536,
            "deliver_policy": "all",
        }
        if subjects:
            config["filter_subjects"] = list(subjects)
        body = {"stream_name": stream, "config": config, "action": ""}
        answer = await self.api(f"CONSUMER.CREATE.{stream}.{name}", body)
        if "error" in answer:
            raise BusError(f"consumer {name} of {stream}: {answer['error'].get('description')}")
        return await NatsConsumer.open(self, stream, name)

    def read(
        self, stream: str, subjects: Sequence[str] = (), after: int | None = None
    ) -> AsyncIterator[Message]:
        return read_stream(self, stream, subjects, after)

    async def last_position(self, stream: str) -> int:
        answer = await self.api(f"STREAM.INFO.{stream}")
        if "error" in answer:
            raise BusError(f"stream {stream}: {answer['error'].get('description')}")
        return int(answer["state"]["last_seq"])

    async def bucket(self, name: str, history: int = 1) -> Bucket:
        await self.ensure_stream(
            {
                "name": f"KV_{name}",
                "subjects": [f"$KV.{name}.>"],
                "max_msgs_per_subject": history,
                "allow_direct": True,
                "allow_rollup_hdrs": True,
                "deny_delete": True,
                "discard": "new",
                "duplicate_window": 120_000_000_000,
                "max_bytes": -1,
            }
        )
        return NatsBucket(self, name)

    async def last_value(self, bucket: str, key: str) -> Entry | None:
        msg = await self._ask(f"{_API}DIRECT.GET.KV_{bucket}.$KV.{bucket}.{key}", b"", 2.0)
        headers = msg.headers or {}
        if headers.get("Status") == "404":
            return None
        if "Nats-Sequence" not in headers:
            raise BusError(f"reading {key} of {bucket}: {headers.get('Description', headers)}")
        deleted = "KV-Operation" in headers
        return Entry(key, None if deleted else msg.data, int(headers["Nats-Sequence"]))

    async def close(self) -> None:
        with suppress(Exception):
            if self._client.is_connected:
                await asyncio.wait_for(self._client.flush(), 1)
        with suppress(Exception):
            await self._client.close()
        for acked in self._acks.values():
            if not acked.done():
                acked.set_exception(Unreachable("the connection was closed"))

    # For the other files of this room.

    def off_connection(self, call: Callable[[bool], None]) -> None:
        self._listeners.remove(call)

    @property
    def client(self) -> Client:
        return self._client

    async def api(self, call: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One call of the JetStream API; the answer as it is, errors included."""
        data = json.dumps(body).encode() if body is not None else b""
        answer: dict[str, Any] = json.loads((await self._ask(_API + call, data, 5.0)).data)
        return answer

    def new_inbox(self) -> str:
        return self._client.new_inbox()

    async def _ask(self, subject: str, data: bytes, timeout_s: float) -> Msg:
        try:
            return await self._client.request(subject, data, timeout=timeout_s)
        except nats.errors.NoRespondersError:
            raise Unreachable(f"nobody answers on {subject}") from None
        except (nats.errors.Error, TimeoutError) as error:
            raise Unreachable(f"no answer on {subject} within {timeout_s:g} s") from error

    async def _on_ack(self, msg: Msg) -> None:
        acked = self._acks.get(msg.subject.rsplit(".", 1)[-1])
        if acked is None or acked.done():
            return
        if not msg.data:
            acked.set_exception(Unreachable("no stream holds this subject"))
            return
        answer = json.loads(msg.data)
        if "error" in answer:
            error = answer["error"]
            acked.set_exception(append_error(error))
        else:
            acked.set_result(int(answer["seq"]))

    async def _on_error(self, error: Exception) -> None:
        self.last_error = error
        if isinstance(error, nats.errors.SlowConsumerError):
            _log.error("the bus dropped messages: a handler of %s is too slow", error.subject)
        else:
            _log.info("bus: %r", error)

    async def _on_lost(self) -> None:
        self._say(False)

    async def _on_back(self) -> None:
        self._say(True)

    def _say(self, up: bool) -> None:
        for call in list(self._listeners):
            call(up)


class _NatsSubscription:
    def __init__(self, subscribed: Any) -> None:
        self._subscribed = subscribed

    async def close(self) -> None:
        with suppress(nats.errors.Error):
            await self._subscribed.unsubscribe()


def append_error(error: dict[str, Any]) -> BusError:
    from checkrein.bus.types import WrongRevision

    if error.get("err_code") in (10071, 10164):
        return WrongRevision(str(error.get("description")))
    return Refused(str(error.get("description")))


def _error_code(answer: dict[str, Any]) -> int:
    return int(answer.get("error", {}).get("err_code", 0))

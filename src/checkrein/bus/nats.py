"""The bus over NATS. Nothing outside this room imports `nats`.

What this adds to the client library: acknowledgements of appends come to one inbox of our own
(twice the rate of the library's), readers ask for the next messages before they have run dry, a
lost connection is noticed within three seconds, and every error is one of `bus.types`.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import nats
import nats.errors
from nats.aio.msg import Msg

from checkrein.bus.credentials import Credential
from checkrein.bus.nats_streams import NatsBucket, NatsConsumer, read_stream
from checkrein.bus.nats_wire import Wire
from checkrein.bus.types import (
    Bucket,
    BusError,
    Consumer,
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
        async with asyncio.timeout(timeout_s):
            await bus.open(urls, name)
    except nats.errors.AuthorizationError as error:
        await bus.close()
        raise Refused(f"the bus at {', '.join(urls)} refused the credential") from error
    except (OSError, nats.errors.Error, TimeoutError) as error:
        await bus.close()
        if "authorization" in str(bus.last_error).lower():
            raise Refused(f"the bus at {', '.join(urls)} refused the credential") from error
        raise Unreachable(f"no bus answers at {', '.join(urls)}: {error!r}") from error
    return bus


class NatsBus(Wire):
    """The bus on one connection. Made by `connect`."""

    async def subscribe(self, subject: str, handler: Handler, queue: str = "") -> Subscription:
        async def take(msg: Msg) -> None:
            try:
                await handler(Message(msg.subject, msg.data, reply=msg.reply))
            except Exception:
                _log.exception("handler of %s failed on %s", subject, msg.subject)

        subscribed = await self.client.subscribe(subject, queue=queue, cb=take)
        with suppress(nats.errors.Error, TimeoutError):  # else it is in force on reconnecting
            await self.client.flush(timeout=2)
        return _NatsSubscription(subscribed)

    async def request(self, subject: str, data: bytes, timeout_s: float = 2.0) -> bytes:
        msg = await self.ask(subject, data, timeout_s)
        return msg.data

    async def respond(self, message: Message, data: bytes) -> None:
        if message.reply:
            await self.publish(message.reply, data)

    async def append(
        self, subject: str, data: bytes, message_id: str = "", timeout_s: float = 5.0
    ) -> int:
        headers = {"Nats-Msg-Id": message_id} if message_id else None
        return await self.append_with(subject, data, headers, timeout_s)

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


class _NatsSubscription:
    def __init__(self, subscribed: Any) -> None:
        self._subscribed = subscribed

    async def close(self) -> None:
        with suppress(nats.errors.Error):
            await self._subscribed.unsubscribe()


def _error_code(answer: dict[str, Any]) -> int:
    return int(answer.get("error", {}).get("err_code", 0))

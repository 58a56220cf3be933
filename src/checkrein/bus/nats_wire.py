"""One NATS connection with what every part of the bus needs of it: asking, appending with an
acknowledgement of its own, and knowing when the connection comes and goes.
"""

import asyncio
import itertools
import json
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from checkrein.bus.credentials import Credential
from checkrein.bus.types import BusError, Entry, Refused, Unreachable, WrongRevision

_log = logging.getLogger(__name__)
_PING_S = 1
_API = "$JS.API."
_WRONG_REVISION = (10071, 10164)  # the server's codes for a lost compare-and-set


class _Client(Client):
    """The library gives a connection up for good when its credential expires; ours connects again,
    with the credential that it was given meanwhile."""

    async def _process_err(self, err_msg: str) -> None:
        if "user authentication" in err_msg.lower():
            await self._process_op_err(nats.errors.Error(err_msg.strip("'")))
        else:
            await super()._process_err(err_msg)

    async def _select_next_server(self) -> None:
        if self._transport is not None:  # of an attempt that was refused: the library forgets it
            self._transport.close()  # type: ignore[no-untyped-call] # the library has no types here
        await super()._select_next_server()


class Wire:
    """A connection that reconnects by itself for ever, once `open` has succeeded."""

    def __init__(self, credential: Credential, inbox_prefix: str) -> None:
        self.client: Client = _Client()
        self.last_error: Exception | None = None
        self._credential = credential
        self._inbox_prefix = inbox_prefix
        self._listeners: list[Callable[[bool], None]] = []
        self._acks: dict[str, asyncio.Future[int]] = {}
        self._ack_number = itertools.count(1)
        self._ack_inbox = ""

    async def open(self, urls: Sequence[str], name: str) -> None:
        await self.client.connect(
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
        self._ack_inbox = f"{self._inbox_prefix}.ack.{self.client._nuid.next().decode()}"
        await self.client.subscribe(f"{self._ack_inbox}.*", cb=self._on_ack)
        self._say(True)

    def renew(self, credential: Credential) -> None:
        """Used from the next reconnect on: the server cuts a connection when its JWT expires."""
        self._credential = credential

    @property
    def connected(self) -> bool:
        return self.client.is_connected

    def on_connection(self, call: Callable[[bool], None]) -> None:
        self._listeners.append(call)

    def off_connection(self, call: Callable[[bool], None]) -> None:
        self._listeners.remove(call)

    async def publish(self, subject: str, data: bytes, reply: str = "") -> None:
        try:
            await self.client.publish(subject, data, reply=reply)
        except nats.errors.Error as error:
            raise Unreachable(f"cannot publish to {subject}: {error!r}") from error

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
            await self.client.publish(
                subject, data, reply=f"{self._ack_inbox}.{number}", headers=headers
            )
            async with asyncio.timeout(timeout_s):
                return await acked
        except TimeoutError:
            raise Unreachable(f"no confirmation for {subject} within {timeout_s:g} s") from None
        except nats.errors.Error as error:
            raise Unreachable(f"cannot append to {subject}: {error!r}") from error
        finally:
            self._acks.pop(number, None)

    async def close(self) -> None:
        with suppress(Exception):
            if self.client.is_connected:
                async with asyncio.timeout(1):
                    await self.client.flush()
        with suppress(Exception):
            await self.client.close()
        for acked in self._acks.values():
            if not acked.done():
                acked.set_exception(Unreachable("the connection was closed"))

    async def api(self, call: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One call of the JetStream API; the answer as it is, errors included."""
        data = json.dumps(body).encode() if body is not None else b""
        answer: dict[str, Any] = json.loads((await self.ask(_API + call, data, 5.0)).data)
        return answer

    def new_inbox(self) -> str:
        return self.client.new_inbox()

    async def ask(self, subject: str, data: bytes, timeout_s: float) -> Msg:
        try:
            return await self.client.request(subject, data, timeout=timeout_s)
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
            acked.set_exception(_append_error(error))
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

    async def last_position(self, stream: str) -> int:
        answer = await self.api(f"STREAM.INFO.{stream}")
        if "error" in answer:
            raise BusError(f"stream {stream}: {answer['error'].get('description')}")
        return int(answer["state"]["last_seq"])

    async def last_value(self, bucket: str, key: str) -> Entry | None:
        msg = await self.ask(f"{_API}DIRECT.GET.KV_{bucket}.$KV.{bucket}.{key}", b"", 2.0)
        headers = msg.headers or {}
        if headers.get("Status") == "404":
            return None
        if "Nats-Sequence" not in headers:
            raise BusError(f"reading {key} of {bucket}: {headers.get('Description', headers)}")
        deleted = "KV-Operation" in headers
        return Entry(key, None if deleted else msg.data, int(headers["Nats-Sequence"]))


def _append_error(error: dict[str, Any]) -> BusError:
    kind = WrongRevision if error.get("err_code") in _WRONG_REVISION else Refused
    return kind(str(error.get("description")))

"""The link to the supervisor: a Unix socket and one thread.

The supervisor holds the credentials, ships what we record, has verified every order, and can stop
this process without our help. When it goes away the agent goes on, by its pact's `lost_contact`.
"""

import itertools
import os
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from checkrein.bus.pacts import Holding
from checkrein.sdk import quiet
from checkrein.sdk.asking import Question
from checkrein.sdk.links.contact import Contact
from checkrein.sdk.links.obedience import Obedience
from checkrein.sdk.links.questions import Questions
from checkrein.sdk.links.records import record_of
from checkrein.sdk.links.types import Process, nobody
from checkrein.sdk.local import (
    FRAME_BYTES_MAX,
    Began,
    Did,
    Ended,
    FromSupervisor,
    Hello,
    Holds,
    Instruct,
    Lease,
    Leased,
    Need,
    Pacts,
    Recalled,
    State,
    Told,
    Welcome,
)
from checkrein.sdk.rein import Ordered
from checkrein.sdk.run import Run

LOOK_S = 0.1
"""How often the states of the runs are looked at: they are told at most so often."""
RETRY_S = 0.5
OUTBOX_MAX = 10_000
LEASES_MAX = 100
"""Askings of the ledger under way; a process has one, or a few when answers are late."""

_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(FromSupervisor)


class SupervisorLink:
    """See `sdk.links.types.Link`."""

    def __init__(self, path: str, process: Process) -> None:
        self._path = path
        self._process = process
        self._obedience = Obedience(process.runs, self._report, process.config.run_id)
        self._contact = Contact(process.runs, process.world)
        self._outbox: deque[Any] = deque(maxlen=OUTBOX_MAX)
        self._told: dict[str, State] = {}
        self._told_holdings: list[Holding] = []
        self._questions = Questions(process.world)
        self._asked: dict[str, Question] = {}
        self._pacts: dict[str, str] = {}
        self._agents: set[str] = set()
        self._leases: dict[int, Callable[[bytes], None]] = {}
        self._numbers = itertools.count(1)
        self._settled = threading.Event()
        self._drained = threading.Event()
        self._met = False
        """Whether the supervisor has ever answered."""
        self._closing = False
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        os.set_blocking(self._wake_read, False)

    @property
    def connected(self) -> bool:
        return self._socket is not None

    def start(self) -> None:
        self._thread = threading.Thread(
            target=self._work, name="checkrein-supervisor-link", daemon=True
        )
        self._thread.start()

    def wait_settled(self, seconds: float) -> None:
        self._settled.wait(seconds)

    def pact_of(self, agent: str) -> str | None:
        return self._pacts.get(agent) or self._pacts.get("") or None

    def began(self, run: Run) -> None:
        if run.info.agent not in self._agents:
            self._agents.add(run.info.agent)
            self._send(Need(agents=[run.info.agent]))
        self._send(self._began(run))
        self._obedience.began(run)

    def ended(self, run: Run) -> None:
        self._obedience.gone(run)
        self._told.pop(run.run_id, None)
        self._send(Ended(run_id=run.run_id, status=run.ended_status, reason=run.ended_reason))

    def changed(self, run: Run) -> None:
        self._obedience.look(run)
        self._wake()

    def settled(self, run: Run) -> None:
        self._obedience.look(run)

    def ask(self, question: Question) -> None:
        if not self._met:
            question.told(nobody(question, "the supervisor does not answer"))
        elif self._questions.add(question):
            self._wake()
        else:
            question.told(nobody(question, "too many questions wait in this process already"))

    def unask(self, question: Question) -> None:
        self._questions.drop(question)
        self._wake()

    def lease(self, request: bytes, answered: Callable[[bytes], None]) -> bool:
        if not self.connected or len(self._leases) >= LEASES_MAX:
            return False
        number = next(self._numbers)
        self._leases[number] = answered
        self._send(Lease(number=number, request=request))
        return True

    def close(self, seconds: float) -> None:
        self._closing = True
        self._wake()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._drained.wait(seconds)
            self._thread.join(seconds)
            if not self._thread.is_alive():
                os.close(self._wake_read)
                os.close(self._wake_write)
                self._thread = None

    def _began(self, run: Run) -> Began:
        environment = self._process.config.environment
        return Began(run=record_of(run, environment), adopted=run.info.adopted)

    def _report(self, order: Ordered, run_id: str, stage: str, detail: str) -> None:
        self._send(
            Did(
                command_id=order.command_id, run_id=run_id, epoch=order.epoch, stage=stage,
                detail=detail,
            )
        )  # fmt: skip

    def _send(self, message: Any) -> None:
        self._outbox.append(message)
        self._wake()

    def _wake(self) -> None:
        with suppress(OSError):  # full: it is awake already; closed: nobody is there to wake
            os.write(self._wake_write, b"\0")

    # -- in the thread ------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._closing:
            try:
                self._converse()
            except OSError as error:
                quiet.warn_once(
                    "supervisor", "checkrein: no contact with the supervisor at %s: %s",
                    self._path, error,
                )  # fmt: skip
            except Exception as error:
                quiet.fault("the link to the supervisor", error)
            self._lost()
            if not self._closing:
                self._pause(RETRY_S)
        self._drained.set()

    def _lost(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._settled.set()
        self._contact.lost()
        for number in list(self._leases):
            self._leased(number, b"")

    def _leased(self, number: int, answer: bytes) -> None:
        answered = self._leases.pop(number, None)
        if answered is not None:
            answered(answer)

    def _pause(self, seconds: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_read, selectors.EVENT_READ)
            selector.select(seconds)
        self._swallow()
        self._contact.look()

    def _swallow(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    def _converse(self) -> None:
        with selectors.DefaultSelector() as selector:
            link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                link.settimeout(5)
                link.connect(self._path)
                self._greet(link)
                self._socket = link
            except BaseException:
                link.close()
                raise
            selector.register(link, selectors.EVENT_READ)
            selector.register(self._wake_read, selectors.EVENT_READ)
            reader = FrameReader()
            while True:
                ready = {key.fileobj for key, _ in selector.select(LOOK_S)}
                if self._wake_read in ready:
                    self._swallow()
                if link in ready:
                    data = link.recv(65536)
                    if not data:
                        return
                    for message in reader.feed(data):
                        self._hear(message)
                self._look_at_runs()
                self._look_at_pacts()
                self._look_at_questions()
                self._flush(link)
                if self._closing and not self._outbox:
                    return

    def _greet(self, link: socket.socket) -> None:
        """Says who we are and what runs here; on a reconnect, all of it again."""
        first: list[Any] = [Hello(pid=os.getpid(), recorder=self._process.recorder.id)]
        waiting = list(self._outbox)
        self._outbox.clear()
        if self._told:
            runs = list(self._process.runs.values())
            first += [self._began(run) for run in runs if not run.inherited]
        self._told.clear()
        self._told_holdings = []
        link.sendall(b"".join(frame(message) for message in first + waiting))

    def _flush(self, link: socket.socket) -> None:
        while self._outbox:
            link.sendall(frame(self._outbox.popleft()))

    def _hear(self, message: Any) -> None:
        match message:
            case Welcome():
                self._pacts = dict(message.pacts)
                self._process.lives_in(message.room, message.environment)
                for standing in message.standing:
                    self._instruct(standing)
                self._contact.back()
                self._met = True
                self._questions.nudge()
                self._settled.set()
            case Instruct():
                self._instruct(message)
            case Pacts():
                for pact_set in message.sets:
                    self._process.adopt(pact_set)
            case Told(answer=answer):
                question = self._asked.get(answer.claim)
                if question is not None:
                    question.told(answer)
                    self._questions.heard(question, answer.status == "unknown")
            case Leased(number=number, answer=answer):
                self._leased(number, answer)
            case Recalled(lines=lines):
                self._process.recalled(lines)
            case _:
                quiet.warn_once("heard", "checkrein: the supervisor said %r", type(message))

    def _instruct(self, instruct: Instruct) -> None:
        if instruct.verb in ("approve", "deny"):
            self._questions.nudge(str(instruct.arguments.get("approval_id", "")))
            return
        order = Ordered(
            command_id=instruct.command_id, verb=instruct.verb, epoch=instruct.epoch,
            reason=instruct.reason, issued_by=instruct.issued_by, arguments=instruct.arguments,
        )  # fmt: skip
        self._obedience.take(order, instruct.run_id)

    def _look_at_pacts(self) -> None:
        holdings = self._process.holdings()
        if holdings != self._told_holdings:
            self._told_holdings = holdings
            self._outbox.append(Holds(holdings=holdings))

    def _look_at_runs(self) -> None:
        for run in list(self._process.runs.values()):
            if run.inherited:
                continue
            state = State(
                run_id=run.run_id, status=run.status, step=run.step,
                in_flight=run.calls_in_flight(),
            )  # fmt: skip
            if self._told.get(run.run_id) != state:
                self._told[run.run_id] = state
                self._outbox.append(state)

    def _look_at_questions(self) -> None:
        """Asks what is due: at most so often as this link looks at all, ten times a second."""
        if not len(self._questions) and not self._asked:
            return
        due, left = self._questions.take()
        self._asked = {claim: one for claim, one in self._asked.items() if not one.done}
        for question in left:
            self._asked.pop(question.claim, None)
            message = question.message(left=True)
            if getattr(message, "left", False):
                self._outbox.append(message)
        for question in due:
            self._asked[question.claim] = question
            self._outbox.append(question.message())


def frame(message: Any) -> bytes:
    data = _ENCODER.encode(message)
    return len(data).to_bytes(4, "big") + data


class FrameReader:
    """Bytes of a stream in, messages out. Raises ValueError on a frame over the bound."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        self._buffer += data
        messages = []
        while len(self._buffer) >= 4:
            size = int.from_bytes(self._buffer[:4], "big")
            if size > FRAME_BYTES_MAX:
                raise ValueError(f"a frame of {size} bytes; at most {FRAME_BYTES_MAX}")
            if len(self._buffer) < 4 + size:
                break
            messages.append(_DECODER.decode(bytes(self._buffer[4 : 4 + size])))
            del self._buffer[: 4 + size]
        return messages

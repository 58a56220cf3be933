"""Watch under faults: envelopes come twice, late and out of order; watch is killed at any moment
and goes on from an old snapshot, or from none; what it publishes is refused, or stored without it
hearing so. `run(seed)` plays one such story and checks at the end:

    the signals in the stream are those that a watch without faults would have published;
    no signal stands in it twice, not even under another number;
    every runaway was asked to halt, under one command id.
"""

from itertools import pairwise
from random import Random

import msgspec

from checkrein.bus import subjects
from checkrein.bus.types import Message
from checkrein.detect.catalogue import detectors
from checkrein.detect.engine import Engine
from checkrein.detect.watcher import Watcher, envelope_of
from checkrein.events import codec
from checkrein.events.envelope import (
    CHAIN_START,
    Envelope,
    advance,
    lane_message_id,
    pack,
    partition_of,
    unpack,
)
from checkrein.events.types import Base, RunEnd, Signal
from checkrein.policy.pact import load
from tests.detect.loops import LOOPS, NOT_LOOPS, Made
from tests.detect.made import SECOND_NS, START_NS, Run

PACT = load(
    "pact: sim\nbudgets: {tool_calls: 12, wall: 10m}\n"
    "tools: {search_kb: , get_order: , get_shipment: , edit_file: , run_tests: , wire: }"
)
CALM_NS = START_NS + 100_000 * SECOND_NS


def run(seed: int) -> None:
    """Raises AssertionError, with the seed in its words, when a promise is broken."""
    story = Story(seed)
    try:
        story.play()
        story.check()
    except AssertionError as error:
        raise AssertionError(f"watch, seed {seed}: {error}") from error


class Stream:
    """The stream EVENTS: positions from 1, and the bus's own deduplication by message id, until its
    window has passed (`forget`)."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._known: dict[str, int] = {}

    def append(self, subject: str, data: bytes, message_id: str) -> int:
        if message_id not in self._known:
            self.messages.append(Message(subject, data, position=len(self.messages) + 1))
            self._known[message_id] = len(self.messages)
        return self._known[message_id]

    def forget(self) -> None:
        self._known.clear()


class Story:
    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self._runs = runs(random)
        self.stream = Stream()
        self.coming = envelopes(self._runs, random)
        self.saved = b""
        self.asked: dict[str, set[str]] = {}
        self.crashes = 0
        self.watcher = self._start()
        self.read = 0

    def _start(self) -> Watcher:
        """A new process: from the snapshot if there is one, else from the beginning."""
        watcher = Watcher(Engine(detectors(), lambda *about: PACT))
        if self.saved:
            watcher.restore(self.saved)
        watcher.catch_up_to = len(self.stream.messages)
        self.read = watcher.position
        return watcher

    def play(self) -> None:
        now_ns = START_NS
        while self.coming or self.read < len(self.stream.messages):
            now_ns += SECOND_NS // 50
            match self.random.random():
                case chance if chance < 0.45:
                    self._arrive()
                case chance if chance < 0.85:
                    self._take(now_ns)
                case chance if chance < 0.93:
                    self._send()
                case chance if chance < 0.96:
                    self.watcher.tick(now_ns)
                case chance if chance < 0.98:
                    self.saved = self.watcher.snapshot()
                case chance if chance < 0.985:
                    self.crashes += 1
                    if self.random.random() < 0.5:
                        self.stream.forget()
                    self.watcher = self._start()
                case chance if chance < 0.986:
                    self.saved = b""
        for later_s in (0, 3):
            self.watcher.tick(now_ns + later_s * SECOND_NS)
            self._settle(now_ns + later_s * SECOND_NS)

    def _settle(self, now_ns: int) -> None:
        while self.read < len(self.stream.messages) or self.watcher.outbox:
            self._take(now_ns)
            self._send(refused=0.0)
        self._ask()

    def _arrive(self) -> None:
        """An envelope reaches the stream: now and then before its forerunner, or once more."""
        if not self.coming:
            return
        index = 1 if len(self.coming) > 1 and self.random.random() < 0.1 else 0
        envelope = self.coming.pop(index)
        subject = subjects.events(envelope.agent, envelope.partition, envelope.recorder)
        self.stream.append(subject, pack(envelope), lane_message_id(envelope))
        if self.random.random() < 0.1:
            self.stream.append(subject, pack(envelope), f"again-{len(self.stream.messages)}")

    def _take(self, now_ns: int) -> None:
        for _ in range(self.random.randint(1, 5)):
            if self.read < len(self.stream.messages):
                self.watcher.take(self.stream.messages[self.read], now_ns)
                self.read += 1

    def _send(self, refused: float = 0.2) -> None:
        if self.watcher.catching_up:
            return
        for key, outgoing in list(self.watcher.outbox.items()):
            if self.random.random() < refused:
                continue
            self.stream.append(*envelope_of(outgoing))
            if self.random.random() >= refused:
                self.watcher.sent(key)
        if self.random.random() >= 4 * refused:
            self._ask()

    def _ask(self) -> None:
        if self.watcher.catching_up:
            return
        for run_id, request in list(self.watcher.asks.items()):
            self.asked.setdefault(run_id, set()).add(request.command_id)
            self.watcher.asked(run_id)

    def check(self) -> None:
        found = published(self.stream)
        ids = [signal.signal_id for signal in found]
        assert len(ids) == len(set(ids)), "a signal stands in the stream twice"
        wanted = self._without_faults()
        missing, extra = wanted - set(ids), set(ids) - wanted
        assert not missing, f"lost signals: {missing} after {self.crashes} crashes"
        assert not extra, f"signals of nothing: {extra} after {self.crashes} crashes"
        for run_id, commands in self.asked.items():
            assert len(commands) == 1, f"run {run_id} was asked to halt as {commands}"
        ended = {events[-1].run_id for events in self._runs if isinstance(events[-1], RunEnd)}
        runaway = {signal.run_id for signal in found if signal.runaway} - ended
        assert runaway <= self.asked.keys(), f"nobody asked to halt {runaway - self.asked.keys()}"

    def _without_faults(self) -> set[str]:
        watcher = Watcher(Engine(detectors(), lambda *about: PACT))
        for envelope in envelopes(self._runs, Random(0)):
            subject = subjects.events(envelope.agent, envelope.partition, envelope.recorder)
            watcher.take(Message(subject, pack(envelope), position=1), START_NS)
        return {key for key, outgoing in watcher.outbox.items() if "/" not in key and outgoing.seq}


def runs(random: Random) -> list[list[Base]]:
    """Some runs, most of which misbehave, as their events in order."""
    found = []
    for number in range(1, random.randint(3, 8)):
        run = Run(number, agent=f"agent-{number % 3}")
        events: list[Base] = [run.starts()]
        name = random.choice([*LOOPS, *NOT_LOOPS])
        made = {**LOOPS, **NOT_LOOPS}[name](random)
        for _, each in zip(range(random.randint(2, 20)), made, strict=False):
            events += run.calls(each)
        if random.random() < 0.5:
            for _ in range(2):
                events += run.calls(Made("wire", {"to": "x"}, "ok"), "irreversible")
        if random.random() < 0.3:
            events.append(run.refused("tools", "tools.pact", "delete"))
        if random.random() < 0.7:
            end: RunEnd = run.ends(random.choice(["completed", "lost", "unfinished"]))
            events.append(end)
        found.append(events)
    return found


def envelopes(of_runs: list[list[Base]], random: Random) -> list[Envelope]:
    """Their lanes (each run has its own recorder here), cut into envelopes and mixed."""
    lanes = []
    for events in of_runs:
        agent, partition = events[0].agent, partition_of(events[0].task_id)
        chain, prev, lane = CHAIN_START, 0, []
        cuts = sorted({0, len(events), *(random.randrange(len(events)) for _ in range(6))})
        for low, high in pairwise(cuts):
            raws = [msgspec.Raw(codec.encode(event)) for event in events[low:high]]
            for raw in raws:
                chain = advance(chain, raw)
            seqs = [event.seq for event in events[low:high]]
            lane.append(Envelope(events[0].recorder, agent, partition, prev, chain, seqs, raws))
            prev = seqs[-1]
        lanes.append(lane)
    mixed = []
    while any(lanes):
        lane = random.choice([each for each in lanes if each])
        mixed.append(lane.pop(0))
    return mixed


def published(stream: Stream) -> list[Signal]:
    """The signals in the stream, each with the number it was published under."""
    found: dict[tuple[str, int], Signal] = {}
    for message in stream.messages:
        envelope = unpack(message.data)
        if not envelope.recorder.startswith("role:"):
            continue
        for raw in envelope.events:
            event = codec.decode(raw)
            if isinstance(event, Signal):
                assert (event.recorder, event.seq) not in found, "one number, published twice"
                found[event.recorder, event.seq] = event
    return list(found.values())

"""A run's summary while its events are on their way: the same however they are split between the
store and the tail, in whatever order the recorders' envelopes come, whenever it is asked."""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.store.sample import START_NS, event

from checkrein.events.envelope import CHAIN_START, Envelope, as_raw
from checkrein.server.api.live import Live
from checkrein.server.api.tail import Tail
from checkrein.store.memory import MemoryStore
from checkrein.store.runs import RunSummary, fold
from checkrein.store.types import Row
from checkrein.world import SimWorld

RUN = "run-1"
RECORDERS = ("supervisor-1", "agent-1", "role:control")
OF = {
    "supervisor-1": ("run.start", "run.end"),
    "agent-1": ("step.start", "tool.invoked", "tool.returned", "model.response"),
    "role:control": ("status", "receipt", "command"),
}


def made(recorder: str, seq: int, choice: int) -> dict[str, Any]:
    kinds = OF[recorder]
    own = {"usd": 0.5} if choice % 2 else {"error": "boom"} if choice % 3 else {}
    return event(
        seq, kinds[choice % len(kinds)], recorder=recorder, agent="bot", run_id=RUN,
        ts=START_NS + 3 * seq + choice % 3, step=choice, input_tokens=choice, **own,
    )  # fmt: skip


class Bench:
    """The stream, what the store has of it, and an api that began somewhere."""

    def __init__(self, envelopes: list[Envelope], begins_at: int) -> None:
        self.envelopes, self.begins_at = envelopes, begins_at
        self.store = MemoryStore(SimWorld(1))
        self.tail, self.live = Tail(), Live()
        self.came = self.stored = self.confirmed = 0

    def store_one(self) -> None:
        if self.stored < self.came:
            envelope = self.envelopes[self.stored]
            self.store.write([Row(4, msgspec.msgpack.decode(raw)) for raw in envelope.events])
            self.stored += 1

    def confirm_one(self) -> None:
        if self.confirmed < self.stored:
            envelope = self.envelopes[self.confirmed]
            self.tail.stored("bot", envelope.recorder, {4: envelope.seqs[-1]})
            self.confirmed += 1

    def come(self) -> None:
        if self.came >= len(self.envelopes):
            return
        envelope = self.envelopes[self.came]
        self.came += 1
        if self.came > self.begins_at:
            self.live.feed(self.tail.take(self.came, "bot", envelope))
        else:  # before the api was there: it begins when this is stored
            self.store_one()
            self.confirm_one()

    def asked(self, between: Any) -> RunSummary | None:
        """As the routes ask: the tail, then the store, while things go on."""
        unstored = self.tail.of_run(RUN)
        between()
        rows = self.store.query("run", {"run_id": RUN})
        return self.live.summary(RUN, rows[0] if rows else None, unstored)

    def expected(self) -> RunSummary | None:
        summary = None
        for envelope in self.envelopes[: self.came]:
            for raw in envelope.events:
                summary = fold(summary, msgspec.msgpack.decode(raw))
        return summary


steps = st.lists(st.sampled_from(("come", "store", "confirm", "ask")), max_size=40)


@given(
    st.lists(st.tuples(st.sampled_from(RECORDERS), st.integers(1, 3), st.integers(0, 9)),
             min_size=1, max_size=12),
    st.integers(0, 6),
    steps,
)  # fmt: skip
@settings(max_examples=400)
def test_any_split_and_any_moment_gives_the_summary_of_all(
    parts: list[tuple[str, int, int]], begins_at: int, doing: list[str]
) -> None:
    envelopes, last = [], dict.fromkeys(RECORDERS, 0)
    for recorder, count, choice in parts:
        prev = last[recorder]
        seqs = list(range(prev + 1, prev + count + 1))
        last[recorder] = seqs[-1]
        raws = [as_raw(made(recorder, seq, choice + seq)) for seq in seqs]
        envelopes.append(Envelope(recorder, "bot", 4, prev, CHAIN_START, seqs, raws))
    bench = Bench(envelopes, begins_at)

    def store_and_confirm() -> None:
        bench.store_one()
        bench.confirm_one()

    acts = {"come": bench.come, "store": bench.store_one, "confirm": bench.confirm_one}
    for word in doing + ["come"] * len(envelopes) + ["ask", "store", "ask", "confirm", "ask"]:
        if word == "ask":
            assert bench.asked(store_and_confirm) == bench.expected()
        else:
            acts[word]()

"""Lanes as the archive sees them: what has come, what is missing, what was changed. Pure.

Every envelope of a lane names the last number before it (`prev`) and the chain hash after it. What
follows the lane's mark without a gap moves the mark; what lies beyond a gap waits as an *island*
(its events are stored all the same). A gap that is not filled within GRACE_NS, the time in which
the bus delivers again what an archive that died had not acknowledged, is loss. Events of a lost gap
that come later still are stored, and a `loss` with a negative count takes the number back.
"""

import hashlib
from collections.abc import Sequence
from typing import Literal

import msgspec

from checkrein.events.envelope import CHAIN_START, Envelope, advance

GRACE_NS = 30 * 10**9
ISLANDS_MAX = 64
LOST_RANGES_MAX = 64

LaneKey = tuple[str, str, int]
Place = tuple[str, str, str, str, int]
"""environment, room, run_id, task_id, step: where a `loss` event is put."""


class Island(msgspec.Struct):
    prev: int
    last: int
    chain: bytes
    since_ns: int
    place: Place


class Finding(msgspec.Struct, frozen=True):
    """Something to be told as a `loss` event about the numbers `first` to `last` of a lane."""

    kind: Literal["lost", "found", "changed"]
    key: LaneKey
    first: int
    last: int
    place: Place


class Lane(msgspec.Struct):
    """Up to `mark` all has come, up to `durable` it is stored too. `chain` empty: not known, the
    next envelope's is taken as it is."""

    mark: int = 0
    durable: int = 0
    chain: bytes = CHAIN_START
    islands: list[Island] = []
    lost: list[tuple[int, int]] = []

    def follow(self, key: LaneKey, envelope: Envelope, now_ns: int, place: Place) -> list[Finding]:
        """Takes in an envelope: moves the mark, or makes or grows an island."""
        findings = self._found_again(key, envelope, place)
        last = envelope.seqs[-1]
        if envelope.prev <= self.mark:
            if last > self.mark:
                if not _chain_holds(self.chain, self.mark, envelope):
                    findings.append(Finding("changed", key, self.mark + 1, last, place))
                self.mark, self.chain = last, envelope.chain
            self._join()
            return findings
        for island in self.islands:
            if island.prev <= envelope.prev <= island.last:
                if last > island.last:
                    if not _chain_holds(island.chain, island.last, envelope):
                        findings.append(Finding("changed", key, island.last + 1, last, place))
                    island.last, island.chain = last, envelope.chain
                return findings
        self.islands.append(Island(envelope.prev, last, envelope.chain, now_ns, place))
        self.islands.sort(key=lambda island: island.prev)
        if len(self.islands) > ISLANDS_MAX:
            findings.append(self._give_up(key))
        return findings

    def overdue(self, key: LaneKey, now_ns: int) -> list[Finding]:
        """The gaps whose time is up, as loss; the lane goes on behind them."""
        findings = []
        while self.islands and now_ns - self.islands[0].since_ns >= GRACE_NS:
            findings.append(self._give_up(key))
        return findings

    def _give_up(self, key: LaneKey) -> Finding:
        island = self.islands.pop(0)
        first, last = self.mark + 1, island.prev
        self.lost = [*self.lost, (first, last)][-LOST_RANGES_MAX:]
        self.mark, self.chain = max(self.mark, island.last), island.chain
        self._join()
        return Finding("lost", key, first, last, island.place)

    def _join(self) -> None:
        while self.islands and self.islands[0].prev <= self.mark:
            island = self.islands.pop(0)
            if island.last > self.mark:
                self.mark, self.chain = island.last, island.chain

    def _found_again(self, key: LaneKey, envelope: Envelope, place: Place) -> list[Finding]:
        findings = []
        for low, high in self.lost:
            inside = [seq for seq in envelope.seqs if low <= seq <= high]
            if inside:
                findings.append(Finding("found", key, inside[0], inside[-1], place))
        for finding in findings:
            self.lost = _without(self.lost, finding.first, finding.last)
        return findings


def _chain_holds(chain: bytes, known: int, envelope: Envelope) -> bool:
    if not chain or not envelope.chain:
        return True
    for seq, event in zip(envelope.seqs, envelope.events, strict=True):
        if seq > known:
            chain = advance(chain, event)
    return chain == envelope.chain


def _without(ranges: Sequence[tuple[int, int]], first: int, last: int) -> list[tuple[int, int]]:
    left = []
    for low, high in ranges:
        if high < first or low > last:
            left.append((low, high))
            continue
        if low < first:
            left.append((low, first - 1))
        if high > last:
            left.append((last + 1, high))
    return left


def loss_number(finding: Finding) -> int:
    """The number of a finding's event: always the same for the same finding, so that telling it
    again changes nothing."""
    agent, recorder, partition = finding.key
    text = f"{finding.kind}/{agent}/{recorder}/{partition}/{finding.first}-{finding.last}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % (2**62 - 1) + 1

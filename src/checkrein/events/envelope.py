"""Envelopes: how events leave a recorder.

A recorder numbers its events 1, 2, 3 … over all agents of its process. On the way out they are
sorted into *lanes*: one lane for each (recorder, agent, partition), because the bus lets a
credential publish for its own agent only and streams are partitioned by task. Within a lane every
envelope names the last number before it (`prev`) and the chain hash after it, so that whoever reads
the lane finds any gap or change. The chain covers each event's bytes, whatever the batching:
`chain = sha256(chain_before + event)`, starting from 32 zero bytes. It is empty where the shipper
cannot know it any more, because a crash of the machine has torn events out of the recorder.
"""

import hashlib
from typing import Any

import msgspec

PARTITIONS = 16
CHAIN_START = bytes(32)
BATCH_BYTES_MAX = 1024 * 1024


class Envelope(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Events of one lane, in order. `seqs[i]` is the number of `events[i]` (raw msgpack maps)."""

    recorder: str
    agent: str
    partition: int
    prev: int
    chain: bytes
    seqs: list[int]
    events: list[msgspec.Raw]
    version: int = 1


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Envelope)


class EnvelopeError(ValueError):
    """Bytes that are not an envelope, with the place and the reason."""


def pack(envelope: Envelope) -> bytes:
    return _ENCODER.encode(envelope)


def unpack(data: bytes) -> Envelope:
    """Raises EnvelopeError. The events inside stay undecoded."""
    try:
        envelope = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise EnvelopeError(f"not an envelope: {error}") from error
    if len(envelope.seqs) != len(envelope.events) or not envelope.seqs:
        raise EnvelopeError(
            f"envelope of {envelope.recorder!r}: {len(envelope.seqs)} numbers for "
            f"{len(envelope.events)} events"
        )
    return envelope


def advance(chain: bytes, event: bytes | msgspec.Raw) -> bytes:
    """The lane's chain hash after one more event."""
    return hashlib.sha256(chain + bytes(event)).digest()


def partition_of(task_id: str) -> int:
    """0 to 15: which worker sees this task. The first hex digit of a trace id is uniform enough."""
    try:
        return int(task_id[:1], 16)
    except ValueError:
        return sum(task_id.encode()) % PARTITIONS


def lane_message_id(envelope: Envelope) -> str:
    """The bus's deduplication id: the same events of a lane always carry the same one."""
    lane = f"{envelope.recorder}/{envelope.agent}/{envelope.partition}"
    return f"{lane}/{envelope.seqs[0]}-{envelope.seqs[-1]}"


def alone(recorder: str, agent: str, task_id: str, seq: int, event: bytes) -> Envelope:
    """One event of a role, which keeps no lanes: numbers from what it says, and no `prev`."""
    chain = advance(CHAIN_START, event)
    return Envelope(recorder, agent, partition_of(task_id), 0, chain, [seq], [msgspec.Raw(event)])


def as_raw(event: dict[str, Any]) -> msgspec.Raw:
    """For tests and tools: a plain map as an envelope's raw event."""
    return msgspec.Raw(_ENCODER.encode(event))

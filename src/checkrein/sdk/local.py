"""What an agent's process and its supervisor say to each other, over a Unix socket.

Under `checkrein run` the SDK holds no credential and no connection to a bus: it records into a ring
in the supervisor's folder, and speaks with the supervisor here. Frames are a 4-byte big-endian
length and a msgpack map with `type`. The environment names the places:

    CHECKREIN_SUPERVISOR     path of the socket
    CHECKREIN_RECORDERS      folder in which every process makes its recorder's folder
    CHECKREIN_RUN_ID         the run of the process as a whole; the first `checkrein.run` adopts it
    CHECKREIN_TASK_ID        its task
"""

from typing import Any

import msgspec

from checkrein.bus.approvals import Ask, Asked, Raise
from checkrein.bus.messages import RunRecord
from checkrein.bus.pacts import Holding, PactSet

FRAME_BYTES_MAX = 1024 * 1024


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    """agent -> supervisor, first."""

    pid: int
    recorder: str


class Began(msgspec.Struct, frozen=True, kw_only=True, tag="began"):
    """agent -> supervisor: a run began (or adopted the process's run)."""

    run: RunRecord
    adopted: bool = False


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    """agent -> supervisor: a run ended in an orderly way (its `run.end` is recorded)."""

    run_id: str
    status: str
    reason: str = ""


class State(msgspec.Struct, frozen=True, kw_only=True, tag="state"):
    """agent -> supervisor: a run's state, at most ten times a second and when it changes."""

    run_id: str
    status: str
    step: int = 0
    in_flight: list[dict[str, Any]] = []


class Did(msgspec.Struct, frozen=True, kw_only=True, tag="did"):
    """agent -> supervisor: what became of an instruction in the agent's own code."""

    command_id: str
    run_id: str
    epoch: int
    stage: str
    detail: str = ""


class Need(msgspec.Struct, frozen=True, kw_only=True, tag="need"):
    """agent -> supervisor: this process will also record for these agents."""

    agents: list[str]


class Lease(msgspec.Struct, frozen=True, kw_only=True, tag="lease"):
    """agent -> supervisor: a `bus.leases.LeaseRequest` for the ledger; `number` names the asking
    between the two."""

    number: int
    request: bytes


class Leased(msgspec.Struct, frozen=True, kw_only=True, tag="leased"):
    """supervisor -> agent: the ledger's answer; empty: there is none."""

    number: int
    answer: bytes = b""


class Recalled(msgspec.Struct, frozen=True, kw_only=True, tag="recalled"):
    """supervisor -> agents: somebody waits for what these lines hold."""

    lines: list[str]


class Instruct(msgspec.Struct, frozen=True, kw_only=True, tag="instruct"):
    """supervisor -> agent: an order, already verified. The SDK acts at its boundary: pause holds
    the next call, resume lets it go, halt raises `Halted` and cancels the run's outer task."""

    command_id: str
    verb: str
    run_id: str
    epoch: int
    reason: str = ""
    issued_by: str = ""
    arguments: dict[str, Any] = {}


class Welcome(msgspec.Struct, frozen=True, kw_only=True, tag="welcome"):
    """supervisor -> agent, the answer to Hello: pacts by agent (YAML text), and standing
    instructions of runs that were halted or paused before this process connected."""

    pacts: dict[str, str] = {}
    room: str = ""
    environment: str = ""
    standing: list[Instruct] = []


class Pacts(msgspec.Struct, frozen=True, kw_only=True, tag="pacts"):
    """supervisor -> agent: what the server has put in force for these agents, already verified.
    Comes before Welcome for those that stand, then with every change."""

    sets: list[PactSet]


class Holds(msgspec.Struct, frozen=True, kw_only=True, tag="holds"):
    """agent -> supervisor: which pact each agent of this process lives by, when that changes."""

    holdings: list[Holding]


class Told(msgspec.Struct, frozen=True, kw_only=True, tag="told"):
    """supervisor -> agent: what control answered to an `Ask` or a `Raise`, already verified."""

    answer: Asked


FromAgent = Hello | Began | Ended | State | Did | Need | Ask | Raise | Lease | Holds
FromSupervisor = Welcome | Instruct | Told | Leased | Recalled | Pacts

"""A run as it is registered and beaten for; an order as a run takes it."""

import os
import socket

from checkrein.bus.messages import BeatRun, Holder, Order, RunRecord
from checkrein.sdk.rein import Ordered
from checkrein.sdk.run import Run


def record_of(run: Run, environment: str, session: str = "", holder: Holder = "sdk") -> RunRecord:
    info = run.info
    return RunRecord(
        run_id=run.run_id, task_id=run.task_id, agent=info.agent, room=info.room,
        environment=environment, session=session, holder=holder,
        started_at=run.started_at, pid=os.getpid(), host=socket.gethostname(), goal=run.goal,
        task_type=info.task_type, parent_run_id=info.parent_run_id,
        level="L1" if holder == "gateway" else "L0",
    )  # fmt: skip


def beat_of(run: Run) -> BeatRun:
    return BeatRun(
        run_id=run.run_id, status=run.status, step=run.step, epoch=run.hold.rein.epoch,
        age_ms=round((run.world.monotonic_ns() - run.last_ns) / 1e6, 3),
        in_flight=run.calls_in_flight(),
        reason=run.ended_reason if run.ended else run.hold.rein.reason,
    )  # fmt: skip


def ordered_of(order: Order, epoch: int) -> Ordered:
    return Ordered(
        command_id=order.command_id, verb=order.verb, epoch=epoch, reason=order.reason,
        issued_by=order.issued_by, arguments=order.arguments,
    )  # fmt: skip

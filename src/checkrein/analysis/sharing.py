"""A backtest of recorded files by several processes, each with the runs whose id falls to it.

Every process reads all the lines and looks for the run's id at their beginning; only the lines of
its own runs are decoded. A line that does not begin with its id is decoded to find it.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec

from checkrein.analysis.backtest import Backtest, Comparing
from checkrein.analysis.reports import Comparison, Report, merged, merged_comparisons
from checkrein.analysis.schemas import schema_lookup
from checkrein.detect.recorded import lines_of, numbered_events_of
from checkrein.policy.flow.profile import Profile
from checkrein.policy.types import Pact

REJECTED_KEPT_MAX = 20
_EVERY = 2048
_ID_FIRST = re.compile(rb'\{\s*"run_id"\s*:\s*"([^"\\]+)"\s*[,}]')


class Job(msgspec.Struct, kw_only=True):
    """What to judge. `against`: the other pact, when two are compared. `agents` empty: all of them;
    `schemas` as `schemas.schema_lookup` takes them."""

    paths: list[str]
    pact: Pact
    against: Pact | None = None
    agents: list[str] = []
    schemas: dict[str, dict[str, Any]] = {}
    profiles: dict[str, Profile] = {}


class Rejected(msgspec.Struct):
    path: str
    line: int
    why: str


class Answer(msgspec.Struct, kw_only=True):
    """One process's part, or all parts together. Of `rejected` the first 20 are kept."""

    report: Report | None = None
    comparison: Comparison | None = None
    lines: int = 0
    rejected_count: int = 0
    rejected: list[Rejected] = []


Progress = Callable[[int], None]
"""Told how many lines have been judged so far."""


def run(job: Job, workers: int = 1, progress: Progress = lambda lines: None) -> Answer:
    """The whole job. Raises OSError or EOFError for a file that cannot be read, and
    BrokenProcessPool when a process is killed."""
    if workers <= 1:
        return judge_part(job, 0, 1, progress)
    context = get_context("spawn")
    counts = context.Array("q", workers, lock=False)
    raw = msgspec.msgpack.encode(job)
    with ProcessPoolExecutor(workers, context, _began, (counts,)) as pool:
        parts = [pool.submit(_in_process, raw, share, workers) for share in range(workers)]
        try:
            _follow(parts, lambda: progress(sum(counts)))
            answers = [msgspec.msgpack.decode(part.result(), type=Answer) for part in parts]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return together(answers)


def judge_part(job: Job, share: int, shares: int, progress: Progress) -> Answer:
    """The runs that fall to one of so many shares."""
    answer = Answer(rejected=[])
    work = work_of(job)
    for path in job.paths:

        def note(line: int, why: str, path: str = path) -> None:
            answer.rejected_count += 1
            if len(answer.rejected) < REJECTED_KEPT_MAX:
                answer.rejected.append(Rejected(path, line, why))

        def count(lines: Iterable[bytes]) -> Iterator[bytes]:
            for line in lines:
                if line:
                    answer.lines += 1
                    if answer.lines % _EVERY == 0:
                        progress(answer.lines)
                yield line

        lines = own_lines(lines_of(Path(path)), share, shares)
        for key, event in numbered_events_of(count(lines), rejected=note):
            work.see(key, event)
    progress(answer.lines)
    if isinstance(work, Comparing):
        answer.comparison = work.done()
    else:
        answer.report = work.done()
    return answer


def own_lines(lines: Iterable[bytes], share: int, shares: int) -> Iterator[bytes]:
    """The lines of one share, the others empty, so that lines keep their numbers."""
    if shares == 1:
        yield from lines
        return
    match = _ID_FIRST.match
    for line in lines:
        found = match(line)
        run_id = found[1] if found is not None else _id_of(line)
        yield line if crc32(run_id) % shares == share else b""


def _id_of(line: bytes) -> bytes:
    """Lines that are none fall to the first share, which tells of them."""
    try:
        return msgspec.json.decode(line, type=_Id).run_id.encode("utf-8", "replace")
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        pass
    try:
        fields = json.loads(line.decode("utf-8", "replace"))
        return str(fields["run_id"]).encode("utf-8", "replace")
    except (ValueError, LookupError, TypeError, RecursionError):
        return b""


class _Id(msgspec.Struct):
    run_id: str


def together(parts: Sequence[Answer]) -> Answer:
    """The answers of all shares, added up."""
    whole = Answer(
        lines=sum(part.lines for part in parts),
        rejected_count=sum(part.rejected_count for part in parts),
        rejected=sorted(
            (one for part in parts for one in part.rejected), key=lambda one: (one.path, one.line)
        )[:REJECTED_KEPT_MAX],
    )  # fmt: skip
    comparisons = [part.comparison for part in parts if part.comparison is not None]
    if comparisons:
        whole.comparison = merged_comparisons(comparisons)
    else:
        whole.report = merged(part.report for part in parts if part.report is not None)
    return whole


def work_of(job: Job) -> Backtest | Comparing:
    """What takes the events in, for whoever has them from elsewhere than files."""
    agents = frozenset(job.agents)
    lookup = schema_lookup(job.schemas)

    def one(pact: Pact) -> Backtest:
        return Backtest(
            pact, profile_of=job.profiles.get, schemas_of=lookup,
            only=lambda agent: not agents or agent in agents,
        )  # fmt: skip

    if job.against is None:
        return one(job.pact)
    return Comparing(one(job.against), one(job.pact))


_COUNTS: Any = None


def _began(counts: Any) -> None:
    global _COUNTS
    _COUNTS = counts


def _in_process(raw: bytes, share: int, shares: int) -> bytes:
    job = msgspec.msgpack.decode(raw, type=Job)

    def progress(lines: int) -> None:
        _COUNTS[share] = lines

    return msgspec.msgpack.encode(judge_part(job, share, shares, progress))


def _follow(parts: Sequence[Future[bytes]], tell: Callable[[], None]) -> None:
    """Until every part is done, or one has failed."""
    waiting = set(parts)
    while waiting:
        done, waiting = wait(waiting, timeout=0.25)
        for part in done:
            part.result()
        tell()

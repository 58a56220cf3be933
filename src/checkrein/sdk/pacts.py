"""The pacts of one process, agent by agent: which ones hold, and what is done when they change.

What holds for a new run, the first that there is:

    the server's set            pushed, or granted with the session; it changes for runs under way
    what the other end holds    a supervisor's `--pact` file
    CHECKREIN_PACT              the local file
    the server's last one       kept on disk, while the server is away; its age is said loudly
    the default                 any tool, no budget, the breaker for loops

A set that this version cannot read is refused whole: the one before stays, and the refusal is
logged, recorded in every run of the agent, and told to the server. A local file that cannot be read
denies everything and says why.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from checkrein.bus.pacts import Holding, PactSet
from checkrein.policy.pact import default_pact, load
from checkrein.policy.pact_chain import read_chain
from checkrein.policy.types import Pact
from checkrein.sdk import quiet
from checkrein.sdk.guard import Failed, Seat
from checkrein.sdk.kept_pacts import KeptPacts
from checkrein.sdk.run import Run
from checkrein.world import World

AGENTS_MAX = 10_000


class Adopted(msgspec.Struct, frozen=True):
    """A set with its texts read. `enforced` None: the server has none, only one to watch."""

    source: PactSet
    enforced: Pact | None
    shadow: Pact | None


class Pacts:
    """Safe from any thread."""

    def __init__(self, runs: Mapping[str, Run], world: World, kept: KeptPacts) -> None:
        self._runs, self._world, self._kept = runs, world, kept
        self._lock = threading.RLock()
        self._adopted: dict[str, Adopted] = {}
        self._errors: dict[str, str] = {}
        self._local: dict[str, Pact] = {}

    def forked(self) -> None:
        self._lock = threading.RLock()

    def adopt(self, pact_set: PactSet) -> str:
        """Puts a set in force for its agent, runs under way included; returns what went wrong, and
        then nothing has changed. An older one than is held changes nothing either."""
        agent = pact_set.agent
        try:
            fresh = _read(pact_set)
        except Exception as error:
            return self._refuse(pact_set, error)
        with self._lock:
            standing = self._adopted.get(agent)
            if standing is not None and standing.source.revision >= pact_set.revision:
                return ""
            if len(self._adopted) >= AGENTS_MAX and standing is None:
                return self._refuse(pact_set, ValueError(f"more than {AGENTS_MAX} agents here"))
            self._adopted[agent] = fresh
            self._errors.pop(agent, None)
            for run in list(self._runs.values()):
                if run.info.agent == agent:
                    self._swap(run, fresh)
        self._kept.keep(pact_set, self._world.now_ns())
        return ""

    def seat(
        self, agent: str, other_end: str | None, local: Callable[[], tuple[str, str]], away: bool,
        make_seat: Callable[[str, str], Seat], environment: str,
    ) -> Seat:  # fmt: skip
        """A guard for one new run. `other_end` is the text that a supervisor holds; `local()` gives
        (text, path) of the local file, "" when there is none, or raises. `away`: there is no
        contact with the server."""
        with self._lock:
            adopted = self._adopted.get(agent)
            if adopted is None and away and not other_end:
                adopted = self._last_known(agent, environment, local)
            if adopted is not None and adopted.enforced is not None:
                return _seat_of(adopted, adopted.enforced)
            seat = self._own(agent, other_end, local, make_seat)
            if adopted is not None:
                seat.adopt(seat.pact, adopted.shadow, adopted.source.revision)
            self._local[agent] = seat.pact
            return seat

    def catch_up(self, run: Run) -> None:
        """A run that has just begun: whatever came between its seat and its beginning."""
        with self._lock:
            adopted = self._adopted.get(run.info.agent)
            if adopted is not None and adopted.source.revision > run.seat.revision:
                self._swap(run, adopted)

    def holdings(self, agents: Iterable[str]) -> list[Holding]:
        """What this process enforces, for the server."""
        found = []
        for agent in agents:
            adopted = self._adopted.get(agent)
            pact = adopted.enforced if adopted is not None else None
            pact = pact or self._local.get(agent)
            shadow = adopted.shadow if adopted is not None else None
            found.append(
                Holding(
                    agent=agent, revision=adopted.source.revision if adopted is not None else 0,
                    enforced=pact.version if pact is not None else "",
                    shadow=shadow.version if shadow is not None else "",
                    error=self._errors.get(agent, ""),
                )
            )  # fmt: skip
        return found

    # -- inside -------------------------------------------------------------------------------

    def _own(
        self, agent: str, other_end: str | None, local: Callable[[], tuple[str, str]],
        make_seat: Callable[[str, str], Seat],
    ) -> Seat:  # fmt: skip
        if other_end:
            return make_seat(other_end, f"the server's pact of {agent}")
        try:
            text, path = local()
        except (OSError, ValueError) as error:
            quiet.fault("reading the local pact", error)
            return Seat(Failed("reading the local pact", error), Pact())
        return make_seat(text, path)

    def _last_known(
        self, agent: str, environment: str, local: Callable[[], tuple[str, str]]
    ) -> Adopted | None:
        """The server's last pact of an agent that has no other."""
        try:
            if local()[0]:
                return None
        except (OSError, ValueError):
            return None  # a file that is named and cannot be read: it is for `_own` to refuse
        found = self._kept.find(agent, environment)
        if found is None:
            return None
        pact_set, at_ns = found
        age_s = max(0, self._world.now_ns() - at_ns) / 1e9
        try:
            adopted = _read(pact_set)
        except Exception as error:
            quiet.fault(f"the kept pact of {agent}", error)
            return None
        quiet.LOG.warning(
            "checkrein: no contact with the server: %s begins under the last pact it was given "
            "(version %s, %s old); it may have been changed meanwhile",
            agent, pact_set.enforced_version or "default", _age(age_s),
        )  # fmt: skip
        self._adopted[agent] = adopted
        return adopted

    def _swap(self, run: Run, adopted: Adopted) -> None:
        before = run.seat.pact.version
        enforced = adopted.enforced or self._local.get(run.info.agent) or default_pact()
        source = adopted.source
        if not run.adopt(enforced, adopted.shadow, source.revision):
            said = f"version {enforced.version} is not adopted by this run, {before} stays"
            quiet.LOG.error("checkrein: run %s: %s", run.run_id, said)
            run.say_pact("pact.not_adopted", said, run.seat.pact)
            self._errors[run.info.agent] = said
            return
        if enforced.version != before:
            run.say_pact(
                "pact.adopted", f"version {enforced.version} takes the place of {before}, put in "
                f"force by {source.issued_by or 'the server'}", enforced,
            )  # fmt: skip

    def _refuse(self, pact_set: PactSet, error: Exception) -> str:
        agent = pact_set.agent
        held = self._adopted.get(agent)
        stays = held.source.enforced_version if held is not None else "its own or the default"
        said = f"{type(error).__name__}: {error}"[:2_000]
        self._errors[agent] = said
        quiet.LOG.error(
            "checkrein: version %s of the pact of %s is not adopted, %s stays in force: %s",
            pact_set.enforced_version, agent, stays, said,
        )  # fmt: skip
        for run in list(self._runs.values()):
            if run.info.agent == agent:
                why = f"version {pact_set.enforced_version} is not adopted: {said}"
                run.say_pact("pact.not_adopted", why, run.seat.pact)
        return said


def _read(pact_set: PactSet) -> Adopted:
    """Raises PactError for what this version cannot read."""
    name = f"the server's pact of {pact_set.agent}"

    def pact_of(texts: list[Any]) -> Pact | None:
        return read_chain([(each.name, each.text) for each in texts], name) if texts else None

    return Adopted(pact_set, pact_of(pact_set.enforced), pact_of(pact_set.shadow))


def _seat_of(adopted: Adopted, enforced: Pact) -> Seat:
    try:
        return Seat.of(enforced, adopted.shadow, adopted.source.revision)
    except Exception as error:
        quiet.fault("beginning under the server's pact", error)
        where = f"beginning under version {enforced.version}"
        return Seat(Failed(where, error), enforced, adopted.source.revision)


def _age(seconds: float) -> str:
    for size, word in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {word}"
    return f"{seconds:.0f} seconds"


def make_seat(text: str, source: str) -> Seat:
    """The guard of a pact, fresh for one run; of the default pact when the text is empty."""
    try:
        return Seat.of(load(text, source) if text.strip() else default_pact())
    except Exception as error:
        quiet.fault(f"pact {source}", error)
        return Seat(Failed(f"reading {source}", error), Pact())

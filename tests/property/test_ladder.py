"""Whatever comes in whatever order, the ladder keeps its promises."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from checkrein.supervise import happenings as h
from checkrein.supervise.holding import Limits
from checkrein.supervise.ladder import Ladder

MS = 1_000_000
RUNS = ["r1", "r2", "r3"]
MOVES = st.lists(
    st.one_of(
        st.tuples(
            st.just("order"),
            st.sampled_from(["halt", "pause", "resume", "inject"]),
            st.lists(st.sampled_from(RUNS), min_size=1, max_size=3, unique=True),
        ),
        st.tuples(st.just("did"), st.sampled_from(RUNS), st.sampled_from(
            ["fence", "held", "resumed", "obeyed", "failed", "refused", "nonsense"])),
        st.tuples(st.just("ended"), st.sampled_from(RUNS)),
        st.tuples(st.just("flight"), st.sampled_from(RUNS), st.integers(0, 2)),
        st.tuples(st.just("sdk"), st.integers(0, 1)),
        st.tuples(st.just("look"), st.booleans()),
        st.tuples(st.just("died")),
        st.tuples(st.just("wait"), st.integers(1, 40_000)),
    ),
    max_size=40,
)  # fmt: skip


@dataclass
class World:
    """The tree as a kernel would have it, and what may never be seen of it."""

    ladder: Ladder = field(default_factory=lambda: Ladder(Limits()))
    now_ns: int = 0
    frozen: bool = False
    alive: bool = True
    pending: list[str] = field(default_factory=list)
    commands: list[tuple[str, str]] = field(default_factory=list)
    over: set[str] = field(default_factory=set)
    calls: dict[str, int] = field(default_factory=dict)
    killed: bool = False
    reports: list[h.Report] = field(default_factory=list)

    def feed(self, happened: h.Happened) -> None:
        for act in self.ladder.step(self.now_ns, happened):
            self.do(act)

    def do(self, act: h.Act) -> None:
        match act:
            case h.Freeze():
                self.frozen = True
                self.pending.append("freeze")
            case h.Thaw():
                assert not self.killed, "let go after the kill"
                if self.ladder.halting and not self.ladder.parking:
                    busy = [run for run in RUNS if self.calls.get(run) and run not in self.over]
                    assert not busy, "let go with a call in flight, after the halt was confirmed"
                self.frozen = False
            case h.Kill():
                self.killed = True
                self.pending.append("kill")
            case h.Capture():
                self.pending.append("capture")
            case h.Report():
                assert act.ms >= 0
                if act.confirmed and act.stage == "freeze":
                    assert self.frozen, "confirmed, but it runs"
                if act.stage == "kill":
                    assert not self.alive, "confirmed, but it lives"
                self.reports.append(act)
            case _:
                pass

    def look(self, ok: bool) -> None:
        if not self.pending:
            return
        what = self.pending.pop(0)
        if what == "freeze":
            self.feed(h.Froze(ok and self.frozen))
        elif what == "capture":
            self.feed(h.Captured({"processes": 1}))
        else:
            self.alive = self.alive and not ok
            if not self.alive and not self.ladder.dead:
                self.feed(h.Died())
            self.feed(h.Killed(() if not self.alive else (7,)))

    def wait(self, ms: int) -> None:
        until_ns = self.now_ns + ms * MS
        for _ in range(1_000):
            at = self.ladder.wake_at_ns
            if at is None or at > until_ns:
                break
            self.now_ns = max(self.now_ns, at)
            self.feed(h.Tick())
        self.now_ns = until_ns


def play(moves: list[tuple[object, ...]]) -> World:
    world = World()
    for run in RUNS:
        world.feed(h.RunBegan(run))
    for number, move in enumerate(moves, start=1):
        world.now_ns += MS
        match move:
            case ("order", str(verb), list(runs)):
                command = f"c{number}"
                world.commands.append((command, verb))
                world.feed(h.Ordered(command, verb, tuple((run, number) for run in runs), "why"))
            case ("did", str(run), str(stage)):
                command = world.commands[-1][0] if world.commands else "c0"
                if not world.frozen:
                    world.feed(h.SdkDid(command, run, stage))
            case ("ended", str(run)):
                if not world.frozen:
                    world.over.add(run)
                    world.feed(h.RunEnded(run))
            case ("flight", str(run), int(calls)):
                world.calls[run] = calls
                world.feed(h.InFlight(run, calls))
            case ("sdk", int(connected)):
                world.feed(h.SdkChanged(connected))
            case ("look", bool(ok)):
                world.look(ok)
            case ("died", *_):
                if world.alive:
                    world.alive = False
                    world.feed(h.Died())
            case ("wait", int(ms)):
                world.wait(ms)
            case _:
                raise AssertionError(move)
    return world


@settings(max_examples=300, deadline=None)
@given(MOVES)
def test_every_promise_holds_at_every_step(moves: list[tuple[object, ...]]) -> None:
    play(moves)


@settings(max_examples=300, deadline=None)
@given(MOVES)
def test_once_the_faults_stop_it_comes_to_rest(moves: list[tuple[object, ...]]) -> None:
    """Liveness: with a kernel that answers and a clock that goes on, every halt ends confirmed and
    no tree stays frozen past its lease."""
    world = play(moves)
    for _ in range(200):
        while world.pending:
            world.look(ok=True)
        if world.ladder.wake_at_ns is None:
            break
        world.wait(70_000)
    assert world.ladder.wake_at_ns is None
    assert not world.pending
    halts = {command for command, verb in world.commands if verb == "halt"}
    for command in halts:
        mine = [r for r in world.reports if r.command_id == command]
        ended = {r.run_id for r in mine if r.stage in ("obeyed", "refused")}
        assert {r.run_id for r in mine} == ended, "a halt without an answer"
    if world.alive and not world.ladder.halting:
        assert not world.frozen, "frozen for ever"

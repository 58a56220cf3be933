"""Shared budgets under faults: askings, answers and recalls are lost, doubled, late and out of
order; processes die with what they hold; control dies before, while and after it writes, and at
times two of them are up at once. `run(seed)` plays one such story and checks, all the way:

    what all processes, the dead ones too, have reserved and used together is never more than the
    limit (and what was added to it), but for what calls cost over their reservations;
    what is written down as charged is never less than that;

and, once the faults have stopped:

    what nobody holds any more can be spent to the last unit, but for what died with a process.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from checkrein.bus.leases import LeaseAnswer, LeaseRequest, LedgerRequest, account_key
from checkrein.bus.messages import decode, encode
from checkrein.control.ledger import Kept, Ledger
from checkrein.policy.accounts import Account, Amounts, Bound, Grant
from checkrein.policy.ledger import Purse
from checkrein.world import SimWorld
from tests.sim.network import Faults, Network

STORY_S = 20.0
CALM_S = 75.0
ACCOUNTS = (
    Account("hour", "sim", "bot", "2026-11-21T06"),
    Account("room", "sim", "desk", "2026-11-21"),
)


def run(seed: int) -> None:
    """Raises AssertionError, with the seed in its words, when a promise is broken."""
    story = Story(seed)
    try:
        story.play()
    except AssertionError as error:
        raise AssertionError(f"budgets, seed {seed}: {error}") from error


class Disk:
    """The bucket: compare-and-set, durable at once, though its answer may be lost."""

    def __init__(self) -> None:
        self.values: dict[str, tuple[int, bytes]] = {}

    def update(self, key: str, revision: int, value: bytes) -> int | None:
        standing = self.values.get(key, (0, b""))[0]
        if standing != revision:
            return None
        self.values[key] = (standing + 1, value)
        return standing + 1


class Control:
    """What `server.ledger` does, on virtual time: answers what is written down."""

    def __init__(self, story: "Story") -> None:
        self.story, self.world = story, story.world
        self.name = story.world.nonce()
        self.ledger = Ledger(self.name)
        self.revisions: dict[str, int] = {}
        self.taken_over: dict[str, int] = {}
        self.alive = True
        for key, (revision, value) in story.disk.values.items():
            self.ledger.restore(key, decode(value, Kept), self.world.monotonic_ns())
            self.revisions[key] = revision
        self.world.call_later(5.0, self.sweep)

    def sweep(self) -> None:
        if self.alive:
            changed, _ = self.ledger.sweep(self.world.monotonic_ns(), self.world.now_ns())
            for key in changed:
                self.write(key)
            self.world.call_later(5.0, self.sweep)

    def hear(self, worker: "Worker", data: bytes) -> None:
        if not self.alive:
            return
        request = decode(data, LeaseRequest)
        now_ns, at = self.world.monotonic_ns(), self.world.now_ns()
        taken = self.ledger.take(worker.purse.id, request.number, request.claims, now_ns, at)
        answer = LeaseAnswer(purse=request.purse, number=request.number, grants=taken.grants)
        before = {key: self.taken_over.get(key, 0) for key in sorted(taken.keys)}
        self.later(lambda: self.finish(worker, encode(answer), before))
        for holder, lines in taken.recalls.items():
            other = self.story.workers.get(holder)
            if other is not None:
                self.story.network.send(lambda o=other, found=lines: o.recalled(found))  # type: ignore[misc] # bound at once

    def raise_by(self, request: LedgerRequest) -> None:
        state, changed = self.ledger.raise_by(
            request, self.world.monotonic_ns(), self.world.now_ns()
        )
        assert not state.error
        if changed:
            self.write(account_key(request.account))

    def later(self, act: Callable[[], None]) -> None:
        """Writing takes its time; control may die meanwhile."""
        self.world.call_later(self.world.chance.random() * self.story.write_s, act)

    def finish(self, worker: "Worker", answer: bytes, before: dict[str, int]) -> None:
        """`before`: how often each account had been taken over when the answer was thought of."""
        if not self.alive:
            return
        written = [self.write(key) for key in before]
        holds = all(self.taken_over.get(key, 0) == count for key, count in before.items())
        if not all(written) or not holds:
            answer = encode(LeaseAnswer(error="ask again"))
        if self.alive:
            self.story.network.send(lambda: worker.hear(answer))

    def write(self, key: str) -> bool:
        kept = self.ledger.saved(key)
        assert kept is not None
        written = self.story.disk.update(key, self.revisions.get(key, 0), encode(kept))
        if written is None:
            revision, value = self.story.disk.values[key]
            standing = decode(value, Kept)
            self.revisions[key] = revision
            if standing.writer == self.name:
                return self.write(key)
            self.ledger.restore(key, standing, self.world.monotonic_ns())
            self.taken_over[key] = self.taken_over.get(key, 0) + 1
            return False
        if self.world.random() < 0.05:
            return self.write(key)  # it did not hear that it was written: again, and it conflicts
        self.revisions[key] = written
        if self.world.random() < self.story.crash_after_write:
            self.alive = False
        return True


@dataclass
class Call:
    call_id: str
    amounts: Amounts
    done_ns: int


class Worker:
    """A process with a purse: what `sdk.purse` does, on virtual time."""

    def __init__(self, story: "Story", name: str) -> None:
        self.story, self.world, self.name = story, story.world, name
        self.purse = Purse(name)
        self.alive, self.idle = True, False
        self.calls: dict[str, Call] = {}
        self.used = [0, 0, 0]
        self.made = self.over = 0
        self.asked_ns: int | None = None
        self.refused: Grant | None = None
        self.world.call_later(0.01, self.act)
        self.world.call_later(10.0, self.tick)

    def tick(self) -> None:
        if self.alive:
            self.purse.tidy(self.world.monotonic_ns())
            self.ask(every=True)
            self.world.call_later(10.0, self.tick)

    def act(self) -> None:
        if not self.alive:
            return
        self.end_some()
        if not self.idle:
            self.begin()
        if self.purse.wants_asking:
            self.ask()
        pause_s = 1.0 if self.idle and not self.calls else 0.1
        self.world.call_later(0.005 + self.world.chance.random() * pause_s, self.act)

    def begin(self) -> None:
        chance = self.world.chance
        self.made += 1
        amounts = Amounts(1, chance.choice([10, 40, 200]), 0)
        call_id = f"{self.name}/{self.made}"
        bounds = self.story.bounds[: 1 + self.made % 2]
        now_ns = self.world.monotonic_ns()
        if self.purse.reserve(call_id, bounds, amounts, now_ns) is None:
            lasts_ns = round(chance.random() * self.story.call_s * 1e9)
            self.calls[call_id] = Call(call_id, amounts, now_ns + lasts_ns)
            self.story.took(self, bounds, amounts)
        elif chance.random() < 0.2:
            self.purse.given_up(bounds)

    def end_some(self) -> None:
        now_ns, chance = self.world.monotonic_ns(), self.world.chance
        for call in [one for one in self.calls.values() if one.done_ns <= now_ns]:
            del self.calls[call.call_id]
            tokens: int | None = chance.randint(0, call.amounts.tokens)
            if chance.random() < self.story.dearer:
                tokens = call.amounts.tokens + 30
            elif chance.random() < 0.1:
                tokens = None
            self.purse.settle(call.call_id, (1, tokens, 0))
            self.story.settled(self, call, call.amounts.tokens if tokens is None else tokens)

    def ask(self, every: bool = False) -> None:
        now_ns = self.world.monotonic_ns()
        if self.asked_ns is not None and now_ns - self.asked_ns < 2e9:
            return
        number, claims = self.purse.claims(every)
        if not claims:
            return
        self.asked_ns = now_ns
        data = encode(LeaseRequest(purse=self.purse.id, number=number, claims=claims))
        for control in self.story.controls:
            self.story.network.send(lambda one=control: one.hear(self, data))  # type: ignore[misc] # bound at once

    def hear(self, data: bytes) -> None:
        if not self.alive:
            return
        answer = decode(data, LeaseAnswer)
        self.asked_ns = None
        if answer.error:
            self.purse.unheard()
        else:
            self.purse.hear(answer.grants)

    def recalled(self, lines: list[str]) -> None:
        if self.alive:
            self.purse.recall(lines)

    def die(self) -> None:
        """Killed: what it holds is held for ever; what is under way may have been spent."""
        self.alive = False

    def leave(self) -> None:
        """Ends in good order."""
        self.purse.close()
        for call in list(self.calls.values()):
            self.story.settled(self, call, call.amounts.tokens)
        self.calls.clear()
        self.idle = True


@dataclass
class Sums:
    """What was taken from an account in truth: reserved and used, by everybody ever."""

    reserved: list[int] = field(default_factory=lambda: [0, 0, 0])
    used: list[int] = field(default_factory=lambda: [0, 0, 0])
    dearer: list[int] = field(default_factory=lambda: [0, 0, 0])
    raised: list[int] = field(default_factory=lambda: [0, 0, 0])


class Story:
    def __init__(self, seed: int) -> None:
        self.world = world = SimWorld(seed)
        self.chance = chance = world.chance
        self.network = Network(world, Faults(
            lose=chance.choice([0, 0.05, 0.3]), repeat=chance.choice([0, 0.2]),
            delay_s_max=chance.choice([0.005, 0.2]), late=chance.choice([0, 0.1]),
        ))  # fmt: skip
        self.write_s = chance.choice([0.002, 0.1])
        self.call_s = chance.choice([0.05, 3.0])
        self.dearer = chance.choice([0.0, 0.0, 0.1])
        self.crash_after_write = chance.choice([0.0, 0.002])
        self.disk = Disk()
        limit = chance.choice([50, 500, 3_000])
        self.bounds = (
            Bound(ACCOUNTS[0], (limit, None, None)),
            Bound(ACCOUNTS[1], (None, limit * 40, None)),
        )
        self.sums = {account: Sums() for account in ACCOUNTS}
        self.of_call: dict[str, tuple[Bound, ...]] = {}
        self.controls: list[Control] = []
        self.workers: dict[str, Worker] = {}
        self.raises = 0

    def play(self) -> None:
        self.controls.append(Control(self))
        for _ in range(self.chance.randint(1, 8)):
            self.new_worker()
        misfortune = self.chance.choice([0.0, 0.02, 0.1])
        while self.world.monotonic_ns() < STORY_S * 1e9:
            self.world.run_until(self.world.monotonic_ns() + 100_000_000)
            if self.chance.random() < misfortune:
                self.happen()
            if not any(control.alive for control in self.controls) and self.chance.random() < 0.2:
                self.controls = [Control(self)]
            self.check()
        self.calm()

    def happen(self) -> None:
        acts = {
            self.new_worker: 3, self.worker_dies: 2, self.worker_leaves: 2, self.worker_rests: 3,
            self.control_dies: 3, self.two_controls: 1, self.somebody_raises: 1,
        }  # fmt: skip
        (act,) = self.chance.choices(list(acts), list(acts.values()))
        act()

    def new_worker(self) -> None:
        if len(self.workers) < 24:
            worker = Worker(self, f"w{len(self.workers)}")
            self.workers[worker.name] = worker

    def living(self) -> Worker | None:
        alive = [worker for worker in self.workers.values() if worker.alive]
        return self.chance.choice(alive) if alive else None

    def worker_dies(self) -> None:
        if worker := self.living():
            worker.die()

    def worker_leaves(self) -> None:
        if worker := self.living():
            worker.leave()

    def worker_rests(self) -> None:
        if worker := self.living():
            worker.idle = not worker.idle

    def control_dies(self) -> None:
        for control in self.controls:
            control.alive = False

    def two_controls(self) -> None:
        """An old one is still up beside the new: none of the two may lend what the other lent."""
        self.controls = [*self.controls[-1:], Control(self)]

    def somebody_raises(self) -> None:
        control = self.controls[-1]
        if not control.alive or len(self.controls) > 1:
            return
        self.raises += 1
        amount = Amounts(self.chance.randint(1, 50), self.chance.randint(1, 2000), 0)
        request = LedgerRequest(
            account=self.chance.choice(ACCOUNTS), raise_id=f"r{self.raises}", amount=amount
        )
        for measure in range(3):
            self.sums[request.account].raised[measure] += amount[measure]
        control.raise_by(request)

    def took(self, worker: Worker, bounds: tuple[Bound, ...], amounts: Amounts) -> None:
        self.of_call[next(reversed(worker.calls))] = bounds
        for bound in bounds:
            for measure in range(3):
                self.sums[bound.account].reserved[measure] += amounts[measure]

    def settled(self, worker: Worker, call: Call, tokens: int) -> None:
        cost = (1, tokens, 0)
        for bound in self.of_call.pop(call.call_id):
            sums = self.sums[bound.account]
            for measure in range(3):
                sums.reserved[measure] -= call.amounts[measure]
                sums.used[measure] += cost[measure]
                sums.dearer[measure] += max(0, cost[measure] - call.amounts[measure])

    def check(self) -> None:
        for bound in self.bounds:
            sums = self.sums[bound.account]
            for measure, limit in enumerate(bound.ceiling):
                if limit is None:
                    continue
                taken = sums.reserved[measure] + sums.used[measure]
                most = limit + sums.raised[measure] + sums.dearer[measure]
                assert taken <= most, (
                    f"{bound.account}: {taken} reserved and used, {most} is the most"
                )
        self.check_written()

    def check_written(self) -> None:
        """Charged is what was leased, dead or alive."""
        for bound in self.bounds:
            value = self.disk.values.get(account_key(bound.account))
            if value is None:
                continue
            kept = decode(value[1], Kept)
            for measure, limit in enumerate(bound.ceiling):
                if limit is None:
                    continue
                charged = kept.closed_used[measure] + sum(
                    line.granted[measure] - line.returned[measure] for line in kept.lines.values()
                )
                sums = self.sums[bound.account]
                most = limit + sums.raised[measure] + sums.dearer[measure]
                assert charged <= most, f"{bound.account}: {charged} charged, {most} is the most"

    def calm(self) -> None:
        """No more faults; the living spend what there is."""
        self.network.faults = Faults()
        self.crash_after_write = 0.0
        self.dearer = 0.0
        if not any(control.alive for control in self.controls):
            self.controls = [Control(self)]
        self.controls = [control for control in self.controls if control.alive][-1:]
        for worker in self.workers.values():
            worker.idle = True
        self.world.run_until(self.world.monotonic_ns() + round(CALM_S * 1e9))
        self.check()
        last = Worker(self, "last")
        self.workers["last"] = last
        last.idle = True
        self.spend_all(last)
        self.check()
        for bound in self.bounds:
            self.check_whole(bound)

    def spend_all(self, last: Worker) -> None:
        """One unit after the other, so that no rest is too small."""
        for bound in self.bounds:
            measure = next(m for m, limit in enumerate(bound.ceiling) if limit is not None)
            refusals = number = 0
            while refusals < 20:
                size = 1 if refusals else 64
                amounts = Amounts(*(size if m == measure else 0 for m in range(3)))
                number += 1
                call_id = f"last/{measure}/{number}"
                now_ns = self.world.monotonic_ns()
                if last.purse.reserve(call_id, (bound,), amounts, now_ns) is None:
                    last.purse.settle(call_id, amounts)
                    self.sums[bound.account].used[measure] += amounts[measure]
                    refusals = 0
                    continue
                refusals += 1
                if last.purse.wants_asking:
                    last.ask()
                self.world.run_until(now_ns + 100_000_000)

    def check_whole(self, bound: Bound) -> None:
        kept = decode(self.disk.values[account_key(bound.account)][1], Kept)
        sums = self.sums[bound.account]
        dead = [line for line in kept.lines.values() if line.lapsed]
        for measure, limit in enumerate(bound.ceiling):
            if limit is None:
                continue
            died = sum(line.granted[measure] - line.returned[measure] for line in dead)
            held = sum(
                line.granted[measure] - line.returned[measure] - line.used[measure]
                for line in kept.lines.values() if not line.lapsed
            )  # fmt: skip
            left = limit + sums.raised[measure] - kept.closed_used[measure] - died - sum(
                line.granted[measure] - line.returned[measure]
                for line in kept.lines.values() if not line.lapsed
            )  # fmt: skip
            assert left <= 0, f"{bound.account}: {left} are left, and nobody gets them"
            assert held <= 64 or measure == 1, f"{bound.account}: {held} are held by the living"

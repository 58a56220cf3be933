"""From the agent's thread to the store: recorders, a shipper, a bus, an archive; any of them dies,
the network loses, delays, repeats and reorders, the clock steps, rings fill, disks fill.

Promises checked: every event that `record` numbered is in the store, or counted by a `loss` event
that names its number, and never both; nothing is stored twice or altered; lanes arrive in order
without gaps; and when the faults are over, everything is confirmed and given back.
"""

import errno
import os
import shutil
import tempfile
from pathlib import Path

from checkrein.bus import subjects
from checkrein.events import codec
from checkrein.events.types import Heartbeat, Output, ToolReturned
from checkrein.sdk.lane import Send
from checkrein.sdk.lanes import ShipperCore
from checkrein.sdk.layout import read_meta
from checkrein.sdk.place import Place
from checkrein.sdk.reader import RingReader
from checkrein.sdk.recorder import Recorder
from checkrein.world import SimWorld
from tests.sim.network import Archive, Faults, Network, Stream

_TICK_S = 0.02
_ROOT = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def run(seed: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="checkrein-sim-", dir=_ROOT))
    try:
        system = System(SimWorld(seed), folder)
        try:
            system.faulty(seconds=system.world.chance.uniform(2, 15))
            system.heal()
            system.check()
        finally:
            system.close()
    finally:
        shutil.rmtree(folder)


class Agent:
    """A process that records. It remembers what it was told: number and content."""

    def __init__(self, world: SimWorld, folder: Path, disk_full: list[bool]) -> None:
        chance = world.chance

        def allocate(file: int, offset: int, size: int) -> None:
            if disk_full[0]:
                raise OSError(errno.ENOSPC, "No space left on device")
            os.ftruncate(file, offset + size)

        segment = chance.choice([4096, 8192, 16384])
        self.recorder = Recorder(
            folder, world, agent="agent-0", keeper=False, segment_bytes=segment,
            bytes_max=segment * chance.choice([3, 8, 40]), allocate=allocate,
        )  # fmt: skip
        self.places = [
            Place("sim", "room", f"agent-{number % 2}", world.uuid7(), world.trace_id())
            for number in range(chance.randint(1, 4))
        ]
        self.told: dict[int, str] = {}
        self.alive = True
        self.world = world

    def act(self) -> None:
        chance = self.world.chance
        for _ in range(chance.choice([1, 1, 2, 5, 20])):
            content = f"{chance.getrandbits(64):x}" * chance.choice([1, 1, 10, 60])
            place = chance.choice(self.places)
            kind = chance.choice([Output, ToolReturned, Heartbeat])
            if kind is Output:
                seq = self.recorder.record(Output, place, 1, content=content, format=content[:16])
            elif kind is ToolReturned:
                seq = self.recorder.record(
                    ToolReturned, place, 1, call_id=content[:16], tool="t", result=content
                )
            else:
                seq = self.recorder.record(Heartbeat, place, 1)
                content = ""
            self.told[seq] = content[:16]


class Shipping:
    """What the shipper's driver does for one recorder, on virtual time."""

    def __init__(self, system: "System", agent: Agent) -> None:
        self.system = system
        self.agent = agent
        self.reader = RingReader(agent.recorder.directory)
        cursor = self.reader.cursor
        self.core = ShipperCore(
            agent.recorder.id, agent="agent-0", upto=cursor.upto, state=cursor.state
        )
        self.alive = True
        self.recovered = False
        self.done = False

    def tick(self) -> None:
        now_ns = self.system.world.monotonic_ns()
        chance = self.system.world.chance
        if not self.agent.alive and not self.recovered:
            self.recovered = True
            self.reader.recover()
        records = self.reader.read(self.core.read_after, min(self.core.wants_bytes, 20_000))
        self.core.take(records, now_ns)
        for send in self.core.due(now_ns, hurry=chance.random() < 0.05):
            self.send(send)
        if chance.random() < 0.1:
            upto, state = self.core.cursor()
            self.reader.confirm(upto, state)
        if chance.random() < 0.02:
            for agent in self.core.agents:
                self.ask(agent)
        self.done = self.recovered and not records and self.core.all_safe

    def send(self, send: Send) -> None:
        network, world = self.system.network, self.system.world

        def arrive() -> None:
            if self.system.stream.append(send.message_id, send.data):
                network.send(answer)
            elif world.chance.random() < 0.5:
                network.send(fail)

        def answer() -> None:
            if self.alive:
                self.core.acked(send.message_id, world.monotonic_ns())

        def fail() -> None:
            if self.alive:
                self.core.failed(send.message_id, world.monotonic_ns())

        assert subjects.agent_of(send.subject) in ("agent-0", "agent-1")
        network.send(arrive)

    def ask(self, agent: str) -> None:
        network = self.system.network

        def arrive() -> None:
            if self.system.archive.up:
                upto = self.system.archive.upto(agent, self.core.recorder)
                network.send(lambda: self.hear(agent, upto, asked=True))

        network.send(arrive)

    def hear(self, agent: str, upto: dict[int, int], *, asked: bool = False) -> None:
        if self.alive:
            now_ns = self.system.world.monotonic_ns()
            self.core.stored(agent, upto, now_ns)
            if asked:
                self.core.answered(agent, now_ns)

    def crash(self) -> None:
        """Nothing is said or written any more; the kernel lets go of the lock."""
        self.alive = False
        self.reader.close()


class System:
    def __init__(self, world: SimWorld, folder: Path) -> None:
        self.world = world
        self.folder = folder
        chance = world.chance
        self.network = Network(world, Faults(
            lose=chance.choice([0, 0.05, 0.3]), repeat=chance.choice([0, 0.2]),
            delay_s_max=chance.choice([0.005, 0.2]), late=chance.choice([0, 0.05]),
        ))  # fmt: skip
        self.stream = Stream()
        self.archive = Archive(world, self.stream)
        self.disk_full = [False]
        self.forgetful = chance.random() < 0.1
        self.agents: list[Agent] = []
        self.shippings: dict[str, Shipping] = {}
        self.start_agent()

    def start_agent(self) -> None:
        self.agents.append(Agent(self.world, self.folder, self.disk_full))

    def faulty(self, seconds: float) -> None:
        end_ns = self.world.monotonic_ns() + round(seconds * 1e9)
        chance = self.world.chance
        misfortune = chance.choice([0.0, 0.01, 0.05])
        while self.world.monotonic_ns() < end_ns:
            self.turn()
            if chance.random() < 0.3:
                self.agents[-1].act()
            if chance.random() < misfortune:
                chance.choice([
                    self.agent_dies, self.shipper_dies, self.bus_fails, self.archive_dies,
                    self.acks_are_lost, self.clock_steps, self.disk_fills, self.bus_forgets,
                ])()  # fmt: skip

    def heal(self) -> None:
        """The faults stop; everything must come to rest in good order."""
        self.network.faults = Faults()
        self.stream.up = self.archive.up = True
        self.disk_full[0] = False
        for _ in range(20_000):
            self.turn()
            for agent in self.agents:
                if agent.alive and agent.recorder.settle():
                    agent.alive = False  # dies, having said everything
            if all(self.at_rest(agent) for agent in self.agents):
                return
        raise AssertionError(f"not at rest after {20_000 * _TICK_S} s")

    def at_rest(self, agent: Agent) -> bool:
        shipping = self.shippings.get(agent.recorder.id)
        if shipping is None:  # it died before the disk had room for its first page
            return not agent.alive and read_meta(agent.recorder.directory) is None
        return shipping.alive and shipping.done

    def turn(self) -> None:
        self.world.run_until(self.world.monotonic_ns() + round(_TICK_S * 1e9))
        for agent in self.agents:
            known = self.shippings.get(agent.recorder.id)
            if (known is None or not known.alive) and read_meta(agent.recorder.directory):
                self.shippings[agent.recorder.id] = Shipping(self, agent)
        for shipping in self.shippings.values():
            if shipping.alive and not shipping.done:
                shipping.tick()
        if self.archive.up:
            self.archive.work()
            if self.world.chance.random() < 0.2:
                self.say_stored()

    def say_stored(self) -> None:
        for shipping in self.shippings.values():
            for agent in ("agent-0", "agent-1"):
                upto = self.archive.upto(agent, shipping.core.recorder)
                if upto:
                    self.network.send(lambda s=shipping, a=agent, u=upto: s.hear(a, u))

    def agent_dies(self) -> None:
        if len(self.agents) < 4:
            self.agents[-1].alive = False
            self.start_agent()

    def shipper_dies(self) -> None:
        for shipping in self.shippings.values():
            if shipping.alive and not shipping.done:
                shipping.crash()

    def bus_fails(self) -> None:
        self.stream.up = False
        self.world.call_later(self.world.chance.uniform(0.1, 8), self._bus_returns)

    def _bus_returns(self) -> None:
        self.stream.up = True

    def archive_dies(self) -> None:
        self.archive.up = False
        self.world.call_later(self.world.chance.uniform(0.1, 8), self._archive_returns)

    def _archive_returns(self) -> None:
        self.archive.up = True

    def acks_are_lost(self) -> None:
        self.archive.deliver_again(self.world.chance.randint(1, 20))

    def clock_steps(self) -> None:
        self.world.step_wall_clock(self.world.chance.choice([-3600, -1, 1, 86400]))

    def disk_fills(self) -> None:
        self.disk_full[0] = True
        self.world.call_later(self.world.chance.uniform(0.1, 4), self._disk_empties)

    def _disk_empties(self) -> None:
        self.disk_full[0] = False

    def bus_forgets(self) -> None:
        """What it must not do, but may with another's configuration: the recorder still has it."""
        if self.forgetful and self.archive.position < len(self.stream.messages):
            self.stream.forget(len(self.stream.messages) - self.archive.position)

    def check(self) -> None:
        archive = self.archive
        assert not archive.changed, "a chain did not hold"
        assert not archive.given_up, f"the archive gave up on {archive.given_up}"
        if not self.forgetful:
            assert not archive.out_of_order, "a lane's envelopes came out of order"
        for agent in self.agents:
            self.check_agent(agent)

    def check_agent(self, agent: Agent) -> None:
        recorder = agent.recorder.id
        if recorder not in self.shippings:
            assert agent.recorder.stats().recorded == 0
            return
        losses = self.archive.losses(recorder)
        # What the dead could not tell, its finder tells, under the last number that was lost.
        own = {loss.seq for loss in losses} & agent.told.keys()
        stored = {seq: raw for seq, raw in self.archive.of(recorder).items() if seq not in own}
        lost = sum(loss.count for loss in losses)
        last = max(agent.told, default=0)
        told_lost: set[int] = set()
        for loss in losses:
            told_lost |= set(range(loss.first, loss.last + 1))
        for seq, mark in agent.told.items():
            raw = stored.get(seq)
            if raw is None:
                assert seq in told_lost, f"number {seq} of {last} is neither stored nor told lost"
                continue
            event = codec.decode(raw)
            assert not isinstance(event, codec.Unknown)
            assert event.seq == seq
            match event:
                case Output():
                    assert event.format == mark
                case ToolReturned():
                    assert event.call_id == mark
                case Heartbeat():
                    assert mark == ""
                case _:
                    raise AssertionError(f"number {seq} became {event}")
        missing = [seq for seq in agent.told if seq not in stored]
        assert len(missing) == lost, f"{len(missing)} are missing, {lost} told"
        assert lost == agent.recorder.stats().lost
        shipping = self.shippings[recorder]
        upto, _ = shipping.core.cursor()
        assert upto >= last, "not everything is confirmed"

    def close(self) -> None:
        for shipping in self.shippings.values():
            if shipping.alive:
                shipping.reader.close()
        for agent in self.agents:
            agent.recorder.close()

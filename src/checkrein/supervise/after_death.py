"""What is done for a program after its supervisor was killed: the next one takes it over, or closes
its books; when none is started any more, what its pact says of lost contact is done."""

import os
import signal
import sys
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import replace

from checkrein.supervise import proc
from checkrein.supervise.cgroup import Leaf
from checkrein.supervise.journal import Journal
from checkrein.supervise.outcome import Exit, ending
from checkrein.supervise.place import Manifest, Place
from checkrein.supervise.tree import Tree, hold
from checkrein.world import World


def adopt(
    manifest: Manifest, leaf: Leaf | None, front_pid: int, helpers: AbstractSet[int]
) -> Tree | None:  # fmt: skip
    """The tree that a killed supervisor left: the front is its parent now. None: the program has
    ended."""
    now = proc.look(manifest.main) if manifest.main else None
    if now is None or now.started != manifest.main_started or not proc.alive(now):
        return None
    tree = hold(manifest.run.run_id, now.pid, leaf=leaf, alone=True,
                roots=(front_pid, os.getpid()))  # fmt: skip
    return replace(tree, without=helpers)


async def stop_the_rest(
    manifest: Manifest, leaf: Leaf | None, front_pid: int, helpers: AbstractSet[int],
    world: World, ms_max: int,
) -> None:  # fmt: skip
    """The program ended while no supervisor was there: whoever is left of it is killed."""
    left = Tree(
        manifest.run.run_id, manifest.main, -1, leaf, (front_pid, os.getpid()), helpers,
        alone=True, exited=True,
    )  # fmt: skip
    until_ns = world.monotonic_ns() + ms_max * 1_000_000
    while left.survivors() and world.monotonic_ns() < until_ns:
        left.kill()
        await world.sleep(0.01)
    left.close()


def close_books(manifest: Manifest, exited: Exit, journal: Journal) -> str:
    """Its run gets its end. Returns why it was halted, if its pact said so; else nothing."""
    reason = ""
    if manifest.lost_contact == "halt" and exited.signal == signal.SIGKILL:
        reason = "its supervisor was killed, and its pact says lost_contact: halt"
    end = ending(exited, halted=reason, ended_by_code=False, named=False)
    journal.ended(manifest.run, 0, end, exited)
    return reason


def give_up(place: Place, leaf: Leaf | None) -> None:
    """Supervisors were killed again and again: what the pact says of lost contact is done here."""
    manifest = place.read()
    if manifest is None or not manifest.main:
        return
    what = manifest.lost_contact
    if leaf is not None:
        with suppress(OSError):
            if what == "halt":
                leaf.kill()
            elif what == "pause":
                leaf.freeze()
    sys.stderr.write(f"checkrein: the run is not supervised any more (lost_contact: {what})\n")

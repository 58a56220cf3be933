"""The proof that nobody below some processes moves any more, and the way to get there.

A process can fork and end while a walk down the tree passes by: its child then hangs where the walk
has been already. What stays of it is a dead process, or a pid that was listed and is gone. So one
walk proves nothing; two in a row that met the same processes in the same state do. A walk looks
only: who moves is caught by a chase (`chase`).
"""

import os
from collections.abc import Iterable, Set
from dataclasses import dataclass, field

from checkrein.supervise import proc
from checkrein.supervise.chase import Chase
from checkrein.supervise.proc import Table

CHASES_MAX = 4
MET_MAX = 512
"""Processes met by one walk: where there are more, no second chase is made in one call."""


@dataclass
class Walk:
    """What one walk met: pid and start, and whether it was alive. `restless`: pids that ran (or,
    where death is asked for, lived), or were gone when they were looked at."""

    met: dict[tuple[int, int], bool] = field(default_factory=dict)
    restless: set[int] = field(default_factory=set)


def unsettled(
    roots: Iterable[int], without: Set[int], number: int = 0, *,
    dead: bool = False, kept: Set[int] = frozenset(),
) -> list[int]:  # fmt: skip
    """Who stands in the way of the proof that everyone below the roots stands still (`dead`: is
    dead); empty when two walks agree. With a signal `number` whoever is not yet so is chased with
    it, a bounded number of times, and the answer need not name all. Dead children of this process
    but `kept` are buried by the chase alone: nobody else may do so meanwhile. Raises CannotLook."""
    roots = tuple(roots)
    chases = 0
    while True:
        before = _walk(roots, without, dead, hasty=number != 0)
        way = before.restless
        if not way:
            now = _walk(roots, without, dead)
            way = now.restless | {pid for (pid, _), _alive in now.met.items() ^ before.met.items()}
        if not way or not number or chases == CHASES_MAX or (chases and len(before.met) > MET_MAX):
            return sorted(way)
        Chase(roots, without, number, dead=dead, kept=kept).run()
        chases += 1


def _walk(roots: tuple[int, ...], without: Set[int], dead: bool, hasty: bool = False) -> Walk:
    """One walk; a hasty one ends as soon as it has met somebody restless."""
    walk = Walk()
    seen = {*roots, *without}
    table: Table | None = None
    todo = list(roots)
    for pid in todo:  # grows
        if hasty and walk.restless:
            break
        below = proc.children_of(pid)
        if below is None:  # this kernel does not tell
            if table is None:
                table = Table()
                if not dead or roots != (os.getpid(),):
                    # One of them may have been of this tree: only below us are all the dead kept
                    # to be seen, and below a living member none need be.
                    walk.restless |= table.missed
            below = [row.pid for row in table.children.get(pid, ())]
        for child in below:
            if child in seen:
                continue
            seen.add(child)
            now = proc.look(child)
            if now is None:
                walk.restless.add(child)
                continue
            alive = proc.alive(now)
            walk.met[now.pid, now.started] = alive
            if alive:
                todo.append(child)
                if dead or not proc.stands_still(now):
                    walk.restless.add(child)
    return walk

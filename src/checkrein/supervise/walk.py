"""A walk down a process tree that signals whoever it meets at once, and the proof that it met all.

A process can fork and end while a walk passes by: its child then hangs where the walk has been
already. What stays of it is a dead process, or a pid that was listed and is gone. So one walk
proves nothing; two in a row that met the same processes in the same state do.
"""

from collections.abc import Iterable, Set
from dataclasses import dataclass, field

from checkrein.supervise import proc
from checkrein.supervise.proc import Table

WALKS_MAX = 12
MET_MAX = 512
"""Processes met in one call: beyond that many it makes no third walk."""


@dataclass
class Walk:
    """What one walk met: pid and start, and whether it was alive. `restless`: pids that ran (or,
    where death is asked for, lived), or were gone when they were looked at."""

    met: dict[tuple[int, int], bool] = field(default_factory=dict)
    restless: set[int] = field(default_factory=set)


def unsettled(
    roots: Iterable[int], without: Set[int], number: int = 0, *, dead: bool = False
) -> list[int]:
    """Who stands in the way of the proof that everyone below the roots stands still (`dead`: is
    dead); empty when two walks agree. With a signal `number` whoever is not yet so is sent it when
    met, and the walks go on for a bounded number. Bury nobody meanwhile."""
    roots = tuple(roots)
    before = _walk(roots, without, number, dead)
    count = len(before.met)
    way = before.restless
    for walks in range(2, WALKS_MAX + 1):
        if (before.restless and not number) or (walks > 2 and count > MET_MAX):
            break
        now = _walk(roots, without, number, dead)
        way = before.restless | now.restless
        way |= {pid for (pid, _), _alive in now.met.items() ^ before.met.items()}
        if not way:
            return []
        before, count = now, count + len(now.met)
    return sorted(way)


def _walk(roots: tuple[int, ...], without: Set[int], number: int, dead: bool) -> Walk:
    walk = Walk()
    seen = {*roots, *without}
    table: Table | None = None
    todo = list(roots)
    for pid in todo:  # grows
        below = proc.children_of(pid)
        if below is None:  # this kernel does not tell
            table = table or Table()
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
                    if number:
                        proc.send(now, number)
    return walk

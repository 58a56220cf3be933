"""The supervisor's side of a confinement: it settles how far one can go, plans it, opens the door
when the child has put its walls up, and keeps the relay alive."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from checkrein.sdk.config import local_file
from checkrein.supervise.confine import able, landlock, relay
from checkrein.supervise.confine.addresses import Allowed
from checkrein.supervise.confine.door import Door, Seen, cookie_of
from checkrein.supervise.confine.plan import (
    CannotPlan,
    Plan,
    gateway_of,
    grants_of,
    hidden,
    without_others,
)
from checkrein.supervise.confine.shelf import Shelf
from checkrein.supervise.place import Place, runs_folder
from checkrein.world import World

Level = Literal["", "auto", "L2", "L3"]
STRENGTH = {"L0": 0, "L1": 1, "L2": 2, "L3": 3, "L4": 4}


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for: a level (empty: not to be confined), and paths that the program
    needs besides the usual ones."""

    level: Level = ""
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()


def settle(wish: Wish) -> Wish:
    """The wish with the level that this machine can reach. Call from a process with one thread.
    Raises CannotPlan when it cannot be met."""
    if not wish.level:
        return wish
    if not sys.platform.startswith("linux"):
        raise CannotPlan("programs can be confined on Linux only")
    found = able.look()
    level = found.levels[0] if wish.level == "auto" and found.levels else wish.level
    if level not in found.levels:
        wanted = "any level" if level == "auto" else level
        raise CannotPlan(
            f"this machine cannot confine to {wanted}: {found.missing}. `checkrein doctor` tells "
            "more; without --confine the program runs watched and stoppable, but not fenced in"
        )
    return msgspec.structs.replace(wish, level=level)


def protected(environ: Mapping[str, str]) -> list[Path]:
    """Folders that no confined program may reach: those of the supervisors, and of the server with
    its keys."""
    found = [runs_folder(environ).parent, local_file(environ).parent]
    with suppress(OSError, ValueError, AttributeError):
        local = json.loads(local_file(environ).read_text())
        found += [Path(local["data"])] if local.get("data") else []
        found += [Path(local["token_file"]).parent] if local.get("token_file") else []
    beside = Path("checkrein-data")
    if (beside / "operator.token").exists():
        found.append(beside)
    return list(dict.fromkeys(path.resolve() for path in found))


class Confinement:
    """One program's. `helpers`: pids that are not the program's."""

    def __init__(
        self, world: World, wish: Wish, shelf: Shelf, place: Place, helpers: set[int]
    ) -> None:  # fmt: skip
        self._world, self._wish, self.shelf, self._place = world, wish, shelf, place
        self._helpers = helpers
        self._door: Door | None = None
        self._relay: subprocess.Popen[bytes] | None = None
        self._inside = -1
        self._plan: Plan | None = None
        self._tell: Callable[[Seen], None] | None = None
        self.armed = False
        """Whether what is refused is told: not while the walls themselves are being tried."""

    def plan(
        self, argv: Sequence[str], environ: Mapping[str, str], user: Mapping[str, str]
    ) -> tuple[Plan | None, dict[str, str]]:
        """What to tell the child, and its environment. `user`: the environment of whoever started
        it. Raises CannotPlan or OSError."""
        wish = self._wish
        if wish.level not in ("L2", "L3"):
            return None, dict(environ)
        url = environ.get("CHECKREIN_GATEWAY", "")
        if not url:
            raise CannotPlan(
                "a confined program needs a gateway, and there is none: start one with "
                "`checkrein up`, or name it with CHECKREIN_GATEWAY"
            )
        keep_out = protected(user)
        place = self._place
        claims = place.socket.with_name("claims")
        for folder in (place.tmp, claims):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        hides = wish.level == "L3"
        grants = grants_of(
            argv, environ, Path.cwd(), read=wish.read, write=wish.write,
            own=(place.recorders, place.tmp, claims), protected=keep_out, hides=hides,
        )  # fmt: skip
        secrets = [*(path / "operator.token" for path in keep_out), local_file(user),
                   place.folder / "manifest"]  # fmt: skip
        plan = Plan(
            level=wish.level,
            landlock=landlock.abi(),
            gateway=gateway_of(url),
            grants=grants,
            # The folder of the supervisors holds what the program needs, too: there the rights do.
            hide=hidden(environ, keep_out[1:]) if hides else [],
            canary=str(place.socket.with_name("canary")),
            secrets=[str(path) for path in secrets if path.is_file()],
            supervisor=os.getpid(),
        )
        return plan, without_others(environ, place.tmp)

    def open(
        self, plan: Plan | None, tell: Callable[[Seen], None], vouch: Callable[[bytes, int], None]
    ) -> None:
        """Begins to wait for what the child puts on the shelf, or finds what has lain there since
        before this supervisor."""
        self._plan, self._tell, self._vouch = plan, tell, vouch
        asyncio.get_running_loop().add_reader(self.shelf.near.fileno(), self._found)

    def look(self) -> None:
        """A relay that died is started again."""
        if self._relay is not None and self._relay.poll() is not None:
            self._helpers.discard(self._relay.pid)
            self._start_relay()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.shelf.near.fileno())
        if self._door is not None:
            self._door.close()
            self._door = None
        if self._relay is not None:
            self._relay.kill()
            self._relay.wait()
            self._relay = None
        if self._inside >= 0:
            os.close(self._inside)
            self._inside = -1
        with suppress(OSError):
            self._place.socket.with_name("canary").unlink()

    def _found(self) -> None:
        found = self.shelf.look()
        if found is None:
            return
        asyncio.get_running_loop().remove_reader(self.shelf.near.fileno())
        level, fds = found
        allowed = None if level == "watch" else self._allowed()
        self._door = Door(fds[0], allowed, self._heard, self._vouch, self._world.nonce)
        if level == "L3":
            self._inside = fds[1]
            with socket.socket(fileno=os.dup(fds[1])) as inside:
                self._door.cookie = cookie_of(inside)
            self._start_relay()
        self._door.open()

    def _allowed(self) -> Allowed:
        """Nothing, if it is not known what was planned."""
        plan, place = self._plan, self._place
        if plan is None:
            return Allowed()
        own_network = plan.level == "L3"
        inet = frozenset() if own_network else frozenset({(plan.gateway.host, plan.gateway.port)})
        return Allowed(
            inet=inet, loopback=own_network, socket=os.path.normpath(place.socket),
            tmp=os.path.normpath(place.tmp),
        )  # fmt: skip

    def _heard(self, seen: Seen) -> None:
        if self.armed and self._tell is not None:
            self._tell(seen)

    def _start_relay(self) -> None:
        if self._plan is None:
            return
        gateway = self._plan.gateway
        self._relay = subprocess.Popen(  # noqa: S603 # our own file
            [sys.executable, "-I", relay.__file__, str(self._inside), gateway.host,
             str(gateway.port)],
            pass_fds=(self._inside,), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip
        self._helpers.add(self._relay.pid)

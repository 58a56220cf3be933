"""The walls, put up by the child itself in this order, just before it becomes the program. What
fails here means that the program does not start."""

import os
import socket
from collections.abc import Sequence

from checkrein.supervise.confine import kernel, landlock, namespace, seccomp
from checkrein.supervise.confine.plan import Plan
from checkrein.supervise.confine.probes import Canaries, escapes
from checkrein.supervise.confine.shelf import put


class DoesNotHold(Exception):
    """The walls stand, and yet something leads out, or they could not be put up; in words."""


def confine(plan: Plan, shelf: socket.socket) -> None:
    """Confines this process and all it will start. The supervisor's end of it goes to `shelf`.
    Raises DoesNotHold."""
    try:
        canaries = Canaries(plan.canary)  # 1. before anything: what must be out of reach
        ends = _network(plan)  # 2. L3: no network, and files out of sight
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)  # 3. no program gives rights back
        tcp = plan.level == "L2"
        landlock.restrict(plan.grants, plan.landlock, tcp=tcp)  # 4. files, TCP, signals
        kernel.drop_capabilities()  # 5. root's, and those of a new namespace
        kernel.close_all_on_exec()  # 6. nothing is inherited but the standard streams
        filters = seccomp.fence(kernel.machine(), kernel.numbers(), own_network=not tcp)
        listener = seccomp.install(filters)  # 7. system calls
        put(shelf, plan.level, [listener, *(end.fileno() for end in ends)])
        _close([listener], ends)
    except OSError as error:
        raise DoesNotHold(f"{plan.level} cannot be set up: {error.strerror or error}") from error
    found = escapes(plan, canaries)  # 8. tried
    canaries.close()
    if found:
        raise DoesNotHold(f"{plan.level} does not hold here: {', '.join(found)} can be reached")


def watch(shelf: socket.socket) -> None:
    """Only tells the supervisor what this process and all it will start connect to. Raises
    OSError."""
    try:
        listener = seccomp.install(seccomp.watch(kernel.machine(), kernel.numbers()))
    except PermissionError:
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        listener = seccomp.install(seccomp.watch(kernel.machine(), kernel.numbers()))
    put(shelf, "watch", [listener])
    os.close(listener)


def _network(plan: Plan) -> list[socket.socket]:
    """The listening socket for the gateway, in a network that has nothing else."""
    if plan.level != "L3":
        return []
    folder = os.getcwd()
    namespace.leave()
    namespace.raise_loopback()
    ends = [namespace.listen(plan.gateway.host, plan.gateway.port)]
    namespace.hide(plan.hide)
    os.chdir(folder)  # the same path in the new view
    return ends


def _close(fds: Sequence[int], ends: Sequence[socket.socket]) -> None:
    for fd in fds:
        os.close(fd)
    for end in ends:
        end.close()

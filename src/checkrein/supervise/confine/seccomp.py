"""The filters of system calls, as BPF programs; pure but for `install`.

`fence` refuses what leads around, and hands every `connect` to the supervisor, who makes it itself
(`door`): so it is judged by the address that is really used, which a filter cannot read.
`watch` refuses nothing and only tells the supervisor.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Mapping

from checkrein.supervise.confine import kernel

ALLOW, NOTIFY, KILL = 0x7FFF0000, 0x7FC00000, 0x80000000
_ERRNO = 0x00050000
_SET_MODE_FILTER, _NEW_LISTENER = 1, 8
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _AND, _RETURN = (
    0x20, 0x15, 0x35, 0x45, 0x54, 0x06,
)  # fmt: skip
_AT_NUMBER, _AT_ARCH, _AT_ARGUMENTS = 0, 4, 16
_X32_BIT = 0x40000000
_UNIX, _INET, _INET6, _PACKET = 1, 2, 10, 17
_STREAM, _DATAGRAM, _RAW, _SEQPACKET = 1, 2, 3, 5
_TYPE_MASK = 0xF
_TCP = 6
_FAST_OPEN = 0x20000000
_NEW_NAMESPACES = 0x7E020000
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C

Instruction = tuple[int, int, int, int]

REFUSED = (
    "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp", "process_madvise",
    "process_mrelease", "migrate_pages", "move_pages",
    "io_uring_setup", "io_uring_enter", "io_uring_register",
    "bpf", "perf_event_open", "userfaultfd", "fanotify_init", "lookup_dcookie",
    "unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "open_tree", "open_tree_attr",
    "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr",
    "name_to_handle_at", "open_by_handle_at",
    "keyctl", "add_key", "request_key",
    "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "reboot",
    "swapon", "swapoff", "acct", "quotactl", "quotactl_fd", "syslog", "vhangup", "uselib",
    "modify_ldt", "iopl", "ioperm", "sethostname", "setdomainname", "settimeofday",
    "clock_settime", "clock_adjtime", "adjtimex",
)  # fmt: skip
"""Answered EPERM, whatever their arguments."""
WATCHED = ("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "io_uring_setup",
           "unshare", "setns", "bpf")  # fmt: skip


def refuse(number: int) -> int:
    """The answer that makes a call fail with this errno."""
    return _ERRNO | number


def fence(machine: str, numbers: Mapping[str, int], *, own_network: bool) -> list[Instruction]:
    """What a confined program runs under. `own_network`: it has a network of its own, where it may
    listen; else `listen` goes to the supervisor, too."""
    program = _begin(machine, refuse(errno.ENOSYS), KILL)
    for name in REFUSED:
        program += _on(numbers, name, [_give(refuse(errno.EPERM))])
    # Its flags lie in memory, where no filter can read; libc falls back on `clone`.
    program += _on(numbers, "clone3", [_give(refuse(errno.ENOSYS))])
    program += _on(numbers, "clone", _if_bits(0, _NEW_NAMESPACES, refuse(errno.EPERM)))
    for name, at in (("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)):
        program += _on(numbers, name, _if_bits(at, _FAST_OPEN, refuse(errno.EOPNOTSUPP)))
    program += _on(numbers, "ioctl", [
        _load(1),
        *_if_equal(_TIOCSTI, refuse(errno.EPERM)), *_if_equal(_TIOCLINUX, refuse(errno.EPERM)),
        _give(ALLOW),
    ])  # fmt: skip
    program += _on(numbers, "socket", _sockets())
    program += _on(numbers, "socketpair", [
        _load(1), (_AND, 0, 0, _TYPE_MASK),
        *_if_equal(_STREAM, ALLOW), *_if_equal(_SEQPACKET, ALLOW), _give(refuse(errno.EACCES)),
    ])  # fmt: skip
    program += _on(numbers, "connect", [_give(NOTIFY)])
    if not own_network:
        program += _on(numbers, "listen", [_give(NOTIFY)])
    newer = [_give(refuse(errno.ENOSYS))]
    program += [(_JUMP_AT_LEAST, 0, len(newer), kernel.LAST_KNOWN + 1), *newer]
    return [*program, _give(ALLOW)]


def watch(machine: str, numbers: Mapping[str, int]) -> list[Instruction]:
    """Tells of ways around, and lets everything pass."""
    program = _begin(machine, ALLOW, ALLOW)
    for name in WATCHED:
        program += _on(numbers, name, [_give(NOTIFY)])
    program += _on(numbers, "connect", [_give(NOTIFY)])
    program += _on(numbers, "sendto", [
        _load(4), *_if_not_zero(NOTIFY), _load(4, high=True), *_if_not_zero(NOTIFY), _give(ALLOW),
    ])  # fmt: skip
    program += _on(numbers, "socket", [
        _load(0), *_if_equal(_PACKET, NOTIFY), *_if_equal(_UNIX, ALLOW),
        _load(1), (_AND, 0, 0, _TYPE_MASK), *_if_equal(_RAW, NOTIFY), _give(ALLOW),
    ])  # fmt: skip
    return [*program, _give(ALLOW)]


def run(program: list[Instruction], number: int, arch: int, arguments: tuple[int, ...]) -> int:
    """What the kernel would answer: a tiny interpreter, for tests and for `doctor`."""
    data = struct.pack("=iIQ6Q", number, arch, 0, *arguments, *([0] * (6 - len(arguments))))
    at, held = 0, 0
    while True:
        code, when, otherwise, value = program[at]
        at += 1
        match code:
            case 0x20:
                held = struct.unpack_from("=I", data, value)[0]
            case 0x54:
                held &= value
            case 0x06:
                return value
            case _:
                tests: dict[int, Callable[[], bool]] = {
                    _JUMP_EQUAL: lambda: held == value,  # noqa: B023 # called at once
                    _JUMP_AT_LEAST: lambda: held >= value,  # noqa: B023
                    _JUMP_ANY_BIT: lambda: bool(held & value),  # noqa: B023
                }
                at += when if tests[code]() else otherwise


def install(program: list[Instruction]) -> int:
    """Holds for this thread and all it starts. Returns the descriptor on which the supervisor
    hears. Needs no_new_privs. Raises OSError."""
    body = b"".join(struct.pack("=HBBI", *each) for each in program)
    kept = ctypes.create_string_buffer(body, len(body))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(kept))
    fd = kernel.call("seccomp", _SET_MODE_FILTER, _NEW_LISTENER, header)
    os.set_inheritable(fd, False)
    return fd


def _sockets() -> list[Instruction]:
    """TCP, and Unix sockets that must connect before they send; nothing else."""
    tcp = [
        _load(1), (_AND, 0, 0, _TYPE_MASK), (_JUMP_EQUAL, 1, 0, _STREAM),
        _give(refuse(errno.EACCES)),
        _load(2), *_if_equal(0, ALLOW), *_if_equal(_TCP, ALLOW), _give(refuse(errno.EACCES)),
    ]  # fmt: skip
    unix = [
        _load(1), (_AND, 0, 0, _TYPE_MASK),
        *_if_equal(_STREAM, ALLOW), *_if_equal(_SEQPACKET, ALLOW), _give(refuse(errno.EACCES)),
    ]  # fmt: skip
    return [
        _load(0),
        (_JUMP_EQUAL, 0, len(unix), _UNIX), *unix,
        (_JUMP_EQUAL, 1, 0, _INET), (_JUMP_EQUAL, 0, len(tcp), _INET6), *tcp,
        _give(refuse(errno.EAFNOSUPPORT)),
    ]  # fmt: skip


def _begin(machine: str, other_abi: int, other_machine: int) -> list[Instruction]:
    """Other calling conventions have other numbers: they are no way in."""
    found: list[Instruction] = [
        (_LOAD, 0, 0, _AT_ARCH),
        (_JUMP_EQUAL, 1, 0, kernel.AUDIT_ARCH[machine]),
        _give(other_machine),
        (_LOAD, 0, 0, _AT_NUMBER),
    ]
    if machine == "x86_64":
        found += [(_JUMP_AT_LEAST, 0, 1, _X32_BIT), _give(other_abi)]
    return found


def _on(numbers: Mapping[str, int], name: str, then: list[Instruction]) -> list[Instruction]:
    """`then` must end in an answer; with another call's number it is passed over."""
    number = numbers.get(name)
    if number is None:
        return []
    return [(_JUMP_EQUAL, 0, len(then), number), *then]


def _load(argument: int, high: bool = False) -> Instruction:
    return (_LOAD, 0, 0, _AT_ARGUMENTS + 8 * argument + (4 if high else 0))


def _give(answer: int) -> Instruction:
    return (_RETURN, 0, 0, answer)


def _if_equal(value: int, answer: int) -> list[Instruction]:
    return [(_JUMP_EQUAL, 0, 1, value), _give(answer)]


def _if_not_zero(answer: int) -> list[Instruction]:
    return [(_JUMP_EQUAL, 1, 0, 0), _give(answer)]


def _if_bits(argument: int, mask: int, answer: int) -> list[Instruction]:
    return [_load(argument), (_JUMP_ANY_BIT, 0, 1, mask), _give(answer), _give(ALLOW)]

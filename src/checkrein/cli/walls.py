"""What `doctor` says of confinement: what this machine could reach, and what live runs have."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from checkrein.cli.checks import Finding

MEANING = {
    "L0": "watched and stopped, but free on the network: what goes round the SDK is not seen",
    "L1": "holds no provider's key: its credentials work at the gateway only",
    "L2": "files, signals and every connection by the kernel's rules; of the network the gateway "
    "only",
    "L3": "a network of its own with nothing in it but the gateway, and the rules of L2",
    "L4": "a virtual machine of its own",
}
OPEN = ("L0", "L1")
HOW = "start it with `checkrein run --confine -- …`"


def machine() -> Iterator[Finding]:
    """What `checkrein run --confine` can do here."""
    if not sys.platform.startswith("linux"):
        yield Finding("note", "confinement", "programs can be confined on Linux only")
        return
    from checkrein.supervise.confine import able

    found = able.look()
    if found.levels:
        names = " and ".join(sorted(found.levels))
        said = f"Landlock version {found.landlock}, system calls can be filtered: reaches {names}"
        yield Finding("ok", "confinement", said)
        if found.missing:
            yield Finding("note", "confinement", f"not L3: {found.missing}")
    else:
        yield Finding("note", "confinement", f"`run --confine` cannot be used: {found.missing}")


def runs(levels: Mapping[str, Any]) -> Iterator[Finding]:
    """How far the live runs are fenced in, as they really are; and how to close what is open."""
    for level, number in sorted(levels.items()):
        text = f"{number} runs: {MEANING.get(level, '')}".rstrip(": ")
        yield Finding("ok", f"level {level or '?'}", text)
    free = sum(int(number) for level, number in levels.items() if level in OPEN)
    if free:
        said = f"{free} runs can connect past the gateway; to close that, {HOW}"
        yield Finding("note", "confinement", said)

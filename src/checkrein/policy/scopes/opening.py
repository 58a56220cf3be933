"""Opening a file without following any link: what a checked path was is what is opened.

The one place of this room that touches the file system, for tools to use at their edge.
"""

import os
from typing import NoReturn


def opened(path: str, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """A descriptor of the file at an absolute path, opened name by name with `O_NOFOLLOW`.

    A link anywhere on the way, at the end included, is an `OSError`, as is a folder that is none
    and anything else `open` refuses; `ValueError` for a path that is not absolute or not plain (`.`
    and `..`). The caller closes the descriptor. Linux and other systems with `O_PATH` only.
    """
    names = path.split("/")
    if names[0] or len(names) < 2 or not names[-1] or not {"", ".", ".."}.isdisjoint(names[1:]):
        _refuse(path)
    walk = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    folder = os.open("/", walk)
    try:
        for name in names[1:-1]:
            below = os.open(name, walk, dir_fd=folder)
            os.close(folder)
            folder = below
        return os.open(names[-1], flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=folder)
    finally:
        os.close(folder)


def _refuse(path: str) -> NoReturn:
    raise ValueError(f"{path!r} is no plain absolute path")

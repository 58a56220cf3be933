"""The operator's token: one secret in the data folder, readable by its owner only."""

import hmac
from pathlib import Path

from checkrein.bus.credentials import write_once
from checkrein.world import World

FILE_NAME = "operator.token"


class TokenError(Exception):
    """The token file is there but cannot be used. Says which file and why."""


def load_or_create(data: Path, world: World) -> str:
    """The token in `data/operator.token`; made, durable and with mode 0600 from the start, if it is
    not there. Raises TokenError when the file is empty or open to others."""
    path = data / FILE_NAME
    write_once(path, lambda: f"cro_{world.random_bytes(32).hex()}")
    return _load(path)


def _load(path: Path) -> str:
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise TokenError(f"{path} can be read by others (mode {mode:o}): chmod 600 {path}")
    text = path.read_text(encoding="utf-8").strip()
    if not text:
        raise TokenError(f"{path} is empty: remove it, and start again to have a new one made")
    return text


def matches(expected: str, given: str) -> bool:
    """Compares in constant time."""
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogateescape"))

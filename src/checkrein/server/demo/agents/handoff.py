"""How the chain's three programs hand work on: a folder, one file for each hop."""

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.2


def folder() -> Path:
    """`DEMO_HANDOFF`, or a folder of this machine's own."""
    path = Path(os.environ.get("DEMO_HANDOFF") or Path(tempfile.gettempdir()) / "checkrein-handoff")
    path.mkdir(parents=True, exist_ok=True)
    return path


def give(name: str, value: Any) -> None:
    """Written aside and renamed: whoever waits sees all of it or nothing."""
    aside = folder() / f".{name}"
    aside.write_text(json.dumps(value))
    aside.rename(folder() / name)


def take(name: str, wait_s: float) -> Any:
    """What was handed on; TimeoutError when nothing comes."""
    path = folder() / name
    for _ in range(round(wait_s / POLL_SECONDS)):
        if path.exists():
            return json.loads(path.read_text())
        time.sleep(POLL_SECONDS)
    raise TimeoutError(f"nobody handed on {name} within {wait_s:g} s")

"""Where the server is and what opens its door: options, then the environment, then the `up` that
this user has running."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

DEFAULT_URL = "http://127.0.0.1:4400"


class CannotFind(Exception):
    """No token for the server. Says what was looked at."""


@dataclass(frozen=True)
class Place:
    """`data` is the data folder of a local `up`, None when there is none."""

    url: str
    token: str
    data: Path | None = None


def local_file() -> Path:
    base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return base / "checkrein" / "local.json"


def find(url: str = "", token: str = "") -> Place:
    """Raises CannotFind."""
    local = _local()
    url = url or os.environ.get("CHECKREIN_URL", "") or local.get("url", "") or DEFAULT_URL
    url = url.rstrip("/")
    same = url == local.get("url", "").rstrip("/")
    data = Path(local["data"]) if same and local.get("data") else None
    token = token or os.environ.get("CHECKREIN_TOKEN", "")
    if not token and same:
        token = _read(Path(local.get("token_file", "")))
    if not token:
        token = _read(Path("checkrein-data") / "operator.token") if _is_local(url) else ""
    if not token:
        raise CannotFind(
            f"no token for {url}: no `checkrein up` of yours is noted in {local_file()}. "
            "Start one with `checkrein up`, or give --token or CHECKREIN_TOKEN "
            "(it stands in DATA/operator.token of the server)."
        )
    return Place(url, token, data)


def _local() -> dict[str, str]:
    try:
        found = json.loads(local_file().read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str)}


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _is_local(url: str) -> bool:
    return url.split("://")[-1].split("/")[0].rsplit(":", 1)[0] in ("127.0.0.1", "localhost")

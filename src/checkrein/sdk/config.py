"""Where the server is, who this agent is: arguments first, then the environment, then the file that
a local `checkrein up` leaves for its own user."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from checkrein.sdk import quiet

PACT_BYTES_MAX = 1024 * 1024


class Endpoint(msgspec.Struct, frozen=True):
    url: str
    token: str = ""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All that `init` settles. Empty `url`: look for a local `up`."""

    agent: str
    room: str = ""
    environment: str = "development"
    url: str = ""
    token: str = ""
    pact_path: str = ""
    agent_version: str = ""
    supervisor: str = ""
    recorders: str = ""
    run_id: str = ""
    task_id: str = ""
    traceparent: str = ""


def read(environ: Mapping[str, str], **given: str) -> Config:
    """Given arguments over the environment over defaults. Under a supervisor, the supervisor's
    words on room and environment come later, with its welcome."""
    recorders = environ.get("CHECKREIN_RECORDERS", "") or str(state_folder(environ))
    found = {
        "agent": environ.get("CHECKREIN_AGENT", "") or _program(),
        "room": environ.get("CHECKREIN_ROOM", ""),
        "environment": environ.get("CHECKREIN_ENVIRONMENT", "") or "development",
        "url": environ.get("CHECKREIN_URL", ""),
        "token": environ.get("CHECKREIN_TOKEN", ""),
        "pact_path": environ.get("CHECKREIN_PACT", ""),
        "supervisor": environ.get("CHECKREIN_SUPERVISOR", ""),
        "recorders": recorders,
        "run_id": environ.get("CHECKREIN_RUN_ID", ""),
        "task_id": environ.get("CHECKREIN_TASK_ID", ""),
        "traceparent": environ.get("TRACEPARENT", ""),
    }
    found.update({name: value for name, value in given.items() if value})
    return Config(**found)


def endpoint(config: Config, environ: Mapping[str, str]) -> Endpoint | None:
    """The server to ask, as it is known now; None when there is none. Called again before every
    attempt, so that a server started later is found."""
    local = _local(environ)
    if not config.url:
        return Endpoint(local.url, config.token or local.token) if local else None
    if config.token or local is None or local.url.rstrip("/") != config.url.rstrip("/"):
        return Endpoint(config.url, config.token)
    return Endpoint(config.url, local.token)


def is_web_url(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in ("http", "https") and bool(parts.netloc)


def state_folder(environ: Mapping[str, str]) -> Path:
    """Where recorders live without a supervisor."""
    state = environ.get("XDG_STATE_HOME", "")
    base = Path(state) if state else Path(environ.get("HOME", "") or "/tmp") / ".local/state"  # noqa: S108 # no home: the last resort
    return base / "checkrein" / "recorders"


def local_file(environ: Mapping[str, str]) -> Path:
    """The discovery file that `checkrein up` writes: {"url", "token_file"}."""
    config = environ.get("XDG_CONFIG_HOME", "")
    base = Path(config) if config else Path(environ.get("HOME", "") or "/") / ".config"
    return base / "checkrein" / "local.json"


def pact_text(path: str) -> str:
    """A pact's text with the files it names (of its own folder, or below it) packed into it, so
    that it can travel. Raises OSError; ValueError when it is too large, not UTF-8, or a file cannot
    be read."""
    from checkrein.policy.pact import pack

    with Path(path).open("rb") as file:
        data = file.read(PACT_BYTES_MAX + 1)
    if len(data) > PACT_BYTES_MAX:
        raise ValueError(f"{path}: a pact has at most {PACT_BYTES_MAX} bytes, and this has more")
    text = data.decode()
    return pack(text, lambda name: _beside(Path(path), name), path) if "schema" in text else text


def _beside(path: Path, name: str) -> str:
    folder = path.resolve().parent
    wanted = (folder / name).resolve()
    if not wanted.is_relative_to(folder):
        raise ValueError("it lies outside the pact's folder")
    return wanted.read_text("utf-8")


def _local(environ: Mapping[str, str]) -> Endpoint | None:
    path = local_file(environ)
    try:
        found = json.loads(path.read_text())
        url = str(found["url"])
        token_file = str(found.get("token_file", ""))
        token = Path(token_file).read_text().strip() if token_file else ""
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        quiet.warn_once(f"local:{path}", "checkrein: %s cannot be used: %s", path, error)
        return None
    return Endpoint(url, token)


def _program() -> str:
    name = Path(sys.argv[0]).stem if sys.argv and sys.argv[0] not in ("", "-c", "-m") else ""
    return name or "agent"


def environ() -> Mapping[str, str]:
    return os.environ

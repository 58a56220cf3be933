"""What `up` and `serve` are told, from the command line or `checkrein.toml`."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROLES = ("control", "archive", "watch", "api", "gateway")
"""In the order in which they are started; they are stopped in reverse."""


class OptionsError(ValueError):
    """An option that cannot be used: which, and what it should look like."""


@dataclass(frozen=True)
class Options:
    """`gateway`: empty: the port after HTTP's. `bus`, `control_bus`: comma-separated NATS URLs;
    empty: the embedded servers. `store`: a ClickHouse URL; empty: chDB below the data folder."""

    data: Path = Path("checkrein-data")
    http: str = "127.0.0.1:4400"
    gateway: str = ""
    bus: str = ""
    control_bus: str = ""
    store: str = ""
    config: Path | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def http_address(self) -> tuple[str, int]:
        return address(self.http, "--http")

    @property
    def gateway_address(self) -> tuple[str, int]:
        """As given, or the port after HTTP's on the same host."""
        if self.gateway:
            return address(self.gateway, "--gateway")
        host, port = self.http_address
        return host, port + 1 if port else 0

    @property
    def store_url(self) -> str:
        return self.store or f"chdb://{self.data / 'store'}"

    @property
    def bus_urls(self) -> tuple[str, ...]:
        return urls(self.bus)

    @property
    def control_urls(self) -> tuple[str, ...]:
        return urls(self.control_bus)


def address(text: str, option: str) -> tuple[str, int]:
    """`HOST:PORT` as a pair. Raises OptionsError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 <= int(port) < 65536:
        raise OptionsError(f"{option} takes HOST:PORT, such as 127.0.0.1:4400; got {text!r}")
    return host.strip("[]"), int(port)


def urls(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def read_settings(path: Path | None, data: Path) -> dict[str, Any]:
    """`checkrein.toml` as named, or beside the data folder, or nothing. Raises OptionsError with
    the line and column of what is wrong."""
    found = path or data.absolute().parent / "checkrein.toml"
    if not found.exists():
        if path is not None:
            raise OptionsError(f"--config names {path}, which is not there")
        return {}
    try:
        return tomllib.loads(found.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptionsError(f"{found}: {error}") from error

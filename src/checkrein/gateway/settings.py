"""What the gateway is told: `[gateway]` of `checkrein.toml`, and the environment of `up`.

    [gateway]
    look_ahead = 256                       # characters held back in a stream before they are judged
    names = "house.names:find"             # finds names of persons; see docs/redaction.md
    allow_addresses = ["10.1.0.0/16"]      # private addresses that upstreams may have all the same

    [gateway.models.openai]                # also `anthropic`, or a name of your own with `protocol`
    url = "https://…/v1"
    key_env = "OPENAI_API_KEY"             # or key_file = "…"
    timeout_s = 600                        # until it begins to answer
    chunk_s = 120                          # between two pieces of an answer
    retries = 2
    fallback = ["other"]                   # tried in order when this one fails

    [gateway.mcp.crm]
    url = "http://127.0.0.1:9000/mcp"      # or command = ["program", "argument"]
    key_env = "CRM_TOKEN"                  # sent as a bearer token; the agent never sees it

The simplest configuration is the environment alone: `CHECKREIN_OPENAI_UPSTREAM`,
`CHECKREIN_ANTHROPIC_UPSTREAM` (the providers' own by default), `OPENAI_API_KEY`,
`ANTHROPIC_API_KEY`.
"""

from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

LOOK_AHEAD_CHARS = 256
_PROVIDERS = {
    "openai": ("https://api.openai.com/v1", "CHECKREIN_OPENAI_UPSTREAM", "OPENAI_API_KEY"),
    "anthropic": (
        "https://api.anthropic.com", "CHECKREIN_ANTHROPIC_UPSTREAM", "ANTHROPIC_API_KEY",
    ),
}  # fmt: skip


class SettingsError(ValueError):
    """A setting that cannot be used: which, and what it should look like."""


class Upstream(msgspec.Struct, frozen=True, kw_only=True):
    """Where calls of one protocol go. `local`: named by whoever runs the gateway with an address of
    this machine or house, so that its private address is no surprise."""

    name: str
    protocol: Literal["openai", "anthropic"]
    url: str
    key_env: str = ""
    key_file: str = ""
    timeout_s: float = 600.0
    connect_s: float = 5.0
    chunk_s: float = 120.0
    retries: int = 2
    fallback: tuple[str, ...] = ()

    def key(self, environ: Mapping[str, str]) -> str:
        """The real key; "" when there is none. Raises SettingsError. Never to be written down."""
        if self.key_file:
            try:
                return Path(self.key_file).read_text().strip()
            except OSError as error:
                where = f"gateway.models.{self.name}.key_file"
                raise SettingsError(f"{where}: {error.strerror}: {self.key_file}") from error
        return environ.get(self.key_env, "").strip() if self.key_env else ""


class McpServer(msgspec.Struct, frozen=True, kw_only=True):
    """A tool server behind `/mcp/NAME`: by `url` (streamable HTTP) or by `command` (stdio)."""

    name: str
    url: str = ""
    command: tuple[str, ...] = ()
    key_env: str = ""
    timeout_s: float = 60.0
    trust_changes: bool = False
    """Whether a tool that is not what it was may be called without anybody having approved it."""
    sampling: bool = False
    """Whether this server may ask its client for a model's answer."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`models` and `mcp` by name. `internal` addresses that upstreams may have, as CIDR."""

    models: dict[str, Upstream] = {}
    mcp: dict[str, McpServer] = {}
    look_ahead: int = LOOK_AHEAD_CHARS
    allow_addresses: tuple[str, ...] = ()
    names: str = ""
    idle_s: float = 900.0
    """A run that the gateway itself began ends when nothing has come for so long."""


class _Model(msgspec.Struct, forbid_unknown_fields=True):
    url: str = ""
    protocol: str = ""
    key_env: str = ""
    key_file: str = ""
    timeout_s: float = 600.0
    connect_s: float = 5.0
    chunk_s: float = 120.0
    retries: int = 2
    fallback: list[str] = []


class _Mcp(msgspec.Struct, forbid_unknown_fields=True):
    url: str = ""
    command: list[str] = []
    key_env: str = ""
    timeout_s: float = 60.0
    trust_changes: bool = False
    sampling: bool = False


class _Gateway(msgspec.Struct, forbid_unknown_fields=True):
    models: dict[str, _Model] = {}
    mcp: dict[str, _Mcp] = {}
    look_ahead: int = LOOK_AHEAD_CHARS
    allow_addresses: list[str] = []
    names: str = ""
    idle_s: float = 900.0


def settings_of(config: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Raises SettingsError naming the setting."""
    try:
        given = msgspec.convert(dict(config.get("gateway") or {}), _Gateway)
    except msgspec.ValidationError as error:
        raise SettingsError(f"checkrein.toml, [gateway]: {error}") from error
    models = {name: _upstream(name, model) for name, model in given.models.items()}
    for name, (url, url_env, key_env) in _PROVIDERS.items():
        if name not in models:
            url = environ.get(url_env, "").strip() or url
            models[name] = _upstream(name, _Model(url=url, key_env=key_env))
    for name, upstream in models.items():
        for other in upstream.fallback:
            if other not in models or models[other].protocol != upstream.protocol:
                raise SettingsError(
                    f"gateway.models.{name}.fallback names {other!r}, which is not an upstream of "
                    f"the protocol {upstream.protocol}"
                )
    for cidr in given.allow_addresses:
        try:
            ip_network(cidr)
        except ValueError as error:
            raise SettingsError(f"gateway.allow_addresses: {error}") from error
    if given.look_ahead < 0 or given.idle_s <= 0:
        raise SettingsError("gateway.look_ahead and gateway.idle_s take positive numbers")
    return Settings(
        models=models, mcp={name: _mcp(name, server) for name, server in given.mcp.items()},
        look_ahead=given.look_ahead, allow_addresses=tuple(given.allow_addresses),
        names=given.names, idle_s=given.idle_s,
    )  # fmt: skip


def _upstream(name: str, given: _Model) -> Upstream:
    where = f"gateway.models.{name}"
    protocol = given.protocol or (name if name in _PROVIDERS else "")
    if protocol not in ("openai", "anthropic"):
        raise SettingsError(f"{where}.protocol takes openai or anthropic, got {protocol!r}")
    default_url, _, default_key = _PROVIDERS[protocol]
    url = given.url or default_url
    _check_url(where, url)
    key_env = given.key_env or ("" if given.key_file else default_key)
    return Upstream(
        name=name, protocol=protocol, url=url.rstrip("/"), key_env=key_env,  # type: ignore[arg-type] # checked above
        key_file=given.key_file, timeout_s=given.timeout_s, connect_s=given.connect_s,
        chunk_s=given.chunk_s, retries=given.retries, fallback=tuple(given.fallback),
    )  # fmt: skip


def _mcp(name: str, given: _Mcp) -> McpServer:
    where = f"gateway.mcp.{name}"
    if bool(given.url) == bool(given.command):
        raise SettingsError(f"{where} takes a url or a command, one of the two")
    if given.url:
        _check_url(where, given.url)
    return McpServer(
        name=name, url=given.url, command=tuple(given.command), key_env=given.key_env,
        timeout_s=given.timeout_s, trust_changes=given.trust_changes, sampling=given.sampling,
    )  # fmt: skip


def _check_url(where: str, url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise SettingsError(
            f"{where}.url takes an http or https address without a password, got {url!r}"
        )

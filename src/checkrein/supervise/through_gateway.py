"""Sending a program's model calls through the gateway: its environment, and the key of its run.

The key stands for one run, is attested by the supervisor (which process, whose, since when) and
lives for five minutes unless it is renewed; the providers' own keys stay with the gateway.
"""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

from checkrein.bus.identities import RunTokenGrant, RunTokenRequest
from checkrein.bus.messages import SessionGrant
from checkrein.supervise import proc
from checkrein.supervise.session import ServerUnreachable, SessionDenied, post, words_of

PATH = "/api/v1/run-tokens"
_PROVIDERS = {
    "openai": ("/openai/v1", ("OPENAI_BASE_URL", "OPENAI_API_BASE"), "OPENAI_API_KEY"),
    "anthropic": ("/anthropic", ("ANTHROPIC_BASE_URL",), "ANTHROPIC_API_KEY"),
}
_ALSO_KEYS = {"anthropic": ("ANTHROPIC_AUTH_TOKEN",)}
_KEY_NAMES = frozenset({
    "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "AWS_SECRET_ACCESS_KEY",
    "AWS_BEARER_TOKEN_BEDROCK", "GOOGLE_APPLICATION_CREDENTIALS", "HF_TOKEN", "GITHUB_TOKEN",
    "REPLICATE_API_TOKEN",
})  # fmt: skip
_KEY_BEGINNINGS = ("sk-", "sk_")
_NO_PROXY = ("NO_PROXY", "no_proxy")


class NoRunKey(SessionDenied):
    """The server gives no key for this run."""


@dataclass(frozen=True)
class Access:
    """How a program reaches the gateway. `socket`: the gateway's Unix socket, if it is on this
    host; `providers`: the protocols for which the gateway has a key."""

    url: str
    socket: str
    providers: tuple[str, ...]
    key: str

    @classmethod
    def of(cls, grant: SessionGrant, key: str) -> "Access":
        return cls(
            grant.gateway_url.rstrip("/"), grant.gateway_socket, tuple(grant.gateway_providers), key
        )


def environment_for(
    environ: Mapping[str, str], access: Access, mandatory: bool = False
) -> dict[str, str]:
    """The environment with which a program asks the gateway. A provider is left as it was when the
    gateway has no key for it, or the user has named a base URL; `mandatory` overrides both."""
    environment = dict(environ)
    for name, (path, bases, key_name) in _PROVIDERS.items():
        if not mandatory and (name not in access.providers or _own(environ, bases, access)):
            continue
        for base in bases:
            environment[base] = access.url + path
        for secret in _ALSO_KEYS.get(name, ()):
            environment.pop(secret, None)
        environment[key_name] = access.key
    environment["CHECKREIN_GATEWAY"] = access.url
    environment["CHECKREIN_KEY"] = access.key
    _past_proxies(environment, access.url)
    return environment


def level_of(environ: Mapping[str, str], access: Access | None) -> str:
    """L1 when the program's only credential for models is the gateway's, as far as its environment
    tells; else L0."""
    if access is None or environ.get("CHECKREIN_KEY") != access.key:
        return "L0"
    return "L0" if any(_is_secret(name, environ[name], access.key) for name in environ) else "L1"


def request_for(
    run_id: str, task_id: str, agent: str, room: str, environment: str, session: str, pid: int,
    host: str, user: str, token: str = "",
) -> RunTokenRequest:  # fmt: skip
    """What this supervisor attests of a run's process, as the kernel tells it."""
    return RunTokenRequest(
        run_id=run_id, session=session, task_id=task_id, agent=agent, room=room,
        environment=environment, pid=pid, user=user, started_at=started_at(pid), host=host,
        token=token,
    )  # fmt: skip


async def fetch(
    url: str, token: str, request: RunTokenRequest, timeout_s: float = 2.0
) -> RunTokenGrant:
    """A run's key, or the renewal of one. Raises ServerUnreachable, or NoRunKey with the words."""
    body = msgspec.json.encode(request)
    status, answer = await asyncio.to_thread(post, url, token, PATH, body, timeout_s)
    if status in (502, 503, 504):
        raise ServerUnreachable(f"{url} is not ready: {status}")
    if status not in (200, 201):
        raise NoRunKey(f"{url} gives no key for this run: {status} {words_of(answer)}")
    try:
        return msgspec.json.decode(answer, type=RunTokenGrant)
    except msgspec.MsgspecError as error:
        raise NoRunKey(f"{url}: the answer is no key: {error}") from error


def started_at(pid: int) -> int:
    """When a process started, in ns since 1970; 0 when it cannot be told."""
    found = proc.look(pid)
    if found is None:
        return 0
    try:
        with open("/proc/stat", "rb") as file:
            booted = next((line for line in file if line.startswith(b"btime ")), b"")
    except OSError:
        return 0
    if not booted:
        return 0
    return (int(booted.split()[1]) * 1_000_000_000) + found.started * (
        1_000_000_000 // os.sysconf("SC_CLK_TCK")
    )


def _own(environ: Mapping[str, str], bases: tuple[str, ...], access: Access) -> bool:
    """Whether the user sends this provider's calls somewhere else than to a gateway."""
    ours = {access.url, environ.get("CHECKREIN_GATEWAY", "").rstrip("/")} - {""}
    for base in bases:
        url = environ.get(base, "")
        if url and not any(url == one or url.startswith(one + "/") for one in ours):
            return True
    return False


def _past_proxies(environment: dict[str, str], url: str) -> None:
    """Calls to the gateway do not go through a proxy that is meant for the way out."""
    if not any(name.lower().endswith("_proxy") and environment[name] for name in environment):
        return
    host = urlsplit(url).hostname or ""
    for name in _NO_PROXY:
        kept = environment.get(name, "")
        if host not in kept.split(","):
            environment[name] = f"{kept},{host}" if kept else host


def _is_secret(name: str, value: str, ours: str) -> bool:
    if not value or value == ours:
        return False
    named = name.endswith(("_API_KEY", "_APIKEY")) or name in _KEY_NAMES
    return named or value.startswith(_KEY_BEGINNINGS)

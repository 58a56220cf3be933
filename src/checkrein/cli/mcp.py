"""`checkrein mcp [options] -- COMMAND…`: a tool server by stdio, through the gateway."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from checkrein.gateway.mcp.proxy import Proxy, Way

KEYS = ("cra_", "crr_")
NAME_CHARS_MAX = 100
LABEL = "checkrein mcp"


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    short_help="A tool server by stdio, through the gateway.",
)
@click.option("--name", default="", help="What the server is called (default: its program).")
@click.option("--agent", default="", help="Whose calls these are, where no key says it.")
@click.option(
    "--gateway", default="", metavar="URL",
    help="The gateway (default: CHECKREIN_GATEWAY, or that of a local `up`).",
)  # fmt: skip
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND…")
def mcp(name: str, agent: str, gateway: str, command: tuple[str, ...]) -> None:
    """Starts an MCP server and lets its client speak with it through the gateway.

    Write it into a client's configuration before the server's own command. Every message is judged
    by the gateway; without one, nothing passes. The key is CHECKREIN_KEY (which `checkrein run`
    sets) or CHECKREIN_TOKEN when that is an agent's; with --agent and a local `up`, one is made for
    this agent and kept.
    """
    if not command:
        raise click.UsageError("no server is named: checkrein mcp -- PROGRAM [ARGUMENT…]")
    name = name or _name_of(command)
    if len(name) > NAME_CHARS_MAX or not name.isprintable() or "/" in name:
        raise click.UsageError(f"{name[:80]!r} cannot name a server")
    way, why = _way(gateway, agent)
    sys.exit(asyncio.run(Proxy(name, command, way, why).run()))


def _way(gateway: str, agent: str) -> tuple[Way | None, str]:
    """The gateway and the key, or why there is none."""
    data = _data()
    gateway = gateway or os.environ.get("CHECKREIN_GATEWAY", "")
    socket = data / "gateway" / "gateway.sock" if data is not None else None
    if not gateway and socket is not None and socket.exists():
        gateway = f"unix:{socket.absolute()}"
    if not gateway:
        return None, (
            "no gateway is known, so nothing passes: start `checkrein up`, or name one with "
            "--gateway or CHECKREIN_GATEWAY"
        )
    given = [os.environ.get(name, "").strip() for name in ("CHECKREIN_KEY", "CHECKREIN_TOKEN")]
    key = next((one for one in given if one.startswith(KEYS)), "")
    if not key and agent:
        try:
            key = _kept_key(agent)
        except Exception as error:
            return None, f"no key could be had for agent {agent}: {error}"
    if not key:
        return None, (
            "no agent's key is known, so nothing passes: set CHECKREIN_KEY (`checkrein agent add "
            "NAME` makes one), start the client with `checkrein run`, or give --agent"
        )
    return Way(gateway.rstrip("/"), key, os.environ.get("CHECKREIN_RUN_ID", "")), ""


def _kept_key(agent: str) -> str:
    """The key of this agent that this user keeps; made with the operator's token the first time.
    Raises ClientError, CannotFind, OSError."""
    from checkrein.bus.subjects import token as as_file_name
    from checkrein.cli.client import Client
    from checkrein.cli.discover import find, local_file

    path = local_file().parent / "agents" / f"{as_file_name(agent)}.json"
    place = find()
    try:
        kept = json.loads(path.read_text())
        if kept["url"] == place.url and str(kept["data"]) == str(place.data):
            return str(kept["key"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    client = Client(place)
    try:
        made = _made(client, agent)
    finally:
        client.close()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = json.dumps({"url": place.url, "data": str(place.data), "key": made["key"]})
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    return str(made["key"])


def _made(client: Any, agent: str) -> Any:
    from checkrein.cli.client import Refused, segment

    try:
        return client.post("/api/v1/agents", {"agent": agent, "label": LABEL})
    except Refused as refused:
        if refused.status != 409:
            raise
        return client.post(f"/api/v1/agents/{segment(agent)}/keys", {"label": LABEL})


def _data() -> Path | None:
    """The data folder of the `up` that this user has running."""
    from checkrein.cli.discover import local_file

    try:
        return Path(json.loads(local_file().read_text())["data"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _name_of(command: tuple[str, ...]) -> str:
    """`npx -y some-server` is `some-server`; `python -m tools.crm` is `tools.crm`."""
    words = [Path(word).name for word in command if word and not word.startswith("-")]
    starters = ("npx", "uvx", "uv", "run", "node", "python", "python3", "docker", "bunx", "bun")
    chosen = next((word for word in words if word not in starters), words[0] if words else "tools")
    return chosen.removesuffix(".py").removesuffix(".js")[:NAME_CHARS_MAX] or "tools"

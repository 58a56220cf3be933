"""The HTTP headers that mirror a message, made anew from the body that was judged.

From revision 2026-07-28 on a request says its revision, method, name and some arguments in headers
too. What a client said there is not passed on: whoever routes or judges by headers behind us sees
what is in the body.
"""

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any

from checkrein.gateway.mcp import rpc
from checkrein.gateway.types import Refusal

VERSION_HEADER = "mcp-protocol-version"
SESSION_HEADER = "mcp-session-id"
VERSION_META = "io.modelcontextprotocol/protocolVersion"
ENVELOPE = (
    VERSION_META, "io.modelcontextprotocol/clientInfo",
    "io.modelcontextprotocol/clientCapabilities",
)  # fmt: skip
HANDSHAKE_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
"""Revisions that begin with `initialize` and have sessions; later ones have neither."""
_NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_SAFE = re.compile(r"[\x20-\x7E]*")
_WRAPPED = re.compile(r"=\?base64\?.*\?=")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_PARAMS_MAX = 64


def version_in(message: Mapping[str, Any]) -> str:
    """The revision that a request says it is of: "" where its session settled that."""
    found = rpc.meta_of(message).get(VERSION_META)
    return found if isinstance(found, str) else ""


def is_modern(message: Mapping[str, Any]) -> bool:
    """Whether a message stands for itself, with no session about it."""
    version = version_in(message)
    return bool(version) and version not in HANDSHAKE_VERSIONS


def check(headers: Mapping[str, str], message: Mapping[str, Any]) -> None:
    """Raises Refusal when headers say another revision or method than the body."""
    version, said = headers.get(VERSION_HEADER, ""), version_in(message)
    if said and version and said != version:
        raise Refusal(400, "bad_request", f"{VERSION_HEADER} is not what the message says")
    method = headers.get("mcp-method", "")
    if method and method != message.get("method"):
        raise Refusal(400, "bad_request", "mcp-method is not what the message says")


def mirrored(message: Mapping[str, Any], schema: Any) -> dict[str, str]:
    """The headers of a request of a revision without sessions; `schema` is the input schema of the
    tool that is called."""
    method = str(message.get("method", ""))
    found = {"MCP-Protocol-Version": wrapped(version_in(message)), "Mcp-Method": wrapped(method)}
    params = rpc.params_of(message)
    name = params.get(_NAMED.get(method, ""))
    if isinstance(name, str):
        found["Mcp-Name"] = wrapped(name)
    if method == "tools/call":
        arguments = params.get("arguments")
        for path, token in _annotated(schema, ()):
            text = _text(_at(arguments, path))
            if text is not None and len(found) < _PARAMS_MAX:
                found[f"Mcp-Param-{token}"] = wrapped(text)
    return found


def wrapped(value: str) -> str:
    """A text as it survives in a header."""
    if _SAFE.fullmatch(value) and value == value.strip() and not _WRAPPED.fullmatch(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode('utf-8', 'replace')).decode('ascii')}?="


def _annotated(schema: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if not isinstance(schema, dict) or len(path) > rpc.DEPTH_MAX:
        return
    token = schema.get("x-mcp-header")
    if path and isinstance(token, str) and _TOKEN.fullmatch(token):
        yield path, token
    properties = schema.get("properties")
    for name, inner in properties.items() if isinstance(properties, dict) else ():
        yield from _annotated(inner, (*path, name))


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None

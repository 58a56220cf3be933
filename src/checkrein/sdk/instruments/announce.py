"""Says to our gateway, and to nobody else, which call a request is: so that an action that both
record is one.

A request is for our gateway when it goes to the origin that CHECKREIN_GATEWAY names, or when it
carries a key of ours to a path of the gateway's.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from checkrein.events import joining
from checkrein.sdk import quiet
from checkrein.sdk.calls import ModelCall
from checkrein.sdk.config import environ
from checkrein.sdk.traceparent import header_of

GATEWAY = "CHECKREIN_GATEWAY"
_PATHS = ("/openai/", "/anthropic/")
_PORTS = {"http": 80, "https": 443}


def announce(client: Any, call: ModelCall, options: Any) -> None:
    """Puts the call's ids among the headers of a stainless client's request. A call that is not in
    the record says nothing of itself. Never raises."""
    with quiet.quiet("instruments: announcing a call"):
        if call.run is None or not _is_ours(client, options):
            return
        given = options.headers if isinstance(options.headers, Mapping) else {}
        options.headers = {**given, **ids_of(call)}


def ids_of(call: ModelCall) -> dict[str, str]:
    """What a recorded call says of itself, as headers."""
    run = call.run
    if run is None:
        return {}
    return {
        joining.RUN_HEADER: run.run_id, joining.CALL_HEADER: call.call_id,
        joining.STEP_HEADER: str(run.step),
        joining.TRACE_HEADER: header_of(run.task_id, run.run_id),
    }  # fmt: skip


def is_gateway(url: str, key: str, gateway: str) -> bool:
    """Whether a request to `url` with this key goes to a gateway of ours, of which `gateway` is the
    known one ("": none is known)."""
    if gateway and _origin(url) == _origin(gateway):
        return True
    return key.startswith(joining.OUR_KEYS) and urlsplit(url).path.startswith(_PATHS)


def _is_ours(client: Any, options: Any) -> bool:
    gateway = environ().get(GATEWAY, "").strip()
    keys = (getattr(client, name, None) for name in ("api_key", "auth_token"))
    key = next((key for key in keys if isinstance(key, str) and key), "")
    if not gateway and not key.startswith(joining.OUR_KEYS):
        return False
    return is_gateway(str(client._prepare_url(options.url)), key, gateway)


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)

"""The process's one client: made at its first use, followed through forks, closed at exit."""

import atexit
import os
import threading

from checkrein.sdk import config as configs
from checkrein.sdk import quiet
from checkrein.sdk.client import Client
from checkrein.sdk.config import Config
from checkrein.sdk.links.types import NoLink
from checkrein.sdk.types import Blank

_client: Client | None = None
_lock = threading.RLock()


def client() -> Client:
    """The process's client, made from the environment if `init` was not called."""
    return _client or install(None)


def peek() -> Client | None:
    """The client if there is one already."""
    return _client


def install(client: Client | None) -> Client:
    """Makes `client` the process's one, or, unless there is one already, what the environment
    describes; and starts it."""
    global _client
    with _lock:
        if client is None:
            if _client is not None:
                return _client
            client = _made()
        _client = client
        client.start()
        return client


def _made() -> Client:
    """From the environment. If that fails, a client that records nothing and still judges."""
    try:
        from checkrein.sdk.begin import client_of

        return client_of(configs.read(configs.environ()))
    except Exception as error:
        quiet.fault("making the client", error)
        return Client(Config(agent="agent"), Blank(), lambda info, _: info, lambda _: NoLink())


def _forked() -> None:
    global _lock
    _lock = threading.RLock()
    if _client is not None:
        _client.forked()


os.register_at_fork(after_in_child=_forked)


@atexit.register
def _close() -> None:
    if _client is not None:
        _client.close()

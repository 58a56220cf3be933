"""The last pact that the server gave each agent, on disk: to begin by while the server is away."""

from pathlib import Path

import msgspec

from checkrein.bus import subjects
from checkrein.bus.pacts import PactSet, place_of
from checkrein.sdk import quiet
from checkrein.sdk.layout import write_whole

NAME_BYTES_MAX = 200
FILE_BYTES_MAX = 1024 * 1024


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    at_ns: int
    pact_set: PactSet


class KeptPacts:
    """One file for each agent and environment in a folder of this user's. Errors are counted and
    said; what cannot be kept is not there the next time."""

    def __init__(self, folder: Path | None) -> None:
        """None: nothing is kept."""
        self._folder = folder

    def keep(self, pact_set: PactSet, now_ns: int) -> None:
        path = self._path(pact_set.agent, pact_set.environment)
        if path is None:
            return
        with quiet.quiet("keeping a pact"):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(path, msgspec.msgpack.encode(_Kept(at_ns=now_ns, pact_set=pact_set)))

    def find(self, agent: str, environment: str) -> tuple[PactSet, int] | None:
        """The set, and when it was kept (ns since 1970)."""
        path = self._path(agent, environment)
        if path is None or not path.exists():
            return None
        try:
            with path.open("rb") as file:
                kept = msgspec.msgpack.decode(file.read(FILE_BYTES_MAX), type=_Kept)
        except (OSError, msgspec.MsgspecError) as error:
            quiet.fault("reading a kept pact", error)
            return None
        same = kept.pact_set.agent == agent
        return (kept.pact_set, kept.at_ns) if same else None

    def _path(self, agent: str, environment: str) -> Path | None:
        name = subjects.pact_key(agent, place_of(environment))
        if self._folder is None or len(name) > NAME_BYTES_MAX:
            return None
        return self._folder / name

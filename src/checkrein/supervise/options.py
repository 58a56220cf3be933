"""What `checkrein run` was asked for, and the environment it gives to the program."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from checkrein.supervise.confine.keeping import Wish
from checkrein.supervise.holding import Limits
from checkrein.supervise.place import Manifest, Place
from checkrein.supervise.through_gateway import Access, environment_for
from checkrein.supervise.tree import MARKER

GatewayWanted = Literal["if there is one", "always", "never"]


@dataclass(frozen=True)
class Options:
    """What the user asked for. `pact` is the text of a pact file, already found to be one, and
    `lost_contact` its word. `method`: strongest, cgroup or subreaper. `gateway`: whether model
    calls are sent through it; when `always`, over base URLs of the user's own."""

    argv: Sequence[str]
    agent: str
    named: bool = False
    room: str = ""
    environment: str = "development"
    pact: str = ""
    pact_path: str = ""
    lost_contact: str = "continue"
    url: str = ""
    verbose: bool = False
    method: str = "strongest"
    gateway: GatewayWanted = "if there is one"
    confine: Wish = field(default_factory=Wish)
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    limits: Limits = field(default_factory=Limits)


def agent_environment(
    options: Options, place: Place, manifest: Manifest, access: Access | None = None
) -> dict[str, str]:
    """The program's environment: where its supervisor is, who it is, the bootstrap that instruments
    Python, and the way to the gateway, if there is one. Harmless to any other program."""
    from checkrein import sdk

    environment = dict(options.environ)
    boot = str(Path(sdk.__file__ or "").parent / "boot")
    path = environment.get("PYTHONPATH", "")
    environment |= {
        "PYTHONPATH": f"{boot}{os.pathsep}{path}" if path else boot,
        "CHECKREIN_SUPERVISOR": str(place.socket),
        "CHECKREIN_RECORDERS": str(place.recorders),
        "CHECKREIN_RUN_ID": manifest.run.run_id,
        "CHECKREIN_TASK_ID": manifest.run.task_id,
        "CHECKREIN_AGENT": options.agent,
        "CHECKREIN_ROOM": options.room,
        "CHECKREIN_ENVIRONMENT": options.environment,
        MARKER: manifest.run.run_id,
    }
    if options.pact_path:
        environment["CHECKREIN_PACT"] = str(Path(options.pact_path).resolve())
    environment.pop("CHECKREIN_TOKEN", None)  # an agent needs none, and must not have an operator's
    if access is not None:
        return environment_for(environment, access, options.gateway == "always")
    return environment


def task_of(environ: Mapping[str, str]) -> str:
    """The task this run belongs to, when it was started by a supervised one or by a traced one."""
    parent = environ.get("TRACEPARENT", "").split("-")
    return environ.get("CHECKREIN_TASK_ID", "") or (parent[1] if len(parent) == 4 else "")

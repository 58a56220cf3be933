"""Many agents in one process, each with a client, a link and a run of its own, that decide all the
time and say when they first decided by another version. Started by `bench_push`.

    python -m benches.pact_agents URL TOKEN AGENT…

Lines out: {"agent", "version", "at_ns"} at each change, {"fault": …} when a decision was not wholly
one version's. It ends with its standard input.
"""

import json
import sys
import threading
from typing import Any

from checkrein.policy.types import Action
from checkrein.sdk.client import Client
from checkrein.sdk.config import Config, Endpoint
from checkrein.sdk.links.bus import BusLink
from checkrein.sdk.links.connect import connect_nats
from checkrein.sdk.links.session import ask
from checkrein.sdk.links.shipping import NoShipping
from checkrein.sdk.links.types import Process
from checkrein.sdk.run import Run
from checkrein.sdk.types import Blank
from checkrein.world import REAL

PACE_S = 0.004
STRICT = "refused"


def begin(agent: str, url: str, token: str) -> Run:
    def link(process: Process) -> BusLink:
        return BusLink(process, lambda: Endpoint(url, token), ask, connect_nats, NoShipping())

    client = Client(Config(agent=agent), Blank(), lambda info, _: info, link)
    client.start()
    run = client.new_run("", "", agent, "", {}, "")
    client.run_began(run)
    return run


class Watched:
    """One agent's run, and by which versions it has decided."""

    def __init__(self, name: str, run: Run) -> None:
        self.name, self.run = name, run
        self.version = ""
        self.before: set[str] = set()
        self.calls = 0

    def decide(self) -> None:
        self.calls += 1
        now_ns = REAL.monotonic_ns()
        action = Action(
            kind="tool", name="look", arguments={"n": self.calls}, call_id=f"c{self.calls}"
        )
        verdict = self.run.seat.judge(action, now_ns)
        if verdict.kind != "deny":
            self.run.seat.returned(action, f"result {self.calls}", "", now_ns)
        version = verdict.pact_version
        if version != self.version:
            if version in self.before:
                say(fault=f"{self.name} went back to {version}")
            self.before = {self.version}
            self.version = version
            say(agent=self.name, version=version, at_ns=REAL.monotonic_ns())
        if (verdict.kind == "deny") != verdict.pact.endswith(STRICT):
            say(fault=f"{self.name}: {verdict.kind} by {verdict.pact} {version}")


def say(**line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> None:
    url, token, *names = sys.argv[1:]
    watched = [
        Watched(f"{name}#{index}", begin(name, url, token)) for index, name in enumerate(names)
    ]
    ended = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    while not ended.wait(PACE_S):
        for each in watched:
            each.decide()
    for each in watched:
        each.run.client.close()  # type: ignore[attr-defined] # the client that began it


if __name__ == "__main__":
    main()

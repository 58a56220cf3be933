"""Starting and stopping the demo's agents, each as `checkrein run` does it for anybody."""

import os
import subprocess
import sys
from pathlib import Path

from checkrein.server.demo.cast import Part
from checkrein.world import World

STOP_SECONDS_MAX = 8.0
_LAST_BYTES_MAX = 2_000
_NO_PROXY = "127.0.0.1,localhost"
_OF_PROVIDERS = (
    "OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENAI_API_KEY", "ANTHROPIC_BASE_URL",
    "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN",
)  # fmt: skip


class Troupe:
    """The agents' processes. `stop` ends every one that was started, and nothing else."""

    def __init__(self, world: World, url: str, token: str, gateway: str, folder: Path) -> None:
        self._world = world
        self._url, self._token, self._gateway = url, token, gateway
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._handoff = folder / "handoff" / world.nonce()[:12]
        self._handoff.mkdir(parents=True)
        # All of a chain belong to one task: the trace id that each is started with.
        self._traceparent = f"00-{world.trace_id()}-{world.nonce()[:16]}-01"

    def start(self, part: Part, key: str = "") -> Path:
        """Starts one agent under its pact; what it prints goes to the file that is returned.
        `key`: a stranger's own, for the gateway."""
        log = self._folder / f"{part.agent}.log"
        with log.open("ab") as out:
            self._processes.append(
                subprocess.Popen(  # noqa: S603 # our own command line
                    self.command(part),
                    env=self.environment(part, key),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
            )
        return log

    def command(self, part: Part) -> list[str]:
        program = [sys.executable, str(part.program), *part.options]
        if part.stranger:
            return program
        return [
            sys.executable, "-m", "checkrein", "run", "--agent", part.agent, "--room", part.room,
            "--pact", str(part.pact), "--gateway", "--", *program,
        ]  # fmt: skip

    def environment(self, part: Part, key: str = "") -> dict[str, str]:
        """What the program is started with. Where its models are, `checkrein run` tells it: the
        gateway's address, and a key of its run. A stranger is told that, and nothing else."""
        hidden = (*_OF_PROVIDERS, "TRACEPARENT")
        kept = {name: value for name, value in os.environ.items() if name not in hidden}
        values = {**kept, "NO_PROXY": _NO_PROXY, "no_proxy": _NO_PROXY, "PYTHONUNBUFFERED": "1"}
        if part.stranger:
            values = {n: v for n, v in values.items() if not n.startswith("CHECKREIN_")}
            return values | {
                "OPENAI_BASE_URL": f"{self._gateway}/openai/v1", "OPENAI_API_KEY": key,
            }  # fmt: skip
        values |= {
            "CHECKREIN_URL": self._url, "CHECKREIN_TOKEN": self._token,
            "DEMO_HANDOFF": str(self._handoff),
        }  # fmt: skip
        if part.chain:
            values["TRACEPARENT"] = self._traceparent
        return values

    @property
    def over(self) -> bool:
        """True when every agent that was started has ended."""
        return all(process.poll() is not None for process in self._processes)

    def last_words(self, agent: str) -> str:
        """The last line that an agent printed, cut to a readable length."""
        path = self._folder / f"{agent}.log"
        if not path.exists():
            return ""
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - _LAST_BYTES_MAX))
            lines = log.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def stop(self) -> None:
        """SIGTERM to each supervisor that still runs, which hands it on; SIGKILL to those that have
        not ended within `STOP_SECONDS_MAX`. Returns when all have ended."""
        for process in self._processes:
            process.terminate()  # harmless to one that has ended
        deadline_ns = self._world.monotonic_ns() + round(STOP_SECONDS_MAX * 1e9)
        for process in self._processes:
            left_s = max(0.0, (deadline_ns - self._world.monotonic_ns()) / 1e9)
            try:
                process.wait(left_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

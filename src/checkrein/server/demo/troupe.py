"""Starting and stopping the demo's agents, each as `checkrein run` does it for anybody."""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from checkrein.server.demo.cast import Part
from checkrein.world import World

STOP_SECONDS_MAX = 8.0
_NO_PROXY = "127.0.0.1,localhost"


class Troupe:
    """The agents' processes. `stop` ends every one that was started, and nothing else."""

    def __init__(self, world: World, url: str, token: str, models_url: str, folder: Path) -> None:
        self._url, self._token, self._models = url, token, models_url
        self._folder = folder
        self._processes: list[asyncio.subprocess.Process] = []
        self._handoff = folder / "handoff" / world.nonce()[:12]
        self._handoff.mkdir(parents=True)
        # All of a chain belong to one task: the trace id that each is started with.
        self._traceparent = f"00-{world.trace_id()}-{world.nonce()[:16]}-01"

    async def start(self, part: Part) -> Path:
        """Starts one agent under its pact; what it prints goes to the file that is returned."""
        log = self._folder / f"{part.agent}.log"
        with log.open("ab") as out:
            self._processes.append(
                await asyncio.create_subprocess_exec(
                    *self.command(part),
                    env=self.environment(part),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
            )
        return log

    def command(self, part: Part) -> list[str]:
        return [
            sys.executable, "-m", "checkrein", "run", "--agent", part.agent, "--room", part.room,
            "--pact", str(part.pact), "--", sys.executable, str(part.program), *part.options,
        ]  # fmt: skip

    def environment(self, part: Part) -> dict[str, str]:
        """What the program needs to find its models: it is told nothing else about the demo."""
        key = f"scripted:{part.agent}"
        values = {
            **os.environ,
            "CHECKREIN_URL": self._url,
            "CHECKREIN_TOKEN": self._token,
            "OPENAI_BASE_URL": f"{self._models}/v1",
            "OPENAI_API_BASE": f"{self._models}/v1",
            "OPENAI_API_KEY": key,
            "ANTHROPIC_BASE_URL": self._models,
            "ANTHROPIC_API_KEY": key,
            "DEMO_HANDOFF": str(self._handoff),
            "NO_PROXY": _NO_PROXY,
            "no_proxy": _NO_PROXY,
            "PYTHONUNBUFFERED": "1",
        }
        values.pop("TRACEPARENT", None)
        if part.chain:
            values["TRACEPARENT"] = self._traceparent
        return values

    async def stop(self) -> None:
        """SIGTERM to each supervisor that still runs, which hands it on; SIGKILL if that is not
        enough within the time."""
        running = [process for process in self._processes if process.returncode is None]
        for process in running:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS_MAX):
                for process in running:
                    await process.wait()
        for process in running:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

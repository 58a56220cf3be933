"""`checkrein demo`: everything on one machine, with agents that misbehave."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click

from checkrein.cli import out

READY_S = 30.0
STOP_S = 30.0
LOG_LINES_SHOWN = 20
MODELS_KEY = "the-demo's-own-key"


@click.command()
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), default=None,
    help="The data folder; default: a new one in the temporary folder, removed at the end.",
)  # fmt: skip
@click.option("--http", default="", help="HOST:PORT to listen on; default: 4400, or a free port.")
@click.option("--exit-when-done", is_flag=True, help="Stop when the story is told.")
@click.option("--json", "as_json", is_flag=True, help="The story as JSON, one line a happening.")
def demo(data: Path | None, http: str, exit_when_done: bool, as_json: bool) -> None:
    """Start everything, with real agents that misbehave in different ways, and show what is caught.

    Then it keeps running, so that you can try commands from another terminal; Ctrl-C stops it.
    Ends with 1 if an agent was not caught.
    """
    from checkrein.server.demo import story
    from checkrein.server.demo.models import ModelServer

    # A shell starts its background jobs with SIGINT ignored; SIGTERM must stop those too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    caught = True

    gateway = _address(4401)
    with (
        _folder(data) as folder, ModelServer() as models,
        _up(folder, http or _address(4400), gateway, models.url) as url,
    ):  # fmt: skip
        token = (folder / "operator.token").read_text().strip()
        play = story.play(
            url, token, folder, exit_when_done, as_json, gateway=f"http://{gateway}"
        )  # fmt: skip
        try:
            caught = asyncio.run(play)
        except KeyboardInterrupt:
            out.warn("stopping")
    sys.exit(0 if caught else 1)


@contextmanager
def _folder(data: Path | None) -> Iterator[Path]:
    if data is not None:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield data.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="checkrein-demo-", ignore_cleanup_errors=True) as made:
        yield Path(made)


@contextmanager
def _up(data: Path, http: str, gateway: str, models_url: str) -> Iterator[str]:
    """`checkrein up` as a child, until the block is left; it does not outlive us. Its gateway has
    the scripted models behind it, with a key that no agent gets to see."""
    from checkrein.supervise.proc import die_with_parent

    log = data / "up.log"
    with log.open("w") as file:
        process = subprocess.Popen(  # noqa: S603 # ourselves
            [sys.executable, "-m", "checkrein", "up", "--data", str(data), "--http", http,
             "--gateway", gateway],
            env={**os.environ, "CHECKREIN_OPENAI_UPSTREAM": f"{models_url}/v1",
                 "CHECKREIN_ANTHROPIC_UPSTREAM": models_url, "OPENAI_API_KEY": MODELS_KEY,
                 "ANTHROPIC_API_KEY": MODELS_KEY},
            stdout=file, stderr=file, stdin=subprocess.DEVNULL, start_new_session=True,
            preexec_fn=partial(die_with_parent, signal.SIGTERM),
        )  # fmt: skip
    url = f"http://{http}"
    try:
        _wait_ready(process, url, log)
        yield url
    finally:
        _stop(process)


def _wait_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        if process.poll() is not None:
            _explain(f"`checkrein up` ended with {process.returncode}", log)
        if time.monotonic() > deadline:
            _explain(f"`checkrein up` was not ready after {READY_S:.0f} s", log)
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=2) as answer:  # noqa: S310 # our own
                if answer.status == 200:
                    return
        except (OSError, urllib.error.URLError):
            time.sleep(0.05)


def _explain(what: str, log: Path) -> None:
    lines = log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
    for line in lines:
        out.warn(line)
    out.fail(what)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    except KeyboardInterrupt:
        process.wait(STOP_S)


def _address(usual: int) -> str:
    """The usual address, or a free port when that is taken."""
    for port in (usual, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return f"127.0.0.1:{probe.getsockname()[1]}"
    raise OSError("no free port on 127.0.0.1")

"""The session of docs/first-agent.md, typed against a running server."""

import contextlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import DOCS, Block, blocks
from tests.system import System, eventually, system

PAGE = DOCS / "first-agent.md"


def _of(language: str, begins: str) -> Block:
    return next(b for b in blocks(language) if b.page == PAGE and begins in b.text)


def _typed(line: str, running: System) -> "subprocess.CompletedProcess[str]":
    return running.run(*shlex.split(line)[1:])


def test_the_session_goes_as_told(tmp_path: Path) -> None:
    (tmp_path / "support_bot.py").write_text(_of("python", "search_kb").text)
    (tmp_path / "support-bot.yaml").write_text(_of("yaml", "pact: support-bot").text)
    run, *lines = _of("console", "--pact support-bot.yaml").text.splitlines()
    denial = re.search(r"^refund denied: .*$", PAGE.read_text(), re.MULTILINE)
    assert denial is not None
    with system(tmp_path) as running, contextlib.ExitStack() as stack:
        words = [sys.executable if word == "python" else word for word in shlex.split(run)[1:]]
        log = stack.enter_context(open(tmp_path / "agent.log", "w+"))
        agent = running.start(*words, stdout=log, stderr=subprocess.STDOUT, cwd=tmp_path)
        stack.callback(agent.kill)

        def said() -> str:
            return (tmp_path / "agent.log").read_text()

        eventually(lambda: denial[0] in said(), what="the agent is told of the refusal")
        ps, incidents, pause, resume, halt = lines
        eventually(lambda: "yes L" in _typed(ps, running).stdout, what="ps shows it haltable")
        eventually(lambda: "scope" in _typed(incidents, running).stdout, what="an incident")
        for line, status in ((pause, "paused"), (resume, "running")):
            done = _typed(line, running)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "1 of 1 obeyed" in done.stdout
            eventually(lambda status=status: status in _typed(ps, running).stdout, what=status)
        done = _typed(halt, running)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "confirmed by supervisor" in done.stdout
        assert "freeze" in done.stdout
        assert agent.wait(30) != 0
        assert "halted" in said()
        eventually(lambda: "halted" in _typed(ps, running).stdout, what="ps shows it halted")

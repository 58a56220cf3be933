"""The page "From nothing to a pact in ten minutes", typed from its first line to its last against a
running server. What stands in its `text` blocks must be said by the command before them: each line,
in order, with anything in the place of `…` and of blanks."""

import contextlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import DOCS, Block, blocks
from tests.system import System, eventually, system

PAGE = DOCS / "pact-in-ten-minutes.md"
WAITS = "# waits"
ONCE = ("run", "pact learn", "pact push", "approve")
"""Commands that change something; the others may be typed again until what was done is stored."""


def test_the_page_goes_as_told(tmp_path: Path) -> None:
    on_page = [block for block in blocks() if block.page == PAGE]
    with system(tmp_path) as running, contextlib.ExitStack() as stack:
        reader = _Reader(running, tmp_path, stack)
        for block in on_page:
            reader.read(block)
        assert reader.typed >= 15
        assert reader.compared >= 9
        assert reader.waiting is None


class _Reader:
    """Somebody who goes through the page with a terminal."""

    def __init__(self, running: System, folder: Path, stack: contextlib.ExitStack) -> None:
        self.running, self.folder, self.stack = running, folder, stack
        self.waiting: subprocess.Popen[str] | None = None
        self.last: list[str] = []
        self.said = ""
        self.runs = 0
        self.typed = self.compared = 0

    def read(self, block: Block) -> None:
        match block.language:
            case "python":
                (self.folder / "desk.py").write_text(block.text)
            case "yaml":
                self._pact(block.text)
            case "console":
                for line in block.text.splitlines():
                    self._type(line)
            case "text":
                self._compare(block)
            case other:
                raise AssertionError(f"{block.name}: nobody types {other}")

    def _pact(self, text: str) -> None:
        path = self.folder / "desk.yaml"
        if text.startswith("#"):
            assert path.read_text() == text, "what is learned is what stands on the page"
        path.write_text(text)

    def _type(self, line: str) -> None:
        words = [sys.executable if w == "python" else w for w in shlex.split(line, comments=True)]
        self.typed += 1
        if words[1] == "up":
            return
        if words[1:3] == ["pact", "promote"] and "--dry-run" not in words:
            assert "now at stage" in self._run(words[1:])
            return
        self.last = words[1:]
        if line.endswith(WAITS):
            self.waiting = self._start(words[1:])
            self.stack.callback(self.waiting.kill)
            self.runs += 1
            eventually(lambda: "refund" in self._run(["approvals"]), what="somebody is asked")
            return
        self.said = self._run(self.last)
        if words[1] == "run":
            self.runs += len(words) - words.index("desk.py") - 1
            eventually(self._is_stored, what=f"{self.runs} runs are stored")

    def _compare(self, block: Block) -> None:
        if self.waiting is not None and "refunded" in block.text:
            self.said, self.waiting = self._ended(), None
            self.last = ["run"]

        def told() -> str:
            again = not " ".join(self.last).startswith(ONCE)
            self.said = self._run(self.last) if again else self.said
            return self.said

        with contextlib.suppress(AssertionError):
            eventually(lambda: _stands_in(block.text, told()))
        assert _stands_in(block.text, self.said), f"{block.name}: {self.last} said {self.said}"
        self.compared += 1

    def _ended(self) -> str:
        assert self.waiting is not None
        return self.waiting.communicate(timeout=30)[0]

    def _is_stored(self) -> bool:
        ends = self.running.get("/api/v1/events?types=run.end&agent=desk&limit=1000")
        return len(ends) == self.runs

    def _start(self, words: list[str]) -> "subprocess.Popen[str]":
        return self.running.start(
            *words, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def _run(self, words: list[str]) -> str:
        started = self._start(words)
        said = started.communicate(timeout=60)[0]
        assert started.returncode == 0 or "--dry-run" in words, f"{words}: {said}"
        return said


def _stands_in(told: str, said: str) -> bool:
    """Whether the lines of a `text` block stand in what a command has said, in their order."""
    flat = _flat(said)
    at = 0
    for line in told.splitlines():
        for part in line.split("…"):
            found = flat.find(_flat(part), at)
            if found < 0:
                return False
            at = found + len(_flat(part))
    return True


def _flat(text: str) -> str:
    return " ".join(re.sub(r"[█▏▎▍▌▋▊▉]", " ", text).split())

"""Real frameworks against the scripted server, under a pact."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from checkrein.server.demo.models import ModelServer
from checkrein.server.demo.replies import Call, Reply, Turn
from checkrein.server.demo.scripts import SCRIPTS
from tests.recorded import Recorded, recorded

PACT = """
pact: test
job: test
owner: test
tools:
  add: {kind: read}
  fail: {kind: read}
  stop: {kind: read}
"""


def one_call(tool: str, **arguments: object) -> object:
    """A script that calls a tool once and then repeats what came back."""

    def script(turn: Turn) -> Reply:
        if turn.number == 0:
            return Reply(calls=(Call(tool, arguments),))
        return Reply(text=f"it said: {' / '.join(turn.results)}")

    return script


@pytest.fixture(scope="session")
def models() -> Iterator[ModelServer]:
    calls = {
        "add": one_call("add", a=2, b=3),
        "forbidden": one_call("forbidden", what="all"),
        "fail": one_call("fail", a=1),
        "stop": one_call("stop", a=1),
        "unknown": one_call("ad", a=2, b=3),
        "unfit": one_call("add", a="two"),
    }
    with ModelServer({**SCRIPTS, **calls}) as server:  # type: ignore[dict-item] # scripts all
        yield server


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Recorded]:
    with recorded(tmp_path, PACT) as recorder:
        yield recorder

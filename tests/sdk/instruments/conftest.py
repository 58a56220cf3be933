from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.recorded import Recorded, recorded

from checkrein.server.demo.models import ModelServer
from checkrein.server.demo.replies import Call, Reply, Turn
from checkrein.server.demo.scripts import SCRIPTS


def weather(turn: Turn) -> Reply:
    """Asks for the weather of one town, with some text, then tells it."""
    if turn.number == 0:
        calls = (Call("weather", {"town": "Bern"}), Call("weather", {"town": "Basel"}))
        return Reply(text="Let me look.", calls=calls, cached_tokens=3, reasoning_tokens=0)
    return Reply(text=f"It says: {', '.join(turn.results)}", model="gpt-5-mini-2026-01-01")


def breaks(turn: Turn) -> Reply:
    del turn
    return Reply(text="this stream will not end", breaks=True, error="the line is cut")


def prompt(turn: Turn) -> Reply:
    """Says what it was told, by whom."""
    return Reply(text=f"{turn.system}|{turn.prompt}")


@pytest.fixture(scope="session")
def models() -> Iterator[ModelServer]:
    scripts = {**SCRIPTS, "weather": weather, "breaks": breaks, "prompt": prompt}
    with ModelServer(scripts) as server:
        yield server


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Recorded]:
    with recorded(tmp_path) as recorder:
        yield recorder

"""Libraries imported before, after, changed, or of the same name."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from checkrein.sdk.instruments import instrument, instrumented, patches, uninstrument
from checkrein.sdk.instruments.imports import ImportWatch


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ImportWatch]:
    (tmp_path / "checkrein_probe.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    made = ImportWatch()
    yield made
    made.forget()
    sys.modules.pop("checkrein_probe", None)


def test_told_after_the_import(watch: ImportWatch) -> None:
    seen: list[ModuleType] = []
    watch.watch("checkrein_probe", seen.append)
    assert seen == []
    import checkrein_probe  # type: ignore[import-not-found] # made by the fixture

    assert [module.value for module in seen] == [1]
    assert checkrein_probe.__spec__.loader is checkrein_probe.__loader__
    assert "exec_module" not in vars(checkrein_probe.__loader__)


def test_told_at_once_of_what_is_there(watch: ImportWatch) -> None:
    seen: list[ModuleType] = []
    watch.watch("json", seen.append)
    assert [module.__name__ for module in seen] == ["json"]


def test_what_is_told_cannot_break_the_import(
    watch: ImportWatch, caplog: pytest.LogCaptureFixture
) -> None:
    def told(module: ModuleType) -> None:
        raise ValueError("not today")

    watch.watch("checkrein_probe", told)
    import checkrein_probe

    assert checkrein_probe.value == 1
    assert "not today" in caplog.text


def test_a_module_that_fails_fails_as_ever(watch: ImportWatch, tmp_path: Path) -> None:
    (tmp_path / "checkrein_probe.py").write_text("raise LookupError('broken')\n")
    seen: list[ModuleType] = []
    watch.watch("checkrein_probe", seen.append)
    with pytest.raises(LookupError, match="broken"):
        import checkrein_probe  # noqa: F401
    assert seen == []


def test_instrument_twice_and_undo() -> None:
    import openai._base_client as base

    before = base.SyncAPIClient.request
    try:
        assert "openai" in instrument()
        once = base.SyncAPIClient.request
        instrument()
        assert base.SyncAPIClient.request is once
        assert once is not before
    finally:
        uninstrument()
    assert base.SyncAPIClient.request is before
    assert instrumented() == {}


def test_every_place_is_there() -> None:
    """With the installed versions nothing is missing: a new release that moves something fails
    here, and only warns at an agent's."""
    import agents  # noqa: F401
    import anthropic  # noqa: F401
    import langgraph.prebuilt  # noqa: F401
    import mcp.client.session  # noqa: F401
    import openai  # noqa: F401
    import pydantic_ai  # noqa: F401

    try:
        instrument()
        assert instrumented() == {
            "openai": [],
            "anthropic": [],
            "langchain-core": [],
            "langgraph-prebuilt": [],
            "mcp": [],
            "openai-agents": [],
            "pydantic-ai-slim": [],
        }
    finally:
        uninstrument()


def test_changed_library_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    def make(original: Any) -> Any:
        return original

    caplog.set_level(logging.WARNING)
    for _ in range(2):
        made = patches.Patches("openai")
        assert not made.wrap("openai._base_client", "SyncAPIClient.gone_away", make)
        assert not made.wrap("openai._no_such", "f", make)
        assert made.missing == ["openai._base_client:SyncAPIClient.gone_away", "openai._no_such:f"]
        made.undo()
    assert caplog.text.count("gone_away") >= 1
    assert len(caplog.records) == 2
    assert "openai 3." in caplog.text


def test_somebodys_own_package_of_that_name_is_left_alone(tmp_path: Path) -> None:
    """Many a project has a folder `agents`."""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").write_text("mine = True\n")
    program = (
        "from checkrein.sdk.instruments import instrument, instrumented\n"
        "instrument()\nimport agents\nassert agents.mine\nassert instrumented() == {}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_costs_no_library(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom checkrein.sdk.instruments import instrument\ninstrument()\n"
        "heavy = {'openai', 'anthropic', 'msgspec', 'nats', 'asyncio', 'logging', 'typing'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{program}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")

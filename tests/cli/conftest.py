"""The terminal against a real api role on loopback (`stand`), run as a user runs it."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.server.api.conftest import Stand, stand

__all__ = ["stand"]

Run = Callable[..., Awaitable[Result]]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No `up` of whoever runs the tests is found."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    for name in ("CHECKREIN_URL", "CHECKREIN_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def checkrein(stand: Stand) -> Run:  # the fixture imported above
    """`await checkrein("ps", "--json")`, against the stand."""
    from checkrein.cli.root import root

    async def run(*arguments: str) -> Result:
        environment = {"CHECKREIN_URL": stand.url, "CHECKREIN_TOKEN": stand.token}
        runner = CliRunner(env=environment)
        return await asyncio.to_thread(runner.invoke, root, list(arguments), prog_name="checkrein")

    return run

"""Where the server is found, and what is said when it is not."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.server.api.conftest import Stand

from checkrein.cli import discover
from checkrein.cli.root import root


def note(url: str, token: str, folder: Path) -> None:
    """What `up` writes."""
    (folder / "tok").write_text(token + "\n")
    path = discover.local_file()
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"url": url, "token_file": str(folder / "tok"), "data": "/d"}))


def test_a_local_up_is_found_by_itself(tmp_path: Path) -> None:
    note("http://127.0.0.1:4999", "secret", tmp_path)
    place = discover.find()
    assert (place.url, place.token, place.data) == ("http://127.0.0.1:4999", "secret", Path("/d"))


def test_options_win_over_environment_over_local(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note("http://127.0.0.1:4999", "secret", tmp_path)
    monkeypatch.setenv("CHECKREIN_URL", "http://elsewhere:1/")
    monkeypatch.setenv("CHECKREIN_TOKEN", "from-env")
    assert discover.find() == discover.Place("http://elsewhere:1", "from-env")
    assert discover.find("http://o:2", "opt") == discover.Place("http://o:2", "opt")


def test_a_local_token_is_never_sent_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note("http://127.0.0.1:4999", "secret", tmp_path)
    monkeypatch.setenv("CHECKREIN_URL", "http://elsewhere:1")
    with pytest.raises(discover.CannotFind, match="no token for http://elsewhere:1"):
        discover.find()


def test_no_server_says_how_to_start_one() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["ps", "--url", f"http://127.0.0.1:{port}", "--token", "t"]
    result = CliRunner().invoke(root, arguments)
    assert result.exit_code == 2
    assert "Start a server with `checkrein up`" in result.stderr
    assert result.stdout == ""


def test_no_token_says_where_it_lies() -> None:
    result = CliRunner().invoke(root, ["ps"])
    assert result.exit_code == 2
    assert "operator.token" in result.stderr


async def test_a_wrong_token_is_told(stand: Stand) -> None:
    import asyncio

    arguments = ["ps", "--url", stand.url, "--token", "wrong"]
    result = await asyncio.to_thread(CliRunner().invoke, root, arguments)
    assert result.exit_code == 2
    assert "the token is wrong" in result.stderr


def test_a_server_that_is_none_is_told() -> None:
    for url in ("ftp://x", "nonsense", "http://"):
        result = CliRunner().invoke(root, ["ps", "--url", url, "--token", "t"])
        assert result.exit_code == 2
        assert "address of a server" in result.stderr


def test_an_unknown_command_suggests_a_known_one() -> None:
    result = CliRunner().invoke(root, ["hault", "all"])
    assert result.exit_code == 2
    assert "Did you mean `halt`?" in result.stderr


def test_help_loads_nothing_heavy() -> None:
    """That is what makes it answer at once."""
    code = (
        "import sys\nfrom checkrein.cli.root import root\n"
        "root.main(['--help'], standalone_mode=False)\n"
        "heavy = {'rich', 'httpx', 'litestar', 'msgspec', 'nats', 'asyncio', 'chdb'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert "halt" in done.stdout
    assert done.stdout.splitlines()[-1] == "LOADED []"


@pytest.mark.parametrize(
    "name", ["up", "ps", "watch", "show", "pause", "resume", "halt", "replay", "incidents",
             "schema", "doctor", "demo", "agents", "serve"]
)  # fmt: skip
def test_every_command_explains_itself(name: str) -> None:
    result = CliRunner().invoke(root, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage: " in result.stdout
    if name != "serve":
        assert "--json" in result.stdout


def test_schema_is_a_json_schema_of_events() -> None:
    found = json.loads(CliRunner().invoke(root, ["schema"]).stdout)
    assert "run.start" in json.dumps(found)

"""The bootstrap: it instruments a supervised program and cannot break any."""

import os
import subprocess
import sys
from pathlib import Path

from checkrein.sdk import boot

SOURCE = str(Path(boot.path()).parents[2])


def start(
    program: str, folder: Path, *path: str, code: int = 0, **environ: str
) -> subprocess.CompletedProcess[str]:
    values = {"PATH": os.environ["PATH"], "HOME": str(folder), **environ}
    values["PYTHONPATH"] = boot.python_path(os.pathsep.join(path))
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=values, cwd=folder, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done


INSTRUMENTED = "from checkrein.sdk.instruments import instrumented\nimport openai\n"


def test_supervised_program_is_instrumented(tmp_path: Path) -> None:
    program = INSTRUMENTED + "assert instrumented() == {'openai': []}, instrumented()"
    done = start(program, tmp_path, SOURCE, CHECKREIN_SUPERVISOR=str(tmp_path / "none"))
    assert done.stderr == ""


def test_without_supervisor_nothing_happens(tmp_path: Path) -> None:
    program = "import sys; assert not [m for m in sys.modules if m.startswith('checkrein')]"
    assert start(program, tmp_path, SOURCE).stderr == ""


def test_loads_little_until_a_library_comes(tmp_path: Path) -> None:
    program = (
        "import sys\nheavy = {'msgspec', 'asyncio', 'nats', 'logging', 'checkrein.sdk.calls'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert 'checkrein.sdk.instruments' in sys.modules"
    )
    assert start(program, tmp_path, SOURCE, CHECKREIN_SUPERVISOR="x").stderr == ""


def test_the_environments_own_sitecustomize_runs_too(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("import sys\nsys.seen_it = __file__\n")
    program = (
        "import sys, sitecustomize\nassert sys.seen_it == sitecustomize.__file__, sys.seen_it\n"
        "assert 'checkrein.sdk.instruments' in sys.modules"
    )
    done = start(program, tmp_path, str(own), SOURCE, CHECKREIN_SUPERVISOR="x")
    assert done.stderr == ""


def test_the_environments_own_sitecustomize_may_fail(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("raise OSError('two\\nlines')\n")
    done = start("print('went on')", tmp_path, str(tmp_path), SOURCE, CHECKREIN_SUPERVISOR="x")
    assert done.stdout == "went on\n"
    assert done.stderr.count("\n") == 1
    assert "OSError: two lines" in done.stderr


def test_checkrein_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "checkrein.py").write_text("raise SyntaxError('too old a Python')\n")
    done = start("print('went on')", tmp_path, str(tmp_path), CHECKREIN_SUPERVISOR="x")
    assert done.stdout == "went on\n"
    assert done.stderr.count("\n") == 1
    assert "supervised but not instrumented" in done.stderr


def test_exit_code_and_errors_are_the_programs(tmp_path: Path) -> None:
    done = start("raise SystemExit(7)", tmp_path, SOURCE, code=7, CHECKREIN_SUPERVISOR="x")
    assert done.stderr == ""

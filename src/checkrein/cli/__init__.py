"""The terminal: the same API, for people and for scripts."""

import sys


def main() -> None:
    """Entry point of `checkrein`. Exits 0 when all is well, 1 when what was asked was not done, 2
    when it could not be asked."""
    if sys.argv[1:2] == ["hook"]:  # a process for every call of an agent: nothing more is imported
        from checkrein.cli.hook.entry import main as hook

        sys.exit(hook(sys.argv[2:]))
    try:
        from checkrein.cli.root import root
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.stderr.write(
            "checkrein: the terminal needs the server's packages: pip install 'checkrein[server]'\n"
        )
        sys.exit(2)
    root.main(prog_name="checkrein")
